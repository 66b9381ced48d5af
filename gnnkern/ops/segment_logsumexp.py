"""segment_logsumexp: the log of the sum of exponentials of consecutive rows, per column."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gnnkern._cpu.row_reduce import log_sum_exp_segments
from gnnkern._native import accumulate_dtype
from gnnkern.backends import (
    Implementation,
    choose,
    cpu_unsupported,
    cuda_unsupported,
    reference_unsupported,
    triton_unsupported,
)
from gnnkern.ops._checks import check_floats, check_indptr, device_of, query_of
from gnnkern.ops._operator import cast_for_autocast, define, needs_gradient
from gnnkern.ops._statistics import scale_rows, statistics_like
from gnnkern.ops.segment_gather import gather_segments
from gnnkern.reference.segment_logsumexp import segment_logsumexp_reference

__all__ = ["segment_logsumexp"]


def segment_logsumexp_cpu(
    x: Tensor, indptr: Tensor, differentiable: bool = False
) -> tuple[Tensor, Tensor]:
    """The C++ row reduction: the largest and the sum in one pass, and what a gradient needs."""
    return log_sum_exp_segments(indptr, x, differentiable)


def segment_logsumexp_triton(
    x: Tensor, indptr: Tensor, differentiable: bool = False
) -> tuple[Tensor, Tensor]:
    """The Triton row reduction: the largest and the sum in one pass, and what a gradient needs."""
    from gnnkern._triton.row_reduce import log_sum_exp_segments

    return log_sum_exp_segments(indptr, x, differentiable)


def segment_logsumexp_cuda(
    x: Tensor, indptr: Tensor, differentiable: bool = False
) -> tuple[Tensor, Tensor]:
    """The CUDA row reduction: the largest and the sum in one pass, and what a gradient needs."""
    from gnnkern._cuda.row_reduce import log_sum_exp_segments

    return log_sum_exp_segments(indptr, x, differentiable)


IMPLEMENTATIONS = (
    Implementation("cpu", segment_logsumexp_cpu, cpu_unsupported),
    Implementation("triton", segment_logsumexp_triton, triton_unsupported),
    Implementation("cuda", segment_logsumexp_cuda, cuda_unsupported),
    Implementation("reference", segment_logsumexp_reference, reference_unsupported),
)

# -- torch operator --------------------------------------------------------------------------------

_LAUNCH = {
    "cpu": segment_logsumexp_cpu,
    "triton": segment_logsumexp_triton,
    "cuda": segment_logsumexp_cuda,
}


def _segment_logsumexp(
    x: Tensor, indptr: Tensor, differentiable: bool, backend: str
) -> tuple[Tensor, Tensor]:
    return _LAUNCH[backend](x, indptr, differentiable)


_segment_logsumexp_op = define(
    "segment_logsumexp",
    "(Tensor x, Tensor indptr, bool differentiable, str backend) -> (Tensor, Tensor)",
    _segment_logsumexp,
    lambda x, indptr, differentiable, backend: (
        x.new_empty((indptr.shape[0] - 1, *x.shape[1:])),
        statistics_like(x, indptr.shape[0] - 1, 2, differentiable),
    ),
)

# -- gradient --------------------------------------------------------------------------------------


class _SegmentLogSumExp(torch.autograd.Function):
    """The gradient of a row is its softmax times the gradient of its segment."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, indptr: Tensor, backend: str) -> Tensor:
        out, statistics = _segment_logsumexp_op(x, indptr, True, backend)
        ctx.save_for_backward(x, indptr, statistics)
        ctx.backend = backend
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, indptr, statistics = ctx.saved_tensors
        if needs_gradient(grad, x):
            # Written with differentiable functions, so that every further derivative is there.
            wide = x.to(accumulate_dtype(x.dtype))
            out = _log_sum_exp(wide, indptr, ctx.backend)
            out = out.masked_fill(out == -torch.inf, 0)
            shift, scale = (
                gather_segments(rows, indptr, x.shape[0], ctx.backend)
                for rows in (out, grad.to(wide.dtype))
            )
            return ((wide - shift).exp() * scale).to(x.dtype), None, None
        options = {"by_boundaries": True, "exponential": True}
        return scale_rows(x, indptr, statistics, grad, ctx.backend, **options), None, None


def _log_sum_exp(x: Tensor, indptr: Tensor, backend: str) -> Tensor:
    if needs_gradient(x):
        out: Tensor = _SegmentLogSumExp.apply(x, indptr, backend)
        return out
    return _segment_logsumexp_op(x, indptr, False, backend)[0]  # type: ignore[no-any-return]


# -- public ----------------------------------------------------------------------------------------


def segment_logsumexp(
    x: Tensor,  # [E, ...]
    indptr: Tensor,  # [N + 1]
    *,
    backend: str | None = None,
) -> Tensor:  # [N, ...]
    """Log of the sum of exponentials of rows `indptr[i]` to `indptr[i + 1]` of x, per column.

    Args:
        x: [E, ...] rows, grouped.
        indptr: [N + 1] int32 or int64, from 0 to E without decreasing.
        backend: Where to run; by default the fastest that can.

    Returns:
        [N, ...], the dtype of x. An empty segment gets -inf, the logarithm of 0.

    Numerics: the largest value is subtracted before exponentials are taken; halves are computed in
    float32 and rounded once. +inf gives +inf and NaN gives NaN; the gradient is then NaN for those
    rows, as torch's, and 0 where all rows are -inf. Bitwise repeatable. Under autocast it runs in
    float32.

    Gradients: of x, by any number of derivatives.

    Cost: x read once and the result written once; the gradient reads x and writes its own.

    Raises:
        TypeError: x is not floating or indptr not of integers.
        ValueError: a shape or device is wrong, or indptr is not valid.
        BackendUnavailable: `backend` cannot run this call.

    Source: torch.logsumexp, over segments; torch_scatter's scatter_logsumexp.
    """
    if isinstance(x, Tensor):
        (x,) = cast_for_autocast(x, to=torch.float32)
    check_floats("segment_logsumexp", device_of("segment_logsumexp", x), x=x)
    if x.dim() == 0:
        raise ValueError("segment_logsumexp: x must have shape [E, ...], got []")
    indptr = check_indptr("segment_logsumexp", indptr, x.device, x.shape[0])
    implementation = choose("segment_logsumexp", IMPLEMENTATIONS, query_of(x), backend)
    if implementation.backend == "reference":
        return segment_logsumexp_reference(x, indptr)
    return _log_sum_exp(x, indptr, implementation.backend)
