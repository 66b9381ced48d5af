"""segment_gather: every row repeated along its segment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gnnkern._cpu.segment_gather import repeat_rows
from gnnkern.backends import (
    Implementation,
    choose,
    cpu_unsupported,
    cuda_unsupported,
    reference_unsupported,
    triton_unsupported,
)
from gnnkern.ops._checks import (
    check_boundaries,
    check_floats,
    check_indptr_type,
    device_of,
    query_of,
)
from gnnkern.ops._operator import define, is_tracked
from gnnkern.ops._transforms import Linear, batch_first, transformed, transforms_active
from gnnkern.reference.segment_gather import segment_gather_reference

__all__ = ["segment_gather"]


def segment_gather_cpu(x: Tensor, indptr: Tensor, num_edges: int) -> Tensor:
    """The C++ row copies."""
    return repeat_rows(indptr, x, num_edges)


def segment_gather_triton(x: Tensor, indptr: Tensor, num_edges: int) -> Tensor:
    """The Triton row copies."""
    from gnnkern._triton.sddmm import repeat_rows

    return repeat_rows(indptr, x, num_edges)


def segment_gather_cuda(x: Tensor, indptr: Tensor, num_edges: int) -> Tensor:
    """The CUDA row copies."""
    from gnnkern._cuda.sddmm import repeat_rows

    return repeat_rows(indptr, x, num_edges)


IMPLEMENTATIONS = (
    Implementation("cpu", segment_gather_cpu, cpu_unsupported),
    Implementation("triton", segment_gather_triton, triton_unsupported),
    Implementation("cuda", segment_gather_cuda, cuda_unsupported),
    Implementation("reference", segment_gather_reference, reference_unsupported),
)

_LAUNCH = {"cpu": segment_gather_cpu, "triton": segment_gather_triton, "cuda": segment_gather_cuda}


def _segment_gather(x: Tensor, indptr: Tensor, output_size: int | None, backend: str) -> Tensor:
    num_edges = int(indptr[-1]) if output_size is None else output_size
    if num_edges < 0:
        raise ValueError(f"segment_gather: indptr must not decrease, got {num_edges} at its end")
    return _LAUNCH[backend](x, indptr, num_edges)


def _segment_gather_fake(
    x: Tensor, indptr: Tensor, output_size: int | None, backend: str
) -> Tensor:
    size = torch.library.get_ctx().new_dynamic_size() if output_size is None else output_size
    return x.new_empty((size, *x.shape[1:]))


_segment_gather_op = define(
    "segment_gather",
    "(Tensor x, Tensor indptr, SymInt? output_size, str backend) -> Tensor",
    _segment_gather,
    _segment_gather_fake,
)


@dataclass(frozen=True, eq=False)
class _Repetition(Linear):
    """The gradient of a repeated row is the sum over its segment."""

    indptr: Tensor
    output_size: int | None
    backend: str

    def __call__(self, *tensors: Tensor | None) -> Tensor:
        (x,) = tensors
        assert x is not None
        return gather_segments(x, self.indptr, self.output_size, self.backend)

    def value(self, *tensors: Tensor | None) -> Tensor:
        out: Tensor = _segment_gather_op(*tensors, self.indptr, self.output_size, self.backend)
        return out

    def gradients(
        self, grad: Tensor, needs: Sequence[bool], *tensors: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        from gnnkern.ops.segment_reduce import sum_segments

        return (sum_segments(grad, self.indptr, "sum", self.backend),)

    def batched(
        self, size: int, tensors: Sequence[Tensor | None], dims: Sequence[int | None]
    ) -> tuple[Tensor, int]:
        """A batch widens the rows."""
        (x,) = tensors
        assert x is not None
        return self(batch_first(x, dims[0], size)), 1


class _SegmentGather(torch.autograd.Function):
    """The gradient of a repeated row is the sum over its segment."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, indptr: Tensor, output_size: int | None, backend: str
    ) -> Tensor:
        ctx.save_for_backward(indptr)
        ctx.backend = backend
        return _segment_gather_op(x, indptr, output_size, backend)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (indptr,) = ctx.saved_tensors
        from gnnkern.ops.segment_reduce import sum_segments

        return sum_segments(grad, indptr, "sum", ctx.backend), None, None, None


def gather_segments(
    x: Tensor, indptr: Tensor, output_size: int | None, backend: str
) -> Tensor:  # [E, ...]
    """Differentiable repetition of rows, without contract checks."""
    if is_tracked(x):
        if transforms_active():
            return transformed(_Repetition(indptr, output_size, backend), x)
        out: Tensor = _SegmentGather.apply(x, indptr, output_size, backend)
        return out
    return _segment_gather_op(x, indptr, output_size, backend)  # type: ignore[no-any-return]


def segment_gather(
    x: Tensor,  # [N, ...]
    indptr: Tensor,  # [N + 1]
    *,
    output_size: int | None = None,
    backend: str | None = None,
) -> Tensor:  # [E, ...]
    """Repeat row i of x `indptr[i + 1] - indptr[i]` times: the inverse of a segment reduction.

    Args:
        x: [N, ...] one row per segment.
        indptr: [N + 1] int32 or int64, from 0 to E without decreasing.
        output_size: E, where it is known: saves reading it from indptr.
        backend: Where to run; by default the fastest that can.

    Returns:
        [E, ...], the dtype of x. Empty segments do not appear.

    Numerics: an exact copy. Gradients: of x, by any number of derivatives.

    Transforms: forward mode and torch.func (grad, vjp, jvp, vmap).

    Cost: N rows read, E rows written.

    Raises:
        TypeError: x is not floating or indptr not of integers.
        ValueError: a shape or device is wrong, or indptr is not valid.
        BackendUnavailable: `backend` cannot run this call.

    Source: gather_csr of torch_scatter.
    """
    check_floats("segment_gather", device_of("segment_gather", x), x=x)
    indptr = check_indptr_type("segment_gather", indptr, x.device)
    if x.dim() == 0 or x.shape[0] != indptr.shape[0] - 1:
        raise ValueError(
            f"segment_gather: x must have shape [N={indptr.shape[0] - 1}, ...], got {list(x.shape)}"
        )
    implementation = choose("segment_gather", IMPLEMENTATIONS, query_of(x), backend, linear=True)
    # The C++ kernel checks what it is given, whoever calls it.
    if implementation.backend != "cpu" or output_size is None:
        check_boundaries("segment_gather", indptr, output_size)
    if implementation.backend == "reference":
        return segment_gather_reference(x, indptr)
    return gather_segments(x, indptr, output_size, implementation.backend)
