"""Gradients of max and min, over the loops of rows and edges (gnnkern/_edge_loops.py)."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from gnnkern._edge_loops import Selection
from gnnkern._triton import row_reduce, sddmm
from gnnkern._triton.launch import run

__all__ = [
    "segment_select_backward",
    "select_backward_edge",
    "select_backward_weight",
    "select_backward_x",
    "sorted_positions",
]

# Edges to a program.
_BLOCK_E = 1024


@triton.jit(do_not_specialize=["num_edges"])
@no_type_check
def _positions_kernel(
    position_ptr,  # [E]
    edge_id_ptr,  # [E]
    num_edges,
    BLOCK_E: tl.constexpr,
):
    """The inverse of a permutation."""
    position = tl.program_id(0).to(tl.int64) * BLOCK_E + tl.arange(0, BLOCK_E)
    in_edges = position < num_edges
    edge = tl.load(edge_id_ptr + position, mask=in_edges, other=0).to(tl.int64)
    tl.store(position_ptr + edge, position.to(position_ptr.dtype.element_ty), mask=in_edges)


def inverse(permutation: Tensor) -> Tensor:
    """[E] where each number stands in a permutation [E] of them."""
    positions = torch.empty_like(permutation)
    num_edges = positions.shape[0]
    grid = (-(-num_edges // _BLOCK_E),)
    run(
        _positions_kernel,
        grid,
        positions.device,
        positions,
        permutation,
        num_edges,
        BLOCK_E=_BLOCK_E,
    )
    return positions


_SELECTION = Selection(row_reduce.LOOP, sddmm.LOOP, inverse)
sorted_positions = _SELECTION.sorted_positions
select_backward_x = _SELECTION.select_backward_x
select_backward_weight = _SELECTION.select_backward_weight
select_backward_edge = _SELECTION.select_backward_edge
segment_select_backward = _SELECTION.segment_select_backward
