"""Softmax over the edges of every row, per column, and its gradient."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from gnnkern._edge_loops import chunk_states
from gnnkern._native import Csr
from gnnkern._triton.configs import Tiles, tiles_for
from gnnkern._triton.fold import fold
from gnnkern._triton.launch import Walk, accumulator, alignment, run, segments_walk, walk_of
from gnnkern._triton.plan import row_part
from gnnkern._triton.policies import merge, start, step

__all__ = ["softmax_rows", "softmax_segments"]


@triton.jit
@no_type_check
def _load_tile(x_ptr, edge, column, valid, width, ACC: tl.constexpr):
    offset = edge[:, :, None] * width + column[None, None, :]
    return tl.load(x_ptr + offset, mask=valid, other=0).to(ACC)


@triton.jit(do_not_specialize=["num_rows", "num_edges", "num_chunks"])
@no_type_check
def _softmax_kernel(
    out_ptr,  # [E, width]
    score_ptr,  # [E, width]; with a gradient, the softmax
    grad_ptr,  # [E, width] gradient of the softmax, or None
    first_ptr,  # [num_chunks, width] states of chunks
    second_ptr,  # [num_chunks, width], or None with a gradient
    indptr_ptr,  # [num_rows + 1]
    edge_id_ptr,  # [E] or None
    plan_ptr,  # [1 + num_chunks, 4] or None
    num_rows,
    num_edges,
    num_chunks,
    width,  # in units of VEC
    FINISHES_CHUNKS: tl.constexpr,  # the states of chunks are folded: write their edges
    ACC: tl.constexpr,
    VEC: tl.constexpr,
    ROWS: tl.constexpr,
    EDGES: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    # Where am I
    width = width * VEC
    row, begin, end, row_begin, _ = row_part(
        indptr_ptr, plan_ptr, num_rows, num_edges, num_chunks, ROWS
    )
    column = tl.program_id(1) * BLOCK_F + tl.arange(0, BLOCK_F)
    in_width = column < width
    longest = tl.max(end - begin).to(tl.int32)
    REDUCE: tl.constexpr = "logsumexp" if grad_ptr is None else "sum"

    # What the edges of a row share: the largest score and the sum, or the sum of softmax * grad
    if FINISHES_CHUNKS:
        slot = tl.load(plan_ptr + 4 * (1 + tl.program_id(0).to(tl.int64)) + 3).to(tl.int64)
        state = slot * width + column[None, :] + tl.zeros([ROWS, 1], tl.int64)
        first = tl.load(first_ptr + state, mask=in_width[None, :], other=0)
        second = first
        if grad_ptr is None:
            second = tl.load(second_ptr + state, mask=in_width[None, :], other=0)
    else:
        first_tile, second_tile = start(ROWS, EDGES, BLOCK_F, ACC, REDUCE)
        for done in range(0, longest, EDGES):
            position = begin[:, None] + (done + tl.arange(0, EDGES))[None, :]  # [ROWS, EDGES]
            in_row = position < end[:, None]
            edge = position
            if edge_id_ptr is not None:
                edge = tl.load(edge_id_ptr + position, mask=in_row, other=0).to(tl.int64)
            valid = in_row[:, :, None] & in_width[None, None, :]
            value = _load_tile(score_ptr, edge, column, valid, width, ACC)
            if grad_ptr is not None:
                value *= _load_tile(grad_ptr, edge, column, valid, width, ACC)
            one = tl.full([1, 1, 1], 1, ACC)
            first_tile, second_tile = step(
                first_tile, second_tile, value, one, valid, REDUCE, False
            )
        first, second = merge(first_tile, second_tile, 1, REDUCE, False)  # [ROWS, BLOCK_F]
        if plan_ptr is not None:
            item = tl.program_id(0).to(tl.int64)
            if item < num_chunks:
                lanes_first, lanes_second = merge(first, second, 0, REDUCE, False)  # [BLOCK_F]
                tl.store(first_ptr + item * width + column, lanes_first, mask=in_width)
                if second_ptr is not None:
                    tl.store(second_ptr + item * width + column, lanes_second, mask=in_width)
                return

    # Compute and store
    if grad_ptr is None:
        # Scores of -inf alone give 0; +inf makes the whole row NaN, as inf - inf does.
        scale = tl.where(first == float("inf"), float("nan"), 1 / second)
        shift = tl.where(first == float("-inf"), 0.0, first)
    for done in range(0, longest, EDGES):
        position = begin[:, None] + (done + tl.arange(0, EDGES))[None, :]  # [ROWS, EDGES]
        in_row = position < end[:, None]
        edge = position
        if edge_id_ptr is not None:
            edge = tl.load(edge_id_ptr + position, mask=in_row, other=0).to(tl.int64)
        valid = in_row[:, :, None] & in_width[None, None, :]
        value = _load_tile(score_ptr, edge, column, valid, width, ACC)
        if grad_ptr is None:
            value = tl.exp(value - shift[:, None, :]) * scale[:, None, :]
        else:
            grad = _load_tile(grad_ptr, edge, column, valid, width, ACC)
            value *= grad - first[:, None, :]
        offset = edge[:, :, None] * width + column[None, None, :]
        tl.store(out_ptr + offset, value.to(out_ptr.dtype.element_ty), mask=valid)


# -- launchers -------------------------------------------------------------------------------------


def _softmax(walk: Walk, score: Tensor, grad: Tensor | None, tiles: Tiles | None) -> Tensor:
    score = score.contiguous()
    grad = None if grad is None else grad.contiguous()
    out = torch.empty_like(score)
    if out.numel() == 0:
        return out
    width = score.shape[1:].numel()
    reduce = "logsumexp" if grad is None else "sum"
    first, second = chunk_states(walk, width, reduce, False, score)
    is_double = score.dtype == torch.float64
    tiles = tiles or tiles_for("softmax", width, walk.degree, is_double)
    vec = alignment(score.element_size(), width)

    def launch(items: int, finishes_chunks: bool) -> None:
        run(
            _softmax_kernel,
            (items, -(-width // tiles.columns)),
            score.device,
            out,
            score,
            grad,
            first,
            second,
            walk.indptr,
            walk.edge_id,
            walk.plan,
            walk.num_rows,
            walk.num_edges,
            walk.num_chunks,
            width // vec,
            warps=tiles.warps,
            FINISHES_CHUNKS=finishes_chunks,
            ACC=accumulator(score.dtype),
            VEC=vec,
            ROWS=tiles.rows,
            EDGES=tiles.edges,
            BLOCK_F=tiles.columns,
        )

    launch(walk.items(tiles.rows), False)
    if walk.plan is not None:
        fold(walk, first, second, None, None, reduce)
        launch(walk.num_chunks, True)
    return out


def softmax_rows(
    csr: Csr, score: Tensor, grad: Tensor | None = None, tiles: Tiles | None = None
) -> Tensor:
    """Softmax over each row; with `grad`, `score` is the softmax and its gradient comes back.

    `tiles` takes the place of the rule of `configs`.
    """
    return _softmax(walk_of(csr), score, grad, tiles)


def softmax_segments(
    indptr: Tensor, x: Tensor, grad: Tensor | None = None, tiles: Tiles | None = None
) -> Tensor:
    """The same over consecutive rows of x."""
    return _softmax(segments_walk(indptr, x.shape[0]), x, grad, tiles)
