"""segment_softmax: softmax over consecutive rows, per column."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gnnkern._cpu.segment_softmax import softmax_segments
from gnnkern.backends import (
    Implementation,
    choose,
    cpu_unsupported,
    cuda_unsupported,
    reference_unsupported,
    triton_unsupported,
)
from gnnkern.ops._checks import check_floats, check_indptr, device_of, query_of
from gnnkern.ops._operator import (
    cast_for_autocast,
    define,
    first_derivative_only,
    needs_gradient,
)
from gnnkern.reference.segment_softmax import segment_softmax_reference

__all__ = ["segment_softmax"]


def segment_softmax_cpu(x: Tensor, indptr: Tensor, grad: Tensor | None = None) -> Tensor:
    """The C++ segment softmax, or its gradient where `grad` is given."""
    return softmax_segments(indptr, x, grad)


def segment_softmax_triton(x: Tensor, indptr: Tensor, grad: Tensor | None = None) -> Tensor:
    """The Triton segment softmax, or its gradient where `grad` is given."""
    from gnnkern._triton.segment_softmax import softmax_segments

    return softmax_segments(indptr, x, grad)


def segment_softmax_cuda(x: Tensor, indptr: Tensor, grad: Tensor | None = None) -> Tensor:
    """The CUDA segment softmax, or its gradient where `grad` is given."""
    from gnnkern._cuda.segment_softmax import softmax_segments

    return softmax_segments(indptr, x, grad)


IMPLEMENTATIONS = (
    Implementation("cpu", segment_softmax_cpu, cpu_unsupported),
    Implementation("triton", segment_softmax_triton, triton_unsupported),
    Implementation("cuda", segment_softmax_cuda, cuda_unsupported),
    Implementation("reference", segment_softmax_reference, reference_unsupported),
)

_LAUNCH = {
    "cpu": segment_softmax_cpu,
    "triton": segment_softmax_triton,
    "cuda": segment_softmax_cuda,
}


def _segment_softmax(x: Tensor, indptr: Tensor, grad: Tensor | None, backend: str) -> Tensor:
    return _LAUNCH[backend](x, indptr, grad)


_segment_softmax_op = define(
    "segment_softmax",
    "(Tensor x, Tensor indptr, Tensor? grad, str backend) -> Tensor",
    _segment_softmax,
    lambda x, indptr, grad, backend: x.new_empty(x.shape),
)


class _SegmentSoftmax(torch.autograd.Function):
    """softmax * (grad - the sum of softmax * grad over the segment)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, indptr: Tensor, backend: str) -> Tensor:
        out: Tensor = _segment_softmax_op(x, indptr, None, backend)
        ctx.save_for_backward(indptr, out, x)
        ctx.backend = backend
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        indptr, out, x = ctx.saved_tensors
        grad_x = _segment_softmax_op(out.detach(), indptr, grad, ctx.backend)
        (grad_x,) = first_derivative_only("segment_softmax", (grad_x,), (grad, x))
        return grad_x, None, None


def segment_softmax(
    x: Tensor,  # [E, ...]
    indptr: Tensor,  # [N + 1]
    *,
    backend: str | None = None,
) -> Tensor:  # [E, ...]
    """Softmax of rows `indptr[i]` to `indptr[i + 1]` of x, for every trailing column by itself.

    Args:
        x: [E, ...] scores, grouped.
        indptr: [N + 1] int32 or int64, from 0 to E without decreasing.
        backend: Where to run; by default the fastest that can.

    Returns:
        [E, ...], the dtype of x. A segment of minus infinities gets 0.

    Numerics: the largest value is subtracted first; halves are computed in float32 and rounded
    once. Bitwise repeatable. Under autocast it runs in float32.

    Gradients: of x, once.

    Cost: forward 2 and backward 3 times the size of x.

    Raises:
        TypeError: x is not floating or indptr not of integers.
        ValueError: a shape or device is wrong, or indptr is not valid.
        BackendUnavailable: `backend` cannot run this call.

    Source: softmax_csr of pyg-lib.
    """
    if isinstance(x, Tensor):
        (x,) = cast_for_autocast(x, to=torch.float32)
    check_floats("segment_softmax", device_of("segment_softmax", x), x=x)
    if x.dim() == 0:
        raise ValueError("segment_softmax: x must have shape [E, ...], got []")
    indptr = check_indptr("segment_softmax", indptr, x.device, x.shape[0])
    implementation = choose("segment_softmax", IMPLEMENTATIONS, query_of(x), backend)
    if implementation.backend == "reference":
        return segment_softmax_reference(x, indptr)
    if needs_gradient(x):
        out: Tensor = _SegmentSoftmax.apply(x, indptr, implementation.backend)
    else:
        out = _segment_softmax_op(x, indptr, None, implementation.backend)
    return out
