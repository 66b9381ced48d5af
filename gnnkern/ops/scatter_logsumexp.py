"""scatter_logsumexp: the log of the sum of exponentials of the rows that an index groups."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gnnkern._cpu.row_reduce import log_sum_exp_rows
from gnnkern._native import accumulate_dtype
from gnnkern.backends import (
    Implementation,
    choose,
    cpu_unsupported,
    cuda_unsupported,
    reference_unsupported,
    triton_unsupported,
)
from gnnkern.ops._checks import check_floats, device_of, query_of
from gnnkern.ops._groups import check_index, check_range, rows_by_group
from gnnkern.ops._operator import cast_for_autocast, define, needs_gradient
from gnnkern.ops._statistics import scale_rows, statistics_like
from gnnkern.ops.scatter_reduce import gather_rows
from gnnkern.reference.scatter_logsumexp import scatter_logsumexp_reference

__all__ = ["scatter_logsumexp"]


def scatter_logsumexp_cpu(
    x: Tensor, index: Tensor, num_segments: int, differentiable: bool = False
) -> tuple[Tensor, Tensor]:
    """A stable counting sort of the index, then the C++ row reduction of `segment_logsumexp`."""
    csr = rows_by_group("scatter_logsumexp", index, num_segments)
    return log_sum_exp_rows(csr, x, differentiable)


def scatter_logsumexp_triton(
    x: Tensor, index: Tensor, num_segments: int, differentiable: bool = False
) -> tuple[Tensor, Tensor]:
    """A stable sort of the index, then the Triton row reduction of `segment_logsumexp`."""
    from gnnkern._triton.row_reduce import log_sum_exp_rows

    csr = rows_by_group("scatter_logsumexp", index, num_segments)
    return log_sum_exp_rows(csr, x, differentiable)


def scatter_logsumexp_cuda(
    x: Tensor, index: Tensor, num_segments: int, differentiable: bool = False
) -> tuple[Tensor, Tensor]:
    """A stable sort of the index, then the CUDA row reduction of `segment_logsumexp`."""
    from gnnkern._cuda.row_reduce import log_sum_exp_rows

    csr = rows_by_group("scatter_logsumexp", index, num_segments)
    return log_sum_exp_rows(csr, x, differentiable)


IMPLEMENTATIONS = (
    Implementation("cpu", scatter_logsumexp_cpu, cpu_unsupported),
    Implementation("triton", scatter_logsumexp_triton, triton_unsupported),
    Implementation("cuda", scatter_logsumexp_cuda, cuda_unsupported),
    Implementation("reference", scatter_logsumexp_reference, reference_unsupported),
)

# -- torch operator --------------------------------------------------------------------------------

_LAUNCH = {
    "cpu": scatter_logsumexp_cpu,
    "triton": scatter_logsumexp_triton,
    "cuda": scatter_logsumexp_cuda,
}


def _scatter_logsumexp(
    x: Tensor, index: Tensor, num_segments: int, differentiable: bool, backend: str
) -> tuple[Tensor, Tensor]:
    return _LAUNCH[backend](x, index, num_segments, differentiable)


_scatter_logsumexp_op = define(
    "scatter_logsumexp",
    "(Tensor x, Tensor index, SymInt num_segments, bool differentiable, str backend)"
    " -> (Tensor, Tensor)",
    _scatter_logsumexp,
    lambda x, index, num_segments, differentiable, backend: (
        x.new_empty((num_segments, *x.shape[1:])),
        statistics_like(x, num_segments, 2, differentiable),
    ),
)

# -- gradient --------------------------------------------------------------------------------------


class _ScatterLogSumExp(torch.autograd.Function):
    """The gradient of a row is its softmax times the gradient of its group."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, num_segments: int, backend: str) -> Tensor:
        out, statistics = _scatter_logsumexp_op(x, index, num_segments, True, backend)
        ctx.save_for_backward(x, index, statistics)
        ctx.num_segments = num_segments
        ctx.backend = backend
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, index, statistics = ctx.saved_tensors
        if needs_gradient(grad, x):
            # Written with differentiable functions, so that every further derivative is there.
            wide = x.to(accumulate_dtype(x.dtype))
            out = _log_sum_exp(wide, index, ctx.num_segments, ctx.backend)
            out = out.masked_fill(out == -torch.inf, 0)
            shift, scale = (
                gather_rows(rows, index, ctx.num_segments, ctx.backend)
                for rows in (out, grad.to(wide.dtype))
            )
            return ((wide - shift).exp() * scale).to(x.dtype), None, None, None
        grad_x = scale_rows(x, index, statistics, grad, ctx.backend, exponential=True)
        return grad_x, None, None, None


def _log_sum_exp(x: Tensor, index: Tensor, num_segments: int, backend: str) -> Tensor:
    if needs_gradient(x):
        out: Tensor = _ScatterLogSumExp.apply(x, index, num_segments, backend)
        return out
    out = _scatter_logsumexp_op(x, index, num_segments, False, backend)[0]
    return out


# -- public ----------------------------------------------------------------------------------------


def scatter_logsumexp(
    x: Tensor,  # [E, ...]
    index: Tensor,  # [E]
    *,
    num_segments: int | None = None,
    backend: str | None = None,
) -> Tensor:  # [num_segments, ...]
    """Log of the sum of exponentials of the rows e of x with `index[e] == i`, in row i, per column.

    Args:
        x: [E, ...] rows in any order.
        index: [E] int32 or int64 group of each row.
        num_segments: Number of groups; by default one more than the largest index.
        backend: Where to run; by default the fastest that can.

    Returns:
        [num_segments, ...], the dtype of x. An empty group gets -inf, the logarithm of 0.

    Numerics: those of `segment_logsumexp`; rows are reduced in their order. Bitwise repeatable.
    Under autocast it runs in float32.

    Gradients: of x, by any number of derivatives.

    Cost: a stable counting sort of the index (no atomics), then one gather of x; the gradient
    streams x in the caller's order.

    Raises:
        TypeError: x is not floating or index not of integers.
        ValueError: a shape or device is wrong, or an index is out of range; the first such position
            is named.
        BackendUnavailable: `backend` cannot run this call.

    Source: scatter_logsumexp of torch_scatter, which gives an empty group a finite value.
    """
    if isinstance(x, Tensor):
        (x,) = cast_for_autocast(x, to=torch.float32)
    check_floats("scatter_logsumexp", device_of("scatter_logsumexp", x), x=x)
    num_segments = check_index("scatter_logsumexp", x, index, num_segments)
    implementation = choose("scatter_logsumexp", IMPLEMENTATIONS, query_of(x), backend)
    if implementation.backend == "reference":
        check_range("scatter_logsumexp", index, num_segments)
        return scatter_logsumexp_reference(x, index, num_segments)
    return _log_sum_exp(x, index, num_segments, implementation.backend)
