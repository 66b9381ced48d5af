"""How the feature dimensions of two operands meet, as the kernels take it."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["Shape", "column_tables", "groups", "shape_of"]

Shape = tuple[int, ...]


def shape_of(x: Tensor) -> Shape:
    """The sizes of a tensor behind its rows."""
    return tuple(x.shape[1:])


def groups(narrow: Shape, wide: Shape) -> int | None:
    """Of how many neighbouring, equal groups of columns of `wide` each has one element of `narrow`.

    None where the groups are no neighbours, or `narrow` is the wider of the two.
    """
    rest = len(narrow)
    while rest and narrow[rest - 1] == 1:
        rest -= 1
    return math.prod(narrow) if narrow[:rest] == wide[:rest] else None


@lru_cache(maxsize=256)
def column_tables(lhs: Shape, rhs: Shape, out: Shape | None = None) -> tuple[Tensor, Tensor]:
    """For every column of the broadcast message the one it reads of each operand, int32.

    Where `out` is smaller than the message, the columns that it sums follow one another.
    """
    message = torch.broadcast_shapes(lhs, rhs)
    tables = [_columns(shape, message) for shape in (lhs, rhs)]
    if out is not None and out != message:
        order = _columns(out, message).argsort(stable=True)
        tables = [table[order] for table in tables]
    left, right = (table.to(torch.int32) for table in tables)
    return left, right


def _columns(shape: Shape, message: Shape) -> Tensor:
    return torch.arange(math.prod(shape)).view(shape).expand(message).reshape(-1)
