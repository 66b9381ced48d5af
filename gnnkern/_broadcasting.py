"""How the feature dimensions of two operands meet, as tables on the operands' device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gnnkern._cpu.broadcasting import Shape, groups, shape_of

__all__ = ["Shape", "columns_of", "groups", "shape_of", "summed_columns"]


def columns_of(shape: Shape, message: Sequence[int], device: torch.device) -> Tensor | None:
    """[width] int32: for every column of a message the one it reads of an operand.

    None where the two are the same. Made on the device, so that a CUDA graph can capture it.
    """
    if shape == tuple(message):
        return None
    columns = torch.arange(math.prod(shape), dtype=torch.int32, device=device)
    return columns.view(shape).expand(*message).reshape(-1).contiguous()


def summed_columns(
    shapes: Sequence[Shape], out: Shape, message: Sequence[int], device: torch.device
) -> list[Tensor]:
    """The same for several operands, in an order in which columns summed into one are neighbours.

    `out` is what is left of the message's shape; its columns stand in their own order.
    """
    columns = torch.arange(math.prod(message), dtype=torch.int32, device=device).view(*message)
    summed = [i for i, (have, want) in enumerate(zip(message, out, strict=True)) if have != want]
    kept = [i for i in range(len(message)) if i not in summed]
    order = columns.permute(*kept, *summed).reshape(-1).long()
    tables = []
    for shape in shapes:
        table = columns_of(shape, message, device)
        tables.append((columns.reshape(-1) if table is None else table)[order])
    return tables
