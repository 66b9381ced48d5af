"""Attention over the edges of every row: scores, softmax and weighted sum in one walk.

The scores that share it are told apart by KIND:

    gat     leaky(key + own + edge_score), all of them one number per head
    dot     factor * <own, key + edge_x> + edge_score; edge_x is added to the value, too
    gatv2   <att, leaky(own + key + edge_x)>; the key is the value

A lane keeps the largest score so far, the sum of exp(score - largest), and the sum of the values
multiplied by these; so do the chunks of long rows, which are folded in order. A tile is
[ROWS, EDGES, HEADS, BLOCK_D]: whole heads where these are no wider than the widest tile.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from gnnkern._attention_loops import Results, Walked
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
from gnnkern._triton.fold import long_row
from gnnkern._triton.launch import accumulator, alignment, run
from gnnkern._triton.plan import row_part, slot_of_part
from gnnkern._triton.policies import merge, shrink, start, step

__all__ = ["run_forward"]


@triton.jit
@no_type_check
def _join(largest, total, acc, score, count, value, valid, factor):
    """The state after one more score and value, or after those of one more part of the row.

    `count` is 1 or the part's total; `factor` multiplies the value, as dropout does.
    """
    top, joined = step(largest, total, score, count, valid, "logsumexp", False)
    weight = tl.where(valid, shrink(score, top), 0.0) * factor
    acc = acc * shrink(largest, top)[:, :, :, None] + weight[:, :, :, None] * value
    return top, joined, acc


@triton.jit
@no_type_check
def _merge(largest, total, acc, AXIS: tl.constexpr):
    """The state of the lanes along an axis together."""
    top, joined = merge(largest, total, AXIS, "logsumexp", False)
    share = shrink(largest, tl.expand_dims(top, AXIS))
    return top, joined, tl.sum(acc * tl.expand_dims(share, len(share.shape)), AXIS)


@triton.jit
@no_type_check
def _store_rows(
    out_ptr,
    wide_ptr,
    log_sum_exp_ptr,
    row,  # [ROWS]
    owns_row,  # [ROWS]
    largest,  # [ROWS, HEADS]
    total,  # [ROWS, HEADS]
    acc,  # [ROWS, HEADS, BLOCK_D]
    head,  # [HEADS]
    cell,  # [HEADS, BLOCK_D]
    in_cells,  # [HEADS, BLOCK_D]
    heads,
    width,
    column_begin,
):
    """The results of rows. Scores of -inf alone give 0; +inf makes a row NaN, as inf - inf does."""
    is_nan = (largest == float("inf")) | (total != total)
    scale = tl.where(largest == float("-inf"), 0.0, 1 / total)
    scale = tl.where(is_nan, float("nan"), scale)
    log_sum_exp = tl.where(is_nan, float("nan"), largest + tl.log(total))
    value = acc * scale[:, :, None]
    offset = row[:, None, None] * width + cell[None, :, :]
    mask = owns_row[:, None, None] & in_cells[None, :, :]
    tl.store(out_ptr + offset, value.to(out_ptr.dtype.element_ty), mask=mask)
    if wide_ptr is not None:
        tl.store(wide_ptr + offset, value, mask=mask)
    mask = owns_row[:, None] & (head < heads)[None, :] & (column_begin == 0)
    tl.store(log_sum_exp_ptr + row[:, None] * heads + head[None, :], log_sum_exp, mask=mask)


@triton.jit(do_not_specialize=["num_rows", "num_edges", "num_chunks", "threshold"])
@no_type_check
def _attention_kernel(
    out_ptr,  # [num_rows, heads, head_width]
    wide_ptr,  # the same before it is rounded, or None
    log_sum_exp_ptr,  # [num_rows, heads]
    largest_ptr,  # [num_chunks, heads] states of chunks, or None
    total_ptr,  # [num_chunks, heads]
    acc_ptr,  # [num_chunks, heads, head_width]
    own_ptr,  # [num_rows, heads, head_width]; gat: [num_rows, heads]
    key_ptr,  # [num_cols, heads, head_width]; gat: [num_cols, heads]
    value_ptr,  # [num_cols, heads, head_width]
    att_ptr,  # gatv2: [heads, head_width]
    edge_score_ptr,  # [E, heads] or None
    edge_x_ptr,  # [E, heads, head_width] or None
    indptr_ptr,  # [num_rows + 1]
    indices_ptr,  # [E]
    edge_id_ptr,  # [E] or None
    plan_ptr,  # [1 + num_chunks, 4] or None
    seed_ptr,  # [1] or None
    threshold,
    keep_scale: tl.float64,
    factor: tl.float64,  # gat, gatv2: slope below 0; dot: what scores are multiplied by
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
    factor = tl.full([1, 1, 1], factor, ACC)

    # What the edges of a row share
    own_row, has_edge = row[:, None], (begin < end)[:, None]
    if KIND == "gat":
        own_score = load_heads(own_ptr, own_row, has_edge, head, heads, ACC)
    elif WHOLE:
        own = load_rows(own_ptr, own_row, has_edge, cell, in_cells, width, ACC)
        if KIND == "gatv2":
            att = tl.load(att_ptr + cell, mask=in_cells, other=0).to(ACC)[None, None, :, :]

    # Load and reduce
    largest, total = start(ROWS, EDGES, HEADS, ACC, "logsumexp")
    acc = tl.zeros([ROWS, EDGES, HEADS, BLOCK_D], ACC)
    one = tl.full([1, 1, 1], 1, ACC)
    longest = tl.max(end - begin).to(tl.int32)
    for done in range(0, longest, EDGES):
        in_row, source, edge = edges_at(begin, end, done, indices_ptr, edge_id_ptr, EDGES)
        value = load_rows(value_ptr, source, in_row, cell, in_cells, width, ACC)
        if edge_x_ptr is not None:
            edge_x = load_rows(edge_x_ptr, edge, in_row, cell, in_cells, width, ACC)
        if KIND == "gat":
            score = own_score + load_heads(key_ptr, source, in_row, head, heads, ACC)
        elif not WHOLE:
            score = row_products(
                key_ptr,
                source,
                in_row,
                own_ptr,
                own_row,
                has_edge,
                edge_x_ptr,
                edge,
                in_row,
                att_ptr,
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
        elif KIND == "dot":
            key = load_rows(key_ptr, source, in_row, cell, in_cells, width, ACC)
            if edge_x_ptr is not None:
                key += edge_x
            score = tl.sum(own * key, 3)
        else:
            summed = own + value
            if edge_x_ptr is not None:
                summed += edge_x
            score = tl.sum(leaky(summed, factor[:, :, :, None]) * att, 3)
        if KIND == "dot":
            score *= factor
            if edge_x_ptr is not None:
                value += edge_x
        if edge_score_ptr is not None:
            score += load_heads(edge_score_ptr, edge, in_row, head, heads, ACC)
        if KIND == "gat":
            score = leaky(score, factor)
        valid = in_row[:, :, None] & (head < heads)[None, None, :]
        element = edge[:, :, None] * heads + head[None, None, :]
        kept = drop(one, seed_ptr, threshold, keep_scale, element)
        largest, total, acc = _join(largest, total, acc, score, one, value, valid, kept)
    largest, total, acc = _merge(largest, total, acc, 1)  # [ROWS, HEADS], [ROWS, HEADS, BLOCK_D]

    # Store
    if plan_ptr is not None:
        item = tl.program_id(0).to(tl.int64)
        if item < num_chunks:
            chunk_largest, chunk_total, chunk_acc = _merge(largest, total, acc, 0)
            mask = (head < heads) & (column_begin == 0)
            tl.store(largest_ptr + item * heads + head, chunk_largest, mask=mask)
            tl.store(total_ptr + item * heads + head, chunk_total, mask=mask)
            tl.store(acc_ptr + item * width + cell, chunk_acc, mask=in_cells)
            return
    _store_rows(
        out_ptr,
        wide_ptr,
        log_sum_exp_ptr,
        row,
        owns_row,
        largest,
        total,
        acc,
        head,
        cell,
        in_cells,
        heads,
        width,
        column_begin,
    )


@triton.jit
@no_type_check
def _fold_attention_kernel(
    out_ptr,  # [num_rows, heads, head_width]
    wide_ptr,  # the same before it is rounded, or None
    log_sum_exp_ptr,  # [num_rows, heads]
    largest_ptr,  # [num_chunks, heads]
    total_ptr,  # [num_chunks, heads]
    acc_ptr,  # [num_chunks, heads, head_width]
    indptr_ptr,  # [num_rows + 1]
    plan_ptr,  # [1 + num_chunks, 4]
    heads,
    head_width,  # in units of VEC
    ACC: tl.constexpr,
    VEC: tl.constexpr,
    PARTS: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    # Where am I: every row is folded by the program of its first chunk.
    head_width = head_width * VEC
    width = heads * head_width
    slot = tl.program_id(0).to(tl.int64)
    row, _, num_parts = long_row(indptr_ptr, plan_ptr, slot)
    if num_parts == 0:
        return
    head, column_begin = tile_at(head_width, HEADS, BLOCK_D)
    cell, in_cells = cells_of(head, column_begin, heads, head_width, BLOCK_D)

    # Load and fold, in the order of the chunks
    largest, total = start(1, PARTS, HEADS, ACC, "logsumexp")
    acc = tl.zeros([1, PARTS, HEADS, BLOCK_D], ACC)
    one = tl.full([1, 1, 1], 1, ACC)
    for done in range(0, num_parts, PARTS):
        part = (done + tl.arange(0, PARTS))[None, :]  # [1, PARTS]
        in_parts = part < num_parts
        part_slot = slot_of_part(plan_ptr, slot, part.to(tl.int64))
        score = load_heads(largest_ptr, part_slot, in_parts, head, heads, ACC)
        count = load_heads(total_ptr, part_slot, in_parts, head, heads, ACC)
        value = load_rows(acc_ptr, part_slot, in_parts, cell, in_cells, width, ACC)
        valid = in_parts[:, :, None] & (head < heads)[None, None, :]
        largest, total, acc = _join(largest, total, acc, score, count, value, valid, one)
    largest, total, acc = _merge(largest, total, acc, 1)  # [1, HEADS], [1, HEADS, BLOCK_D]

    # Store
    lane = tl.arange(0, 1)
    _store_rows(
        out_ptr,
        wide_ptr,
        log_sum_exp_ptr,
        row + lane,
        lane == 0,
        largest,
        total,
        acc,
        head,
        cell,
        in_cells,
        heads,
        width,
        column_begin,
    )


# -- launcher --------------------------------------------------------------------------------------


def run_forward(walked: Walked, results: Results, tiles: Tiles | None = None) -> None:
    """What `AttentionLoops` asks for; `tiles` takes the place of the rule of `configs`."""
    walk, kind, operands, factor, dropout = walked
    value = operands.value
    _, heads, head_width = value.shape
    is_double = value.dtype == torch.float64
    tiles = tiles or tiles_for("attention", head_width, walk.degree, is_double, heads)
    vec = alignment(value.element_size(), head_width)
    num_tiles = -(-heads // tiles.outputs) * -(-head_width // tiles.columns)
    run(
        _attention_kernel,
        (walk.items(tiles.rows), num_tiles),
        value.device,
        *results,
        *operands,
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
    if walk.plan is not None:
        tiles = tiles_for("attention_fold", head_width, 0.0, is_double, heads, edges_at_once=16)
        run(
            _fold_attention_kernel,
            (walk.num_chunks, -(-heads // tiles.outputs) * -(-head_width // tiles.columns)),
            value.device,
            *results,
            walk.indptr,
            walk.plan,
            heads,
            head_width // vec,
            warps=tiles.warps,
            ACC=accumulator(value.dtype),
            VEC=vec,
            PARTS=tiles.edges,
            HEADS=tiles.outputs,
            BLOCK_D=tiles.columns,
        )
