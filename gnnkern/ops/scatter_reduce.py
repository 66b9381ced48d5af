"""scatter_reduce: rows reduced into the group that an unsorted index names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gnnkern._cpu.row_reduce import row_reduce
from gnnkern._native import Csr
from gnnkern.backends import (
    Implementation,
    choose,
    cpu_unsupported,
    cuda_unsupported,
    reference_unsupported,
    triton_unsupported,
)
from gnnkern.ops._checks import check_floats, check_option, device_of, query_of
from gnnkern.ops._groups import check_index, check_range, group_sizes, rows_by_group
from gnnkern.ops._linear import divide_rows
from gnnkern.ops._operator import define, first_derivative_only, is_tracked, needs_gradient
from gnnkern.ops._segments import mul_gradient
from gnnkern.ops._transforms import Linear, batch_first, transformed, transforms_active
from gnnkern.ops._unordered import UNORDERED, reduces_unordered, scatter_reduce_unordered
from gnnkern.reference.scatter_reduce import scatter_reduce_reference

__all__ = ["scatter_reduce"]

REDUCES = ("sum", "mean", "max", "min", "mul")


def scatter_reduce_cpu(
    csr: Csr,
    x: Tensor,  # [E, ...]
    reduce: str,
    argument: torch.dtype | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The C++ row reduction over sorted groups; with `argument` who won, too."""
    return row_reduce(csr, x, None, reduce, argument)


def scatter_reduce_triton(
    csr: Csr,
    x: Tensor,  # [E, ...]
    reduce: str,
    argument: torch.dtype | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The Triton row reduction over sorted groups; with `argument` who won, too."""
    from gnnkern._triton.row_reduce import row_reduce

    return row_reduce(csr, x, None, reduce, argument)


def scatter_reduce_cuda(
    csr: Csr,
    x: Tensor,  # [E, ...]
    reduce: str,
    argument: torch.dtype | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The CUDA row reduction over sorted groups; with `argument` who won, too."""
    from gnnkern._cuda.row_reduce import row_reduce

    return row_reduce(csr, x, None, reduce, argument)


IMPLEMENTATIONS = (
    Implementation("cpu", scatter_reduce_cpu, cpu_unsupported),
    Implementation("triton", scatter_reduce_triton, triton_unsupported),
    Implementation("cuda", scatter_reduce_cuda, cuda_unsupported),
    Implementation("reference", scatter_reduce_reference, reference_unsupported),
)

# Where rows may be reduced in any order: CUDA alone has kernels that need none.
UNORDERED_FIRST = tuple(sorted(IMPLEMENTATIONS, key=lambda row: row.backend == "triton"))


def implementations_of(x: Tensor, reduce: str, deterministic: bool) -> tuple[Implementation, ...]:
    """The table for a call; `UNORDERED_FIRST` where CUDA would run its atomics."""
    if deterministic or not reduces_unordered(x, reduce):
        return IMPLEMENTATIONS
    return UNORDERED_FIRST


# -- torch operators -------------------------------------------------------------------------------

_LAUNCH = {"cpu": scatter_reduce_cpu, "triton": scatter_reduce_triton, "cuda": scatter_reduce_cuda}


def _scatter_reduce(
    x: Tensor, index: Tensor, num_segments: int, reduce: str, backend: str
) -> Tensor:
    if backend == UNORDERED:
        return scatter_reduce_unordered(x, index, num_segments, reduce)
    csr = rows_by_group("scatter_reduce", index, num_segments)
    return _LAUNCH[backend](csr, x, reduce)[0]


_scatter_reduce_op = define(
    "scatter_reduce",
    "(Tensor x, Tensor index, SymInt num_segments, str reduce, str backend) -> Tensor",
    _scatter_reduce,
    lambda x, index, num_segments, reduce, backend: x.new_empty((num_segments, *x.shape[1:])),
)


def _scatter_select(
    x: Tensor, index: Tensor, num_segments: int, reduce: str, backend: str
) -> tuple[Tensor, Tensor]:
    """The result and, for each of its elements, the row of x that won (-1: none), int64."""
    csr = rows_by_group("scatter_reduce", index, num_segments)
    out, argument = _LAUNCH[backend](csr, x, reduce, torch.int32)
    assert argument is not None
    if x.shape[0] == 0 or argument.numel() == 0:
        return out, argument.long().fill_(-1)
    shape = (-1, *[1] * (x.dim() - 1))
    position = csr.indptr[:-1].long().view(shape) + argument.clamp(min=0)
    # A group without rows at the very end would point one past the last position.
    winner = csr.indices[position.clamp(max=x.shape[0] - 1)].long()
    return out, torch.where(argument < 0, -1, winner)


_scatter_select_op = define(
    "scatter_select",
    "(Tensor x, Tensor index, SymInt num_segments, str reduce, str backend) -> (Tensor, Tensor)",
    _scatter_select,
    lambda x, index, num_segments, reduce, backend: (
        x.new_empty((num_segments, *x.shape[1:])),
        x.new_empty((num_segments, *x.shape[1:]), dtype=torch.int64),
    ),
)

# -- gradients -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _GroupSum(Linear):
    """The gradient of a group's sum goes to each of its rows."""

    index: Tensor
    num_segments: int
    reduce: str
    backend: str

    def __call__(self, *tensors: Tensor | None) -> Tensor:
        (x,) = tensors
        assert x is not None
        return scatter_sum(x, self.index, self.num_segments, self.reduce, self.backend)

    def value(self, *tensors: Tensor | None) -> Tensor:
        out: Tensor = _scatter_reduce_op(
            *tensors, self.index, self.num_segments, self.reduce, self.backend
        )
        return out

    def gradients(
        self, grad: Tensor, needs: Sequence[bool], *tensors: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        if self.reduce == "mean":
            count = group_sizes(self.index, self.num_segments).clamp(min=1)
            grad = divide_rows(grad, count)
        return (gather_rows(grad, self.index, self.num_segments, self.backend),)

    def batched(
        self, size: int, tensors: Sequence[Tensor | None], dims: Sequence[int | None]
    ) -> tuple[Tensor, int]:
        """A batch widens the rows."""
        (x,) = tensors
        assert x is not None
        return self(batch_first(x, dims[0], size)), 1


class _ScatterSum(torch.autograd.Function):
    """`_GroupSum` where nothing but backward derivatives is asked for."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, index: Tensor, num_segments: int, reduce: str, backend: str
    ) -> Tensor:
        ctx.save_for_backward(index)
        ctx.num_segments = num_segments
        ctx.reduce = reduce
        ctx.backend = backend
        out: Tensor = _scatter_reduce_op(x, index, num_segments, reduce, backend)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (index,) = ctx.saved_tensors
        op = _GroupSum(index, ctx.num_segments, ctx.reduce, ctx.backend)
        return *op.gradients(grad, ctx.needs_input_grad[:1]), *[None] * 4


def scatter_sum(x: Tensor, index: Tensor, num_segments: int, reduce: str, backend: str) -> Tensor:
    """Differentiable sum or mean of groups, without contract checks."""
    if is_tracked(x):
        if transforms_active():
            return transformed(_GroupSum(index, num_segments, reduce, backend), x)
        out: Tensor = _ScatterSum.apply(x, index, num_segments, reduce, backend)
        return out
    out = _scatter_reduce_op(x, index, num_segments, reduce, backend)
    return out


class _GatherRows(torch.autograd.Function):
    """The gradient of a gather is the scatter sum, so every derivative is there."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, num_segments: int, backend: str) -> Tensor:
        ctx.save_for_backward(index)
        ctx.num_segments = num_segments
        ctx.backend = backend
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (index,) = ctx.saved_tensors
        return scatter_sum(grad, index, ctx.num_segments, "sum", ctx.backend), None, None, None


def gather_rows(rows: Tensor, index: Tensor, num_segments: int, backend: str) -> Tensor:
    """Differentiable rows[index], without contract checks."""
    if transforms_active():
        # torch's own, which has every rule.
        return rows.index_select(0, index)
    out: Tensor = _GatherRows.apply(rows, index, num_segments, backend)
    return out


class _ScatterSelect(torch.autograd.Function):
    """Only the row that won a maximum or minimum receives its gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, index: Tensor, num_segments: int, reduce: str, backend: str
    ) -> Tensor:
        out, winner = _scatter_select_op(x, index, num_segments, reduce, backend)
        ctx.save_for_backward(x, winner)
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, winner = ctx.saved_tensors
        # A row wins an element for its own group alone: no two winners meet.
        grad_x = grad.new_zeros((x.shape[0] + 1, *x.shape[1:]))
        target = torch.where(winner < 0, x.shape[0], winner)
        grad_x = grad_x.scatter(0, target, grad)[: x.shape[0]]
        (guarded,) = first_derivative_only("scatter_reduce with max or min", (grad_x,), (grad, x))
        return guarded, *[None] * 4


class _ScatterMul(torch.autograd.Function):
    """The gradient of a product is the product of the others."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, num_segments: int, backend: str) -> Tensor:
        ctx.save_for_backward(x, index)
        ctx.num_segments = num_segments
        ctx.backend = backend
        out: Tensor = _scatter_reduce_op(x, index, num_segments, "mul", backend)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, index = ctx.saved_tensors
        with torch.no_grad():
            grad_x = mul_gradient(
                x,
                grad,
                lambda values, reduce: _scatter_reduce_op(
                    values, index, ctx.num_segments, reduce, ctx.backend
                ),
                lambda rows: rows.index_select(0, index),
            )
        (guarded,) = first_derivative_only("scatter_reduce with mul", (grad_x,), (grad, x))
        return guarded, None, None, None


# -- public ----------------------------------------------------------------------------------------


def scatter_reduce(
    x: Tensor,  # [E, ...]
    index: Tensor,  # [E]
    *,
    num_segments: int | None = None,
    reduce: str = "sum",
    deterministic: bool = True,
    backend: str | None = None,
) -> Tensor:  # [num_segments, ...]
    """Reduce the rows e of x with `index[e] == i` into row i.

    Args:
        x: [E, ...] rows in any order.
        index: [E] int32 or int64 group of each row.
        num_segments: Number of groups; by default one more than the largest index.
        reduce: "sum", "mean", "max", "min" or "mul".
        deterministic: Whether equal inputs must give equal bits. False allows rows to be reduced
            in any order, which the CUDA backend alone makes use of, and "auto" then prefers it:
            sum and mean, and max and min without a gradient, go by atomics straight from the
            index. Everything else stays as it is.
        backend: Where to run; by default the fastest that can.

    Returns:
        [num_segments, ...], the dtype of x. An empty group gets 0, or 1 for "mul".

    Numerics: rows are reduced in their order, halves in float32, rounded once. NaN propagates; of
    equal values the first wins a max or min and takes the whole gradient. Bitwise repeatable;
    with `deterministic=False`, sums and means on CUDA differ in their last bits from run to run.

    Gradients: of x, by any number of derivatives for sum and mean, otherwise once.

    Transforms: forward mode and torch.func (grad, vjp, jvp, vmap) for sum and
    mean.

    Cost: a stable counting sort of the index (no atomics), then one gather of x. Where an index is
    used again and again, build a `Graph` or use `segment_reduce`. By atomics one read of x and the
    index, and an addition to memory for every run of rows of one group.

    Raises:
        TypeError: x is not floating, index not of integers, or deterministic no bool.
        ValueError: a shape, device or option is wrong, or an index is out of range; the first such
            position is named. With `deterministic=False`, where atomics would run under
            torch.use_deterministic_algorithms(True); with its `warn_only`, a warning.
        BackendUnavailable: `backend` cannot run this call.

    Source: scatter of torch_scatter.
    """
    check_floats("scatter_reduce", device_of("scatter_reduce", x), x=x)
    check_option("scatter_reduce", "reduce", reduce, REDUCES)
    num_segments = check_index("scatter_reduce", x, index, num_segments)
    if not isinstance(deterministic, bool):
        raise TypeError(f"scatter_reduce: deterministic must be a bool, got {deterministic!r}")
    linear = reduce in ("sum", "mean")
    table = implementations_of(x, reduce, deterministic)
    name = choose("scatter_reduce", table, query_of(x), backend, linear).backend
    if table is UNORDERED_FIRST and name == "cuda":
        name = UNORDERED
    if name == "reference":
        check_range("scatter_reduce", index, num_segments)
        return scatter_reduce_reference(x, index, num_segments, reduce)
    if linear:
        return scatter_sum(x, index, num_segments, reduce, name)
    if not needs_gradient(x):
        return _scatter_reduce_op(x, index, num_segments, reduce, name)  # type: ignore[no-any-return]
    if reduce == "mul":
        out: Tensor = _ScatterMul.apply(x, index, num_segments, name)
    else:
        out = _ScatterSelect.apply(x, index, num_segments, reduce, name)
    return out
