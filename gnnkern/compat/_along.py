"""Reductions along one dimension by an index that broadcasts, as reductions of rows into groups.

An index that varies with `dim`, and at most with the dimensions before it, names a group for whole
rows: gnnkern's kernels reduce these. An index with an entry of its own for every element, and
values that are not floating, go to torch's scatter functions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gnnkern.backends import FLOAT_DTYPES, choose
from gnnkern.ops._checks import query_of
from gnnkern.ops._operator import needs_gradient, run
from gnnkern.ops.scatter_reduce import IMPLEMENTATIONS, gather_rows, scatter_reduce

__all__ = ["Rows", "broadcast", "group_count", "reduce_along", "rows_along", "select_along"]

_HALVES = (torch.float16, torch.bfloat16)


def broadcast(src: Tensor, other: Tensor, dim: int) -> Tensor:
    """`src` with the shape of `other`: one-dimensional along `dim`, or with leading dimensions."""
    if dim < 0:
        dim += other.dim()
    if src.dim() == 1:
        src = src.view(*[1] * dim, -1)
    src = src.view(*src.shape, *[1] * (other.dim() - src.dim()))
    return src.expand(other.shape)


def group_count(index: Tensor, dim_size: int | None) -> int:
    """One more than the largest entry of `index`, unless the caller says."""
    if dim_size is not None:
        return dim_size
    return int(index.max()) + 1 if index.numel() else 0


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows that an index puts into groups, and where groups and rows come from."""

    index: Tensor  # [R]
    num_groups: int
    dim: int
    count: int  # N, the groups along dim
    lead: tuple[int, ...] | None  # sizes before dim that are rows too; None: rows are those of dim

    def of(self, x: Tensor) -> Tensor:  # [R, ...]
        """The rows of a tensor that is as `src`."""
        return x.movedim(self.dim, 0) if self.lead is None else x.flatten(0, self.dim)

    def back(self, out: Tensor) -> Tensor:
        """A result [num_groups, ...] with the groups along dim."""
        if self.lead is None:
            return out.movedim(0, self.dim).contiguous()
        return out.reshape(*self.lead, self.count, *out.shape[1:])

    def spread(self, out: Tensor, like: Tensor) -> Tensor:
        """For every row of `like` that of its group in `out`, differentiable."""
        backend = _backend(out)
        rows = self.of(out)
        if backend == "reference":
            rows = rows.index_select(0, self.index)
        else:
            rows = gather_rows(rows, self.index, self.num_groups, backend)
        if self.lead is None:
            return rows.movedim(0, self.dim)
        return rows.reshape(like.shape)


def rows_along(src: Tensor, index: Tensor, dim: int, count: int) -> Rows | None:
    """The rows that `index` groups; None where it groups elements.

    Args:
        src: [..., E, ...] with E along dim.
        index: [E]; or with the leading dimensions of src, or all of them, of which those of size 1
            and those that were expanded broadcast.
        dim: Not negative.
        count: Number of groups along dim.
    """
    if index.dim() == 1 and index.shape[0] == src.shape[dim]:
        return Rows(index, count, dim, count, None)
    if index.dim() <= dim:
        return None
    varies = [
        size > 1 and stride != 0 for size, stride in zip(index.shape, index.stride(), strict=True)
    ]
    if any(varies[dim + 1 :]) or index.shape[dim] != src.shape[dim]:
        return None
    if index.numel() == 0 or not any(varies[:dim]):
        for i in reversed(range(index.dim())):
            if i != dim:
                index = index.select(i, 0) if index.shape[i] else index.flatten(i)[..., :0]
        return Rows(index, count, dim, count, None) if index.dim() == 1 else None
    for _ in range(index.dim() - dim - 1):
        index = index.select(-1, 0)
    lead = tuple(src.shape[:dim])
    index = index.expand(*lead, index.shape[dim])
    if bool(((index < 0) | (index >= count)).any()):
        raise ValueError(f"index must be in [0, {count}), got {int(index.min())} to {index.max()}")
    blocks = torch.Size(lead).numel()
    first = torch.arange(blocks, device=index.device).mul_(count).view(*lead, 1)
    return Rows((index + first).reshape(-1), blocks * count, dim, count, lead)


def _backend(x: Tensor) -> str:
    return choose("scatter_reduce", IMPLEMENTATIONS, query_of(x), None, linear=True).backend


def _grouped(src: Tensor, index: Tensor, dim: int, count: int) -> Rows | None:
    return rows_along(src, index, dim, count) if src.dtype in FLOAT_DTYPES else None


def reduce_along(
    src: Tensor, index: Tensor, dim: int, count: int, reduce: str, rounding: str = "floor"
) -> Tensor:
    """`src` reduced along `dim` into `count` groups, by "sum", "mean" or "mul"; differentiable.

    A group without elements gets 0, for "mul" 1. Means of integers are rounded as `rounding` says.
    Any number of derivatives: those of a product through torch, whose product has a second one.
    """
    dim = dim % max(src.dim(), 1)
    by_torch = reduce == "mul" and needs_gradient(src)
    rows = None if by_torch else _grouped(src, index, dim, count)
    if rows is not None:
        x = rows.of(src)
        out = scatter_reduce(x, rows.index, num_segments=rows.num_groups, reduce=reduce)
        return rows.back(out)
    index = broadcast(index, src, dim).long()
    size = (*src.shape[:dim], count, *src.shape[dim + 1 :])
    # Halves are summed in float32, as the kernels do.
    wide = src.float() if src.dtype in _HALVES else src
    if reduce == "mul":
        return wide.new_ones(size).scatter_reduce(dim, index, wide, "prod").to(src.dtype)
    out = wide.new_zeros(size).scatter_add(dim, index, wide)
    if reduce == "mean":
        ones = torch.ones_like(wide, requires_grad=False)
        number = wide.new_zeros(size).scatter_add(dim, index, ones).clamp(min=1)
        out = out / number if wide.is_floating_point() else out.div(number, rounding_mode=rounding)
    return out.to(src.dtype)


def select_along(
    src: Tensor, index: Tensor, dim: int, count: int, reduce: str
) -> tuple[Tensor, Tensor]:
    """The "max" or "min" of each group along `dim`, and the position along `dim` of its winner.

    NaN, and the infinity that loses against everything, win nothing: a group of nothing else gets 0
    and the position `src.shape[dim]`, like a group without elements. The first of equal elements
    wins. Differentiable, any number of times: the result is a gather of the winners.
    """
    dim = dim % max(src.dim(), 1)
    size = src.shape[dim]
    with torch.no_grad():
        winner = _winners(src.detach(), index, dim, count, reduce)
    if size == 0:
        return src.new_zeros(winner.shape), winner
    picked = src.gather(dim, winner.clamp(max=size - 1))
    return torch.where(winner == size, 0, picked), winner


def _winners(src: Tensor, index: Tensor, dim: int, count: int, reduce: str) -> Tensor:
    """Where each group's winner is along dim; `src.shape[dim]` where there is none."""
    size = src.shape[dim]
    rows = _grouped(src, index, dim, count)
    if rows is None or _backend(src) == "reference":
        return _winning_elements(src, broadcast(index, src, dim).long(), dim, count, reduce)
    x, backend = rows.of(src), _backend(src)
    out, winner = run("scatter_select", x, rows.index, rows.num_groups, reduce, backend)
    if out.isnan().any():
        x = x.nan_to_num(_loser(reduce), torch.inf, -torch.inf)
        out, winner = run("scatter_select", x, rows.index, rows.num_groups, reduce, backend)
    none = (winner < 0) | (out == _loser(reduce))
    if rows.lead is not None and size:
        winner = winner % size
    return rows.back(torch.where(none, size, winner))


def _loser(reduce: str) -> float:
    return -torch.inf if reduce == "max" else torch.inf


def _winning_elements(src: Tensor, index: Tensor, dim: int, count: int, reduce: str) -> Tensor:
    size = src.shape[dim]
    shape = (*src.shape[:dim], count, *src.shape[dim + 1 :])
    if src.is_floating_point():
        src = src.nan_to_num(_loser(reduce), torch.inf, -torch.inf)
    best = src.new_zeros(shape).scatter_reduce(dim, index, src, f"a{reduce}", include_self=False)
    wins = src == best.gather(dim, index)
    if src.is_floating_point():
        wins &= src != _loser(reduce)
    position = torch.arange(size, device=src.device).view(-1, *[1] * (src.dim() - dim - 1))
    position = torch.where(wins, position, size)
    return index.new_full(shape, size).scatter_reduce(dim, index, position, "amin")
