"""Gradients of max and min, over the loops of rows and edges (gnnkern/_edge_loops.py)."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnkern._cuda import row_reduce, sddmm
from gnnkern._cuda.launch import launch
from gnnkern._edge_loops import Selection
from gnnkern._native import INDEX_CODES

__all__ = [
    "segment_select_backward",
    "select_backward_edge",
    "select_backward_weight",
    "select_backward_x",
    "sorted_positions",
]


def inverse(permutation: Tensor) -> Tensor:
    """[E] where each number stands in a permutation [E] of them."""
    out = torch.empty_like(permutation)
    code = INDEX_CODES[out.dtype]
    launch("inverse", out.device, out, permutation, code, out.shape[0])
    return out


_SELECTION = Selection(row_reduce.LOOP, sddmm.LOOP, inverse)
sorted_positions = _SELECTION.sorted_positions
select_backward_x = _SELECTION.select_backward_x
select_backward_weight = _SELECTION.select_backward_weight
select_backward_edge = _SELECTION.select_backward_edge
segment_select_backward = _SELECTION.segment_select_backward
