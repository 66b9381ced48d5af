"""scatter_std: the standard deviation of the rows that an index groups."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gnnkern._cpu.scatter_std import std_rows
from gnnkern._native import accumulate_dtype
from gnnkern.backends import (
    Implementation,
    choose,
    cpu_unsupported,
    reference_unsupported,
    triton_unsupported,
)
from gnnkern.ops._checks import check_floats, device_of, query_of
from gnnkern.ops._groups import check_index, check_range, group_sizes, rows_by_group
from gnnkern.ops._operator import define, needs_gradient
from gnnkern.ops._statistics import scale_rows, statistics_like
from gnnkern.ops.scatter_reduce import gather_rows, scatter_sum
from gnnkern.reference.scatter_std import scatter_std_reference

__all__ = ["scatter_std"]


def scatter_std_cpu(
    x: Tensor, index: Tensor, num_segments: int, unbiased: bool, differentiable: bool = False
) -> tuple[Tensor, Tensor]:
    """A stable counting sort of the index, then mean and deviation while rows are in cache."""
    csr = rows_by_group("scatter_std", index, num_segments)
    return std_rows(csr, x, unbiased, differentiable)


def scatter_std_triton(
    x: Tensor, index: Tensor, num_segments: int, unbiased: bool, differentiable: bool = False
) -> tuple[Tensor, Tensor]:
    """A stable sort of the index, then mean and squares in one pass."""
    from gnnkern._triton.scatter_std import std_rows

    csr = rows_by_group("scatter_std", index, num_segments)
    return std_rows(csr, x, unbiased, differentiable)


IMPLEMENTATIONS = (
    Implementation("cpu", scatter_std_cpu, cpu_unsupported),
    Implementation("triton", scatter_std_triton, triton_unsupported),
    Implementation("reference", scatter_std_reference, reference_unsupported),
)

# -- torch operator --------------------------------------------------------------------------------

_LAUNCH = {"cpu": scatter_std_cpu, "triton": scatter_std_triton}


def _scatter_std(
    x: Tensor, index: Tensor, num_segments: int, unbiased: bool, differentiable: bool, backend: str
) -> tuple[Tensor, Tensor]:
    return _LAUNCH[backend](x, index, num_segments, unbiased, differentiable)


_scatter_std_op = define(
    "scatter_std",
    "(Tensor x, Tensor index, SymInt num_segments, bool unbiased, bool differentiable, str backend)"
    " -> (Tensor, Tensor)",
    _scatter_std,
    lambda x, index, num_segments, unbiased, differentiable, backend: (
        x.new_empty((num_segments, *x.shape[1:])),
        statistics_like(x, num_segments, 3, differentiable),
    ),
)

# -- gradient --------------------------------------------------------------------------------------


class _ScatterStd(torch.autograd.Function):
    """The gradient of a row is its distance from the mean, over deviation and divisor."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, index: Tensor, num_segments: int, unbiased: bool, backend: str
    ) -> Tensor:
        out, statistics = _scatter_std_op(x, index, num_segments, unbiased, True, backend)
        ctx.save_for_backward(x, index, statistics)
        ctx.options = (num_segments, unbiased, backend)
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, index, statistics = ctx.saved_tensors
        num_segments, unbiased, backend = ctx.options
        if needs_gradient(grad, x):
            # Written with differentiable functions, so that every further derivative is there.
            wide = x.to(accumulate_dtype(x.dtype))
            mean = scatter_sum(wide, index, num_segments, "mean", backend)
            out = _std(wide, index, num_segments, unbiased, backend)
            count = group_sizes(index, num_segments)
            divisor = (count - 1 if unbiased else count).clamp(min=1).to(wide.dtype)
            scaled = grad.to(wide.dtype) / divisor.view(-1, *[1] * (x.dim() - 1))
            scale = torch.where(out == 0, 0, scaled / torch.where(out == 0, 1, out))
            shifts, scales = (
                gather_rows(rows, index, num_segments, backend) for rows in (mean, scale)
            )
            return ((wide - shifts) * scales).to(x.dtype), None, None, None, None
        return scale_rows(x, index, statistics, grad, backend), None, None, None, None


def _std(x: Tensor, index: Tensor, num_segments: int, unbiased: bool, backend: str) -> Tensor:
    if needs_gradient(x):
        out: Tensor = _ScatterStd.apply(x, index, num_segments, unbiased, backend)
        return out
    out = _scatter_std_op(x, index, num_segments, unbiased, False, backend)[0]
    return out


# -- public ----------------------------------------------------------------------------------------


def scatter_std(
    x: Tensor,  # [E, ...]
    index: Tensor,  # [E]
    *,
    num_segments: int | None = None,
    unbiased: bool = True,
    backend: str | None = None,
) -> Tensor:  # [num_segments, ...]
    """Standard deviation of the rows e of x with `index[e] == i`, in row i, per column.

    Args:
        x: [E, ...] rows in any order.
        index: [E] int32 or int64 group of each row.
        num_segments: Number of groups; by default one more than the largest index.
        unbiased: Divide the sum of squares by the number of rows less 1, otherwise by their number.
        backend: Where to run; by default the fastest that can.

    Returns:
        [num_segments, ...], the dtype of x. A group of no row or one gets 0.

    Numerics: rows are taken relative to one of their group, and means and squared distances from
    them are updated together, so that values far from 0 lose nothing; halves are computed in
    float32 and rounded once. NaN propagates. Where the deviation is 0 the gradient is 0. Bitwise
    repeatable.

    Gradients: of x, by any number of derivatives.

    Cost: a stable sort of the index (no atomics), then one gather of x; the gradient streams x in
    the caller's order.

    Raises:
        TypeError: x is not floating or index not of integers.
        ValueError: a shape or device is wrong, or an index is out of range; the first such position
            is named.
        BackendUnavailable: `backend` cannot run this call.

    Source: scatter_std of torch_scatter, which adds 1e-6 to the divisor.
    """
    check_floats("scatter_std", device_of("scatter_std", x), x=x)
    num_segments = check_index("scatter_std", x, index, num_segments)
    if not isinstance(unbiased, bool):
        raise TypeError(f"scatter_std: unbiased must be a bool, got {unbiased!r}")
    implementation = choose("scatter_std", IMPLEMENTATIONS, query_of(x), backend)
    if implementation.backend == "reference":
        check_range("scatter_std", index, num_segments)
        return scatter_std_reference(x, index, num_segments, unbiased)
    return _std(x, index, num_segments, unbiased, implementation.backend)
