"""Rows with equal index are reduced to one row."""

import torch
from torch import Tensor

from ._precision import widen


def scatter_reduce_reference(
    x: Tensor,  # [E, ...]
    index: Tensor,  # [E]
    num_segments: int,
    reduce: str,
) -> Tensor:  # [num_segments, ...]
    """Return row i = the reduction of all rows `x[e]` with `index[e] == i`.

    `reduce` is one of `sum`, `mean`, `max`, `min`, `mul`. An index that never occurs gives 0
    (`mul`: 1). The halves are reduced in float32 and rounded once.
    """
    index = index.long()
    wide = widen(x)
    shape = (num_segments, *x.shape[1:])
    if reduce == "sum":
        out = wide.new_zeros(shape).index_add(0, index, wide)
    elif reduce == "mean":
        count = index.new_zeros(num_segments).index_add(0, index, torch.ones_like(index))
        total = wide.new_zeros(shape).index_add(0, index, wide)
        out = total / _as_column(count.clamp(min=1), x.dim())
    elif reduce == "mul":
        columns = _as_column(index, x.dim()).expand_as(x)
        out = wide.new_ones(shape).scatter_reduce(0, columns, wide, "prod")
    elif reduce in ("max", "min"):
        winner = _first_winner(wide.detach(), index, num_segments, reduce)
        zero_row = wide.new_zeros((1, *x.shape[1:]))
        out = torch.cat([wide, zero_row]).gather(0, winner)
    else:
        raise ValueError(f"scatter_reduce: reduce must be sum, mean, max, min or mul, got {reduce}")
    return out.to(x.dtype)


def _first_winner(x: Tensor, index: Tensor, num_segments: int, reduce: str) -> Tensor:
    """Return [num_segments, ...]: the lowest position that holds the extreme value.

    A NaN beats every number. A segment without rows gives E, one past the last position.
    """
    num_rows = x.shape[0]
    shape = (num_segments, *x.shape[1:])
    columns = _as_column(index, x.dim()).expand_as(x)
    extreme = x.new_zeros(shape).scatter_reduce(0, columns, x, "a" + reduce, include_self=False)
    wins = (x == extreme.index_select(0, index)) | x.isnan()  # [E, ...]
    position = _as_column(torch.arange(num_rows, device=x.device), x.dim())
    position = torch.where(wins, position, num_rows)  # [E, ...]
    none_yet = torch.full(shape, num_rows, device=x.device)
    return none_yet.scatter_reduce(0, columns, position, "amin")


def _as_column(values: Tensor, num_dims: int) -> Tensor:
    """Return [n] as [n, 1, ...] of `num_dims` dimensions, to stand beside [n, ...]."""
    return values.view(-1, *(1,) * (num_dims - 1))
