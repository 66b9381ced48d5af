"""Gradients of attention that the sources get, from one walk over the reversed graph.

A row is a source here, and its edges lead to destinations. The gradient of the output is gathered
once, with the statistics of each destination (`score_gradient`). From these come alpha, the
gradient <value, grad> of what multiplied the value, and so that of the score.

KIND is "gat" or "dot", as in `attention`; of "dot" the queries are gathered, too.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from gnnkern._attention_loops import SourceGradients, Walked
from gnnkern._triton.attention_tiles import (
    cells_of,
    edges_at,
    load_heads,
    load_rows,
    row_products,
    tile_at,
)
from gnnkern._triton.configs import Tiles, tiles_for
from gnnkern._triton.dropout import drop
from gnnkern._triton.fold import fold
from gnnkern._triton.launch import accumulator, alignment, run
from gnnkern._triton.plan import row_part
from gnnkern._triton.score_gradient import score_gradient

__all__ = ["run_by_source"]


@triton.jit(do_not_specialize=["num_rows", "num_edges", "num_chunks", "threshold"])
@no_type_check
def _by_source_kernel(
    grad_value_ptr,  # [num_rows, heads, head_width]
    grad_key_ptr,  # [num_rows, heads, head_width]; gat: [num_rows, heads]
    grad_score_ptr,  # [E, heads] of scores; dot: of the dot products
    grad_edge_score_ptr,  # [E, heads] or None
    grad_edge_x_ptr,  # [E, heads, head_width] or None
    value_sum_ptr,  # [num_chunks, heads, head_width] sums of chunks, or None
    key_sum_ptr,  # [num_chunks, heads, head_width]; gat: [num_chunks, heads]
    key_ptr,  # [num_rows, heads, head_width]; gat: [num_rows, heads]
    value_ptr,  # [num_rows, heads, head_width]
    query_ptr,  # dot: [num_cols, heads, head_width]
    grad_ptr,  # [num_cols, heads, head_width]
    statistics_ptr,  # [num_cols, heads, 2]; gat: [num_cols, heads, 3]
    edge_score_ptr,  # [E, heads] or None
    edge_x_ptr,  # [E, heads, head_width] or None
    indptr_ptr,  # [num_rows + 1]
    indices_ptr,  # [E]
    edge_id_ptr,  # [E] or None
    plan_ptr,  # [1 + num_chunks, 4] or None
    seed_ptr,  # [1] or None
    threshold,
    keep_scale: tl.float64,
    factor: tl.float64,  # gat: slope below 0; dot: what dot products are multiplied by
    num_rows,
    num_edges,
    num_chunks,
    heads,
    head_width,  # in units of VEC
    KIND: tl.constexpr,
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
    is_first_tile = column_begin == 0
    factor = tl.full([1, 1, 1], factor, ACC)
    one = tl.full([1, 1, 1], 1, ACC)
    WORDS: tl.constexpr = 3 if KIND == "gat" else 2

    # What the edges of a row share
    own_row, has_edge = row[:, None], (begin < end)[:, None]
    if KIND == "gat":
        key = load_heads(key_ptr, own_row, has_edge, head, heads, ACC)
        key_sum = tl.zeros([ROWS, EDGES, HEADS], ACC)
    else:
        key_sum = tl.zeros([ROWS, EDGES, HEADS, BLOCK_D], ACC)
        if WHOLE:
            key = load_rows(key_ptr, own_row, has_edge, cell, in_cells, width, ACC)
    if WHOLE:
        value = load_rows(value_ptr, own_row, has_edge, cell, in_cells, width, ACC)

    value_sum = tl.zeros([ROWS, EDGES, HEADS, BLOCK_D], ACC)
    longest = tl.max(end - begin).to(tl.int32)
    for done in range(0, longest, EDGES):
        in_row, destination, edge = edges_at(begin, end, done, indices_ptr, edge_id_ptr, EDGES)
        valid = in_row[:, :, None] & (head < heads)[None, None, :]
        edge_head = edge[:, :, None] * heads + head[None, None, :]
        known = (destination[:, :, None] * heads + head[None, None, :]) * WORDS
        log_sum_exp = tl.load(statistics_ptr + known, mask=valid, other=0)
        expected = tl.load(statistics_ptr + known + 1, mask=valid, other=0)

        # The rows of destinations, and what they make with the source's
        grad = load_rows(grad_ptr, destination, in_row, cell, in_cells, width, ACC)
        if KIND == "dot":
            query = load_rows(query_ptr, destination, in_row, cell, in_cells, width, ACC)
        if WHOLE:
            edge_value = value
            if edge_x_ptr is not None:
                edge_x = load_rows(edge_x_ptr, edge, in_row, cell, in_cells, width, ACC)
                edge_value = value + edge_x
            product = tl.sum(edge_value * grad, 3)
            if KIND == "dot":
                edge_key = key
                if edge_x_ptr is not None:
                    edge_key = key + edge_x
                score = tl.sum(edge_key * query, 3)
        else:
            product = row_products(
                value_ptr,
                own_row,
                has_edge,
                grad_ptr,
                destination,
                in_row,
                edge_x_ptr,
                edge,
                in_row,
                None,
                factor,
                head,
                heads,
                head_width,
                KIND,
                ACC,
                ROWS,
                EDGES,
                HEADS,
                BLOCK_D,
            )
            if KIND == "dot":
                score = row_products(
                    key_ptr,
                    own_row,
                    has_edge,
                    query_ptr,
                    destination,
                    in_row,
                    edge_x_ptr,
                    edge,
                    in_row,
                    None,
                    factor,
                    head,
                    heads,
                    head_width,
                    KIND,
                    ACC,
                    ROWS,
                    EDGES,
                    HEADS,
                    BLOCK_D,
                )

        # The gradient of the score
        if KIND == "gat":
            score = key + tl.load(statistics_ptr + known + 2, mask=valid, other=0)
        else:
            score *= factor
        if edge_score_ptr is not None:
            score += tl.load(edge_score_ptr + edge_head, mask=valid, other=0).to(ACC)
        if KIND == "gat":
            slope = tl.where(score > 0, one, factor)
            score *= slope
        kept_scale = drop(one, seed_ptr, threshold, keep_scale, edge_head)
        kept, grad_score = score_gradient(score, log_sum_exp, expected, product, valid, kept_scale)
        stored = valid & is_first_tile
        if KIND == "gat":
            grad_score *= slope
            key_sum += grad_score
        if grad_edge_score_ptr is not None:
            rounded = grad_score.to(grad_edge_score_ptr.dtype.element_ty)
            tl.store(grad_edge_score_ptr + edge_head, rounded, mask=stored)
        if KIND == "dot":
            grad_score *= factor
            key_sum += grad_score[:, :, :, None] * query
        tl.store(grad_score_ptr + edge_head, grad_score, mask=stored)
        value_sum += kept[:, :, :, None] * grad
        if grad_edge_x_ptr is not None:
            grad_edge_x = grad_score[:, :, :, None] * query + kept[:, :, :, None] * grad
            offset = edge[:, :, None, None] * width + cell[None, None, :, :]
            mask = in_row[:, :, None, None] & in_cells[None, None, :, :]
            rounded = grad_edge_x.to(grad_edge_x_ptr.dtype.element_ty)
            tl.store(grad_edge_x_ptr + offset, rounded, mask=mask)
    value_sum = tl.sum(value_sum, 1)  # [ROWS, HEADS, BLOCK_D]
    key_sum = tl.sum(key_sum, 1)  # likewise; gat: [ROWS, HEADS]

    # Store
    if plan_ptr is not None:
        item = tl.program_id(0).to(tl.int64)
        if item < num_chunks:
            tl.store(value_sum_ptr + item * width + cell, tl.sum(value_sum, 0), mask=in_cells)
            if KIND == "gat":
                mask = (head < heads) & is_first_tile
                tl.store(key_sum_ptr + item * heads + head, tl.sum(key_sum, 0), mask=mask)
            else:
                tl.store(key_sum_ptr + item * width + cell, tl.sum(key_sum, 0), mask=in_cells)
            return
    integral = grad_value_ptr.dtype.element_ty
    offset = row[:, None, None] * width + cell[None, :, :]
    mask = owns_row[:, None, None] & in_cells[None, :, :]
    tl.store(grad_value_ptr + offset, value_sum.to(integral), mask=mask)
    if KIND == "gat":
        head_offset = row[:, None] * heads + head[None, :]
        head_mask = owns_row[:, None] & (head < heads)[None, :] & is_first_tile
        tl.store(grad_key_ptr + head_offset, key_sum.to(integral), mask=head_mask)
    else:
        tl.store(grad_key_ptr + offset, key_sum.to(integral), mask=mask)


# -- launchers -------------------------------------------------------------------------------------


def run_by_source(
    walked: Walked,
    grad: Tensor,  # [num_dst, H, D]
    statistics: Tensor,  # [num_dst, H, words]
    grads: SourceGradients,
    value_sum: Tensor | None,  # [num_chunks, H * D]
    key_sum: Tensor | None,  # [num_chunks, H * D]; gat: [num_chunks, H]
    tiles: Tiles | None = None,
) -> None:
    """What `AttentionLoops` asks for; `tiles` takes the place of the rule of `configs`."""
    walk, kind, operands, factor, dropout = walked
    value = operands.value
    _, heads, head_width = value.shape
    is_double = value.dtype == torch.float64
    tiles = tiles or tiles_for("attention_backward", head_width, walk.degree, is_double, heads)
    vec = alignment(value.element_size(), head_width)
    run(
        _by_source_kernel,
        (walk.items(tiles.rows), -(-heads // tiles.outputs) * -(-head_width // tiles.columns)),
        value.device,
        grads.value,
        grads.key,
        grads.score,
        grads.edge_score if grads.edge_score.numel() else None,
        grads.edge_x if grads.edge_x.numel() else None,
        value_sum,
        key_sum,
        operands.key,
        value,
        operands.own if kind == "dot" else None,
        grad,
        statistics,
        operands.edge_score,
        operands.edge_x,
        walk.indptr,
        walk.indices,
        walk.edge_id,
        walk.plan,
        *dropout,
        factor,
        walk.num_rows,
        walk.num_edges,
        walk.num_chunks,
        heads,
        head_width // vec,
        warps=tiles.warps,
        KIND=kind,
        WHOLE=head_width <= tiles.columns,
        ACC=accumulator(value.dtype),
        VEC=vec,
        ROWS=tiles.rows,
        EDGES=tiles.edges,
        HEADS=tiles.outputs,
        BLOCK_D=tiles.columns,
    )
    fold(walk, value_sum, None, grads.value, None, "sum")
    fold(walk, key_sum, None, grads.key, None, "sum")
