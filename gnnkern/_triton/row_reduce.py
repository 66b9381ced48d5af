"""Every row reduces the messages of its edges: rows of x, alone or combined with an edge tensor."""

from __future__ import annotations

import math
from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from gnnkern._broadcasting import Shape
from gnnkern._edge_loops import Messages, RowLoop, Winners, chunk_states
from gnnkern._native import rows_of
from gnnkern._triton.configs import Tiles, tiles_for
from gnnkern._triton.fold import fold, store_rows
from gnnkern._triton.launch import (
    accumulator,
    alignment,
    argument_mask,
    run,
    segments_walk,
    walk_of,
)
from gnnkern._triton.plan import row_part
from gnnkern._triton.policies import merge, start, step
from gnnkern._walk import Walk

__all__ = [
    "LOOP",
    "combine",
    "log_sum_exp_rows",
    "log_sum_exp_segments",
    "message_reduce",
    "reduce_rows",
    "reduce_segments",
    "row_reduce",
    "sum_edges",
]


@triton.jit
@no_type_check
def combine(x, edge, OP: tl.constexpr):
    """A message of two operands."""
    if OP == "add":
        value = x + edge
    elif OP == "sub":
        value = x - edge
    elif OP == "mul":
        value = x * edge
    else:
        value = x / edge
    return value


@triton.jit(do_not_specialize=["num_rows", "num_edges", "num_chunks"])
@no_type_check
def _row_reduce_kernel(
    out_ptr,  # [num_rows, width]
    argument_ptr,  # [num_rows, width] position of the winner in its row, or as `store_rows` says
    first_ptr,  # [num_chunks, width] states of chunks
    second_ptr,  # [num_chunks, width], or None where a state has one part
    x_ptr,  # [num_cols, ...] rows x_row_stride apart
    edge_ptr,  # [E, edge_width] or None
    added_ptr,  # [E, width] added to rows of x on the way, or None
    winner_ptr,  # [num_cols, width] position of the edge that may pass, or None: every edge passes
    indptr_ptr,  # [num_rows + 1]
    indices_ptr,  # [E] or None
    edge_id_ptr,  # [E] or None
    plan_ptr,  # [1 + num_chunks, 4] or None
    position_ptr,  # [E] with winners: sorted position of an edge in their matrix, or None: its id
    winner_indptr_ptr,  # [num_cols + 1] with winners: where the rows of their matrix begin
    x_columns_ptr,  # [width] or None
    edge_columns_ptr,  # [width], or None: neighbouring columns share one
    num_rows,
    num_edges,
    num_chunks,
    width,  # in units of VEC, as the stride
    x_row_stride,
    edge_width,
    edge_group,  # neighbouring columns that share one of an edge
    REDUCE: tl.constexpr,
    OP: tl.constexpr,
    TRACKS: tl.constexpr,
    WINNER_MASK: tl.constexpr,
    ACC: tl.constexpr,
    VEC: tl.constexpr,
    ONE_WEIGHT: tl.constexpr,  # the columns of a tile share one of an edge
    ROWS: tl.constexpr,
    EDGES: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    # Where am I
    width = width * VEC
    x_row_stride = x_row_stride * VEC
    row, begin, end, row_begin, owns_row = row_part(
        indptr_ptr, plan_ptr, num_rows, num_edges, num_chunks, ROWS
    )
    column = tl.program_id(1) * BLOCK_F + tl.arange(0, BLOCK_F)
    in_width = column < width
    x_column = column
    if x_columns_ptr is not None:
        x_column = tl.load(x_columns_ptr + column, mask=in_width, other=0)
    if edge_ptr is not None and not ONE_WEIGHT:
        if edge_columns_ptr is not None:
            edge_column = tl.load(edge_columns_ptr + column, mask=in_width, other=0)
        else:
            edge_column = column // edge_group

    # Load and reduce
    first, second = start(ROWS, EDGES, BLOCK_F, ACC, REDUCE)
    longest = tl.max(end - begin).to(tl.int32)
    for done in range(0, longest, EDGES):
        position = begin[:, None] + (done + tl.arange(0, EDGES))[None, :]  # [ROWS, EDGES]
        in_row = position < end[:, None]
        source = position
        if indices_ptr is not None:
            source = tl.load(indices_ptr + position, mask=in_row, other=0).to(tl.int64)
        edge = position
        HAS_EDGES: tl.constexpr = edge_ptr is not None or added_ptr is not None
        if edge_id_ptr is not None and (HAS_EDGES or winner_ptr is not None):
            edge = tl.load(edge_id_ptr + position, mask=in_row, other=0).to(tl.int64)
        valid = in_row[:, :, None] & in_width[None, None, :]  # [ROWS, EDGES, BLOCK_F]
        passes = valid
        if winner_ptr is not None:
            rank = edge
            if position_ptr is not None:
                rank = tl.load(position_ptr + edge, mask=in_row, other=0).to(tl.int64)
            rank -= tl.load(winner_indptr_ptr + source, mask=in_row, other=0).to(tl.int64)
            winner_offset = source[:, :, None] * width + column[None, None, :]
            winner = tl.load(winner_ptr + winner_offset, mask=valid, other=0).to(tl.int32)
            passes = valid & ((winner & WINNER_MASK) == rank.to(tl.int32)[:, :, None])
        x_offset = source[:, :, None] * x_row_stride + x_column[None, None, :]
        value = tl.load(x_ptr + x_offset, mask=passes, other=0).to(ACC)
        if added_ptr is not None:
            added_offset = edge[:, :, None] * width + column[None, None, :]
            value += tl.load(added_ptr + added_offset, mask=passes, other=0).to(ACC)
        if edge_ptr is not None:
            if ONE_WEIGHT:
                edge_offset = edge * edge_width + tl.program_id(1) * BLOCK_F // edge_group
                weight = tl.load(edge_ptr + edge_offset, mask=in_row, other=0).to(ACC)
                value = combine(value, weight[:, :, None], OP)
            else:
                column_offset = edge[:, :, None] * edge_width + edge_column[None, None, :]
                weight = tl.load(edge_ptr + column_offset, mask=passes, other=0).to(ACC)
                value = combine(value, weight, OP)
        if REDUCE == "min":
            value = -value
        if REDUCE == "logsumexp":
            other = tl.full([1, 1, 1], 1, ACC)
        else:
            other = (position - row_begin[:, None]).to(tl.int32)[:, :, None]
        first, second = step(first, second, value, other, passes, REDUCE, TRACKS)
    first, second = merge(first, second, 1, REDUCE, TRACKS)  # [ROWS, BLOCK_F]

    # Store
    if plan_ptr is not None:
        item = tl.program_id(0).to(tl.int64)
        if item < num_chunks:
            lanes_first, lanes_second = merge(first, second, 0, REDUCE, TRACKS)  # [BLOCK_F]
            tl.store(first_ptr + item * width + column, lanes_first, mask=in_width)
            if second_ptr is not None:
                tl.store(second_ptr + item * width + column, lanes_second, mask=in_width)
            return
    store_rows(
        out_ptr, argument_ptr, row, owns_row, end - begin, first, second, column, width, REDUCE
    )


# -- launchers -------------------------------------------------------------------------------------


# Families of tiles in `configs`.
_TILES = {
    "sum": "sum",
    "mean": "sum",
    "mul": "mul",
    "max": "select",
    "min": "select",
    "logsumexp": "select",
}

# From so many columns of a head on, reading the edges once more for each head costs less than
# reading the head's weight for each column.
_SHARED_COLUMNS = 32


def reduce_rows(
    walk: Walk,
    x: Tensor,
    shape: Shape,
    messages: Messages,
    reduce: str,
    argument: torch.dtype | None,
    winners: Winners | None = None,
    tiles: Tiles | None = None,
) -> tuple[Tensor, Tensor | None]:
    """out[r] = reduction over the edges of row r of the messages, of `shape`; and who won.

    Of logsumexp, `argument` is the type of statistics [num_rows, 2, ...]: the shift and the slope.
    """
    out = x.new_empty((walk.num_rows, *shape))
    parts = (2,) if reduce == "logsumexp" else ()
    positions = None
    if argument is not None:
        positions = x.new_empty((walk.num_rows, *parts, *shape), dtype=argument)
    if out.numel() == 0:
        return out, positions
    x, x_stride, _ = rows_of(x)
    width = math.prod(shape)
    tracks = positions is not None and reduce != "logsumexp"
    first, second = chunk_states(walk, width, reduce, tracks, out)
    is_double = x.dtype == torch.float64
    tiles = tiles or tiles_for(_TILES[reduce], width, walk.degree, is_double)
    group = messages.group or width
    one_weight = messages.edge_columns is None
    if messages.group > 0 and one_weight:
        # A tile inside of one group of columns reads one value of the edge.
        shared = min(tiles.columns, group & -group)
        one_weight = shared >= min(tiles.columns, _SHARED_COLUMNS)
        tiles = tiles._replace(columns=shared) if one_weight else tiles
    vec = alignment(x.element_size(), width, x_stride)
    edge = messages.edge
    winner_args: tuple[Any, ...] = (None, None, None)
    if winners is not None:
        winner_args = winners
    argument_in, winner_indptr, winner_position = winner_args
    run(
        _row_reduce_kernel,
        (walk.items(tiles.rows), -(-width // tiles.columns)),
        x.device,
        out,
        positions,
        first,
        second,
        x,
        edge,
        messages.added,
        argument_in,
        walk.indptr,
        walk.indices,
        walk.edge_id,
        walk.plan,
        winner_position,
        winner_indptr,
        messages.x_columns,
        messages.edge_columns,
        walk.num_rows,
        walk.num_edges,
        walk.num_chunks,
        width // vec,
        x_stride // vec,
        0 if edge is None else edge.shape[1:].numel(),
        group,
        warps=tiles.warps,
        REDUCE=reduce,
        OP=messages.op,
        TRACKS=tracks,
        WINNER_MASK=argument_mask(argument_in),
        ACC=accumulator(x.dtype),
        VEC=vec,
        ONE_WEIGHT=one_weight,
        ROWS=tiles.rows,
        EDGES=tiles.edges,
        BLOCK_F=tiles.columns,
    )
    fold(walk, first, second, out, positions, reduce)
    return out, positions


LOOP = RowLoop(walk_of, segments_walk, reduce_rows)
row_reduce = LOOP.row_reduce
reduce_segments = LOOP.reduce_segments
log_sum_exp_rows = LOOP.log_sum_exp_rows
log_sum_exp_segments = LOOP.log_sum_exp_segments
message_reduce = LOOP.message_reduce
sum_edges = LOOP.sum_edges
