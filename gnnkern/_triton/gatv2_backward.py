"""Gradients of GATv2 attention: two walks with one gather each, and signs between them.

By destination, the rows of x_src are gathered. They give the score of an edge back, and with what
the row itself holds the gradient of the score; behind it every gradient is that times att times the
slope of the activation. Left behind for each edge are what multiplied x_src, the gradient of the
score, and one bit for each column: whether the activation's argument was above 0.

By source, the rows of the output's gradient are gathered, and these are read.
"""

from __future__ import annotations

from typing import NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from gnnkern._attention_loops import Dropout
from gnnkern._edge_loops import chunk_states
from gnnkern._triton.attention_tiles import (
    cells_of,
    edges_at,
    leaky,
    load_heads,
    load_rows,
    row_products,
    tile_at,
)
from gnnkern._triton.configs import Tiles, tiles_for
from gnnkern._triton.dropout import drop
from gnnkern._triton.fold import fold
from gnnkern._triton.launch import Walk, accumulator, alignment, run
from gnnkern._triton.plan import row_part
from gnnkern._triton.score_gradient import score_gradient

__all__ = ["Records", "by_destination", "by_source"]


@triton.jit(do_not_specialize=["num_rows", "num_edges", "num_chunks", "threshold"])
@no_type_check
def _by_destination_kernel(
    grad_x_dst_ptr,  # [num_rows, heads, head_width]
    att_sum_ptr,  # [items, heads, head_width] what a program adds to the gradient of att
    grad_edge_x_ptr,  # [E, heads, head_width] or None
    kept_ptr,  # [E, heads] alpha after dropout, or None: nothing is left for the sources
    grad_score_ptr,  # [E, heads]
    sign_ptr,  # [E, heads, sign_bytes]
    row_sum_ptr,  # [num_chunks, heads, head_width] sums of chunks, or None
    x_src_ptr,  # [num_cols, heads, head_width]
    x_dst_ptr,  # [num_rows, heads, head_width]
    att_ptr,  # [heads, head_width]
    edge_x_ptr,  # [E, heads, head_width] or None
    grad_ptr,  # [num_rows, heads, head_width]
    statistics_ptr,  # [num_rows, heads, 2]
    indptr_ptr,  # [num_rows + 1]
    indices_ptr,  # [E]
    edge_id_ptr,  # [E] or None
    plan_ptr,  # [1 + num_chunks, 4] or None
    seed_ptr,  # [1] or None
    threshold,
    keep_scale: tl.float64,
    slope: tl.float64,
    num_rows,
    num_edges,
    num_chunks,
    heads,
    head_width,  # in units of VEC
    sign_bytes,
    WHOLE: tl.constexpr,  # a tile holds all columns of its heads
    ACC: tl.constexpr,
    VEC: tl.constexpr,
    ROWS: tl.constexpr,
    EDGES: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    # Where am I
    head_width = head_width * VEC
    width = heads * head_width
    row, begin, end, _, owns_row = row_part(
        indptr_ptr, plan_ptr, num_rows, num_edges, num_chunks, ROWS
    )
    head, column_begin = tile_at(head_width, HEADS, BLOCK_D)
    cell, in_cells = cells_of(head, column_begin, heads, head_width, BLOCK_D)
    slope = tl.full([1, 1, 1], slope, ACC)
    one = tl.full([1, 1, 1], 1, ACC)

    # What the edges of a row share
    own_row, has_edge = row[:, None], (begin < end)[:, None]
    x_dst = load_rows(x_dst_ptr, own_row, has_edge, cell, in_cells, width, ACC)
    att = tl.load(att_ptr + cell, mask=in_cells, other=0).to(ACC)  # [HEADS, BLOCK_D]
    if WHOLE:
        grad = load_rows(grad_ptr, own_row, has_edge, cell, in_cells, width, ACC)
    known = (row[:, None, None] * heads + head[None, None, :]) * 2
    has_heads = has_edge[:, :, None] & (head < heads)[None, None, :]
    log_sum_exp = tl.load(statistics_ptr + known, mask=has_heads, other=0)  # [ROWS, 1, HEADS]
    expected = tl.load(statistics_ptr + known + 1, mask=has_heads, other=0)

    row_sum = tl.zeros([ROWS, EDGES, HEADS, BLOCK_D], ACC)
    att_sum = tl.zeros([ROWS, EDGES, HEADS, BLOCK_D], ACC)
    longest = tl.max(end - begin).to(tl.int32)
    for done in range(0, longest, EDGES):
        in_row, source, edge = edges_at(begin, end, done, indices_ptr, edge_id_ptr, EDGES)
        valid = in_row[:, :, None] & (head < heads)[None, None, :]
        edge_head = edge[:, :, None] * heads + head[None, None, :]

        # The score, and the gradient of what multiplied the source's row
        x_src = load_rows(x_src_ptr, source, in_row, cell, in_cells, width, ACC)
        summed = x_src + x_dst
        if edge_x_ptr is not None:
            summed += load_rows(edge_x_ptr, edge, in_row, cell, in_cells, width, ACC)
        if WHOLE:
            score = tl.sum(leaky(summed, slope[:, :, :, None]) * att[None, None, :, :], 3)
            product = tl.sum(x_src * grad, 3)
        else:
            score = row_products(
                x_src_ptr,
                source,
                in_row,
                x_dst_ptr,
                own_row,
                has_edge,
                edge_x_ptr,
                edge,
                in_row,
                att_ptr,
                slope,
                head,
                heads,
                head_width,
                "gatv2",
                ACC,
                ROWS,
                EDGES,
                HEADS,
                BLOCK_D,
            )
            product = row_products(
                x_src_ptr,
                source,
                in_row,
                grad_ptr,
                own_row,
                has_edge,
                None,
                edge,
                in_row,
                None,
                slope,
                head,
                heads,
                head_width,
                "dot",
                ACC,
                ROWS,
                EDGES,
                HEADS,
                BLOCK_D,
            )

        # The gradient of the score, and what follows from it
        kept_scale = drop(one, seed_ptr, threshold, keep_scale, edge_head)
        kept, grad_score = score_gradient(score, log_sum_exp, expected, product, valid, kept_scale)
        is_positive = summed > 0
        weight = grad_score[:, :, :, None]
        weight = tl.where(is_positive, weight, weight * slope[:, :, :, None])
        row_sum += weight
        # An argument that is not finite makes 0 times it NaN, where there is an edge.
        exists = in_row[:, :, None, None] & in_cells[None, None, :, :]
        att_sum += tl.where(exists, weight * summed, 0.0)
        if grad_edge_x_ptr is not None:
            rounded = (weight * att[None, None, :, :]).to(grad_edge_x_ptr.dtype.element_ty)
            offset = edge[:, :, None, None] * width + cell[None, None, :, :]
            tl.store(grad_edge_x_ptr + offset, rounded, mask=exists)
        if kept_ptr is not None:
            stored = valid & (column_begin == 0)
            tl.store(kept_ptr + edge_head, kept, mask=stored)
            tl.store(grad_score_ptr + edge_head, grad_score, mask=stored)
            bit = is_positive.to(tl.int32) << (tl.arange(0, BLOCK_D) % 8)[None, None, None, :]
            bits = tl.sum(tl.reshape(bit, [ROWS, EDGES, HEADS, BLOCK_D // 8, 8]), 4)
            place = column_begin // 8 + tl.arange(0, BLOCK_D // 8)
            offset = edge_head[:, :, :, None] * sign_bytes + place[None, None, None, :]
            mask = valid[:, :, :, None] & (place < sign_bytes)[None, None, None, :]
            tl.store(sign_ptr + offset, bits.to(tl.uint8), mask=mask)
    row_sum = tl.sum(row_sum, 1) * att[None, :, :]  # [ROWS, HEADS, BLOCK_D]
    att_sum = tl.sum(tl.sum(att_sum, 1), 0)  # [HEADS, BLOCK_D]

    # Store
    item = tl.program_id(0).to(tl.int64)
    tl.store(att_sum_ptr + item * width + cell, att_sum, mask=in_cells)
    if plan_ptr is not None:  # noqa: SIM102, the first is known to the compiler
        if item < num_chunks:
            tl.store(row_sum_ptr + item * width + cell, tl.sum(row_sum, 0), mask=in_cells)
            return
    offset = row[:, None, None] * width + cell[None, :, :]
    mask = owns_row[:, None, None] & in_cells[None, :, :]
    tl.store(grad_x_dst_ptr + offset, row_sum.to(grad_x_dst_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["num_rows", "num_edges", "num_chunks"])
@no_type_check
def _gatv2_by_source_kernel(
    grad_x_src_ptr,  # [num_rows, heads, head_width]
    row_sum_ptr,  # [num_chunks, heads, head_width] sums of chunks, or None
    kept_ptr,  # [E, heads]
    grad_score_ptr,  # [E, heads]
    sign_ptr,  # [E, heads, sign_bytes]
    att_ptr,  # [heads, head_width]
    grad_ptr,  # [num_cols, heads, head_width]
    indptr_ptr,  # [num_rows + 1]
    indices_ptr,  # [E]
    edge_id_ptr,  # [E] or None
    plan_ptr,  # [1 + num_chunks, 4] or None
    slope: tl.float64,
    num_rows,
    num_edges,
    num_chunks,
    heads,
    head_width,  # in units of VEC
    sign_bytes,
    ACC: tl.constexpr,
    VEC: tl.constexpr,
    ROWS: tl.constexpr,
    EDGES: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    # Where am I
    head_width = head_width * VEC
    width = heads * head_width
    row, begin, end, _, owns_row = row_part(
        indptr_ptr, plan_ptr, num_rows, num_edges, num_chunks, ROWS
    )
    head, column_begin = tile_at(head_width, HEADS, BLOCK_D)
    cell, in_cells = cells_of(head, column_begin, heads, head_width, BLOCK_D)
    column = column_begin + tl.arange(0, BLOCK_D)
    slope = tl.full([1, 1, 1, 1], slope, ACC)
    att = tl.load(att_ptr + cell, mask=in_cells, other=0).to(ACC)[None, None, :, :]

    # Load and sum
    total = tl.zeros([ROWS, EDGES, HEADS, BLOCK_D], ACC)
    longest = tl.max(end - begin).to(tl.int32)
    for done in range(0, longest, EDGES):
        in_row, destination, edge = edges_at(begin, end, done, indices_ptr, edge_id_ptr, EDGES)
        grad = load_rows(grad_ptr, destination, in_row, cell, in_cells, width, ACC)
        kept = load_heads(kept_ptr, edge, in_row, head, heads, ACC)[:, :, :, None]
        weight = load_heads(grad_score_ptr, edge, in_row, head, heads, ACC)[:, :, :, None]
        edge_head = edge[:, :, None, None] * heads + head[None, None, :, None]
        offset = edge_head * sign_bytes + (column // 8)[None, None, None, :]
        exists = in_row[:, :, None, None] & in_cells[None, None, :, :]
        bits = tl.load(sign_ptr + offset, mask=exists, other=0).to(tl.int32)
        is_positive = ((bits >> (column % 8)[None, None, None, :]) & 1) != 0
        total += kept * grad + tl.where(is_positive, weight, weight * slope) * att
    total = tl.sum(total, 1)  # [ROWS, HEADS, BLOCK_D]

    # Store
    if plan_ptr is not None:
        item = tl.program_id(0).to(tl.int64)
        if item < num_chunks:
            tl.store(row_sum_ptr + item * width + cell, tl.sum(total, 0), mask=in_cells)
            return
    offset = row[:, None, None] * width + cell[None, :, :]
    mask = owns_row[:, None, None] & in_cells[None, :, :]
    tl.store(grad_x_src_ptr + offset, total.to(grad_x_src_ptr.dtype.element_ty), mask=mask)


# -- launchers -------------------------------------------------------------------------------------


class Records(NamedTuple):
    """What the walk by destination leaves of every edge for the walk by source."""

    kept: Tensor  # [E, H] in accumulation precision
    grad_score: Tensor  # [E, H] likewise
    signs: Tensor  # [E, H, ceil(D / 8)] uint8, the first column in the lowest bit


def by_destination(
    walk: Walk,
    x_src: Tensor,  # [num_src, H, D] contiguous, as all of them
    x_dst: Tensor,  # [num_dst, H, D]
    att: Tensor,  # [H, D]
    edge_x: Tensor | None,  # [E, H, D]
    slope: float,
    dropout: Dropout,
    grad: Tensor,  # [num_dst, H, D]
    statistics: Tensor,  # [num_dst, H, 2]
    need_records: bool,
    need_edge_x: bool,
    tiles: Tiles | None = None,
) -> tuple[Tensor, Tensor, Tensor | None, Records | None]:
    """Gradients of x_dst and edge_x, sums for that of att, the records; `tiles`: not the rule's."""
    num_edges, (_, heads, head_width) = walk.num_edges, x_dst.shape
    is_double = statistics.dtype == torch.float64
    tiles = tiles or tiles_for("gatv2_backward", head_width, walk.degree, is_double, heads)
    vec = alignment(x_src.element_size(), head_width)
    sign_bytes = -(-head_width // 8)
    records = None
    if need_records:
        kept, grad_score = statistics.new_empty((2, num_edges, heads)).unbind()
        signs = x_src.new_empty((num_edges, heads, sign_bytes), dtype=torch.uint8)
        records = Records(kept, grad_score, signs)
    grad_x_dst = torch.empty_like(x_dst)
    att_sum = statistics.new_empty((walk.items(tiles.rows), heads, head_width))
    grad_edge_x = x_src.new_empty((num_edges, heads, head_width)) if need_edge_x else None
    row_sum, _ = chunk_states(walk, heads * head_width, "sum", False, x_src)
    run(
        _by_destination_kernel,
        (walk.items(tiles.rows), -(-heads // tiles.outputs) * -(-head_width // tiles.columns)),
        x_src.device,
        grad_x_dst,
        att_sum,
        grad_edge_x,
        *(records or (None, None, None)),
        row_sum,
        x_src,
        x_dst,
        att,
        edge_x,
        grad,
        statistics,
        walk.indptr,
        walk.indices,
        walk.edge_id,
        walk.plan,
        *dropout,
        slope,
        walk.num_rows,
        num_edges,
        walk.num_chunks,
        heads,
        head_width // vec,
        sign_bytes,
        warps=tiles.warps,
        WHOLE=head_width <= tiles.columns,
        ACC=accumulator(x_src.dtype),
        VEC=vec,
        ROWS=tiles.rows,
        EDGES=tiles.edges,
        HEADS=tiles.outputs,
        BLOCK_D=tiles.columns,
    )
    fold(walk, row_sum, None, grad_x_dst, None, "sum")
    return grad_x_dst, att_sum, grad_edge_x, records


def by_source(
    walk: Walk,
    records: Records,
    att: Tensor,  # [H, D] contiguous
    slope: float,
    grad: Tensor,  # [num_dst, H, D] contiguous
    tiles: Tiles | None = None,
) -> Tensor:  # [num_src, H, D]
    """The gradient of x_src; `tiles` takes the place of the rule of `configs`."""
    heads, head_width = att.shape
    is_double = records.kept.dtype == torch.float64
    tiles = tiles or tiles_for("attention_backward", head_width, walk.degree, is_double, heads)
    vec = alignment(grad.element_size(), head_width)
    grad_x_src = grad.new_empty((walk.num_rows, heads, head_width))
    row_sum, _ = chunk_states(walk, heads * head_width, "sum", False, grad)
    run(
        _gatv2_by_source_kernel,
        (walk.items(tiles.rows), -(-heads // tiles.outputs) * -(-head_width // tiles.columns)),
        grad.device,
        grad_x_src,
        row_sum,
        *records,
        att,
        grad,
        walk.indptr,
        walk.indices,
        walk.edge_id,
        walk.plan,
        slope,
        walk.num_rows,
        walk.num_edges,
        walk.num_chunks,
        heads,
        head_width // vec,
        records.signs.shape[2],
        warps=tiles.warps,
        ACC=accumulator(grad.dtype),
        VEC=vec,
        ROWS=tiles.rows,
        EDGES=tiles.edges,
        HEADS=tiles.outputs,
        BLOCK_D=tiles.columns,
    )
    fold(walk, row_sum, None, grad_x_src, None, "sum")
    return grad_x_src
