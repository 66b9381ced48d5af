"""The gradient of several reductions, in one gather over the reversed graph.

With n messages into row v, the message m receives level[v] + slope[v] (m - mean[v]), where level is
the gradient of the sum and 1/n of that of the mean, and slope is 2/n of that of the variance and
1/(n std) of that of the deviation; winners of max and min receive theirs besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from gnnkern._cpu.multi_reduce import kept_rows, selections
from gnnkern._edge_loops import chunk_states
from gnnkern._native import Csr, rows_of
from gnnkern._triton.configs import Tiles, tiles_for
from gnnkern._triton.fold import fold, store_rows
from gnnkern._triton.launch import accumulator, alignment, argument_mask, run, walk_of
from gnnkern._triton.plan import row_part
from gnnkern._triton.policies import merge, start, step
from gnnkern._triton.select_backward import sorted_positions

__all__ = ["multi_reduce_backward"]


@triton.jit
@no_type_check
def _load_rows(x_ptr, row, mask, column, row_stride, PLACE: tl.constexpr, ACC: tl.constexpr):
    """[ROWS, BLOCK_F] at a place of rows; 0 where the place is -1."""
    if PLACE >= 0:
        offset = row[:, None] * row_stride + column[None, :]
        value = tl.load(x_ptr + offset, mask=mask, other=0).to(ACC)
    else:
        value = tl.zeros([1, 1], ACC)
    return value


@triton.jit(do_not_specialize=["num_rows"])
@no_type_check
def _pack_kernel(
    packed_ptr,  # [num_rows, 3, width]: level, slope, mean; without var and std the level alone
    grad_ptr,  # [num_rows, PLACES, width]
    mean_ptr,  # [num_rows, ...] rows mean_row_stride apart, with var or std
    rest_ptr,  # [num_rows, width], with var or std
    std_ptr,  # [num_rows, ...] rows std_row_stride apart, with std
    indptr_ptr,  # [num_rows + 1]
    num_rows,
    width,  # in units of VEC, as the strides
    mean_row_stride,
    std_row_stride,
    SUM: tl.constexpr,  # the place of a result among PLACES, -1: none
    MEAN: tl.constexpr,
    VAR: tl.constexpr,
    STD: tl.constexpr,
    PLACES: tl.constexpr,
    ACC: tl.constexpr,
    VEC: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    SPREADS: tl.constexpr = VAR >= 0 or STD >= 0
    # Where am I
    width = width * VEC
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    in_rows = row < num_rows
    column = tl.program_id(1) * BLOCK_F + tl.arange(0, BLOCK_F)
    mask = in_rows[:, None] & (column < width)[None, :]
    begin = tl.load(indptr_ptr + row, mask=in_rows, other=0).to(tl.int64)
    end = tl.load(indptr_ptr + row + 1, mask=in_rows, other=0).to(tl.int64)
    count = tl.maximum(end - begin, 1)[:, None].to(ACC)

    # Load and compute
    grad_row = PLACES * width
    level = _load_rows(grad_ptr + SUM * width, row, mask, column, grad_row, SUM, ACC)
    by_mean = _load_rows(grad_ptr + MEAN * width, row, mask, column, grad_row, MEAN, ACC)
    level += by_mean / count
    PARTS: tl.constexpr = 3 if SPREADS else 1
    offset = row[:, None] * (PARTS * width) + column[None, :]
    if SPREADS:
        by_var = _load_rows(grad_ptr + VAR * width, row, mask, column, grad_row, VAR, ACC)
        slope = 2 * by_var / count
        if STD >= 0:
            by_std = _load_rows(grad_ptr + STD * width, row, mask, column, grad_row, STD, ACC)
            deviation = _load_rows(std_ptr, row, mask, column, std_row_stride * VEC, STD, ACC)
            slope += tl.where(deviation == 0, 0.0, by_std / (count * deviation))
        mean = _load_rows(mean_ptr, row, mask, column, mean_row_stride * VEC, 0, ACC)
        # The mean was rounded: what it lacks goes into the level.
        level -= slope * _load_rows(rest_ptr, row, mask, column, width, 0, ACC)

    # Store
    if SPREADS:
        tl.store(packed_ptr + offset + width, slope, mask=mask)
        tl.store(packed_ptr + offset + 2 * width, mean, mask=mask)
    tl.store(packed_ptr + offset, tl.broadcast_to(level, [ROWS, BLOCK_F]), mask=mask)


@triton.jit
@no_type_check
def _won(
    argument_ptr,  # [num_dst, width]
    grad_ptr,  # [num_dst, PLACES, width]
    target,  # [ROWS, EDGES]
    rank,  # [ROWS, EDGES] position of an edge in its row
    column,  # [BLOCK_F]
    valid,  # [ROWS, EDGES, BLOCK_F]
    width,
    PLACE: tl.constexpr,
    PLACES: tl.constexpr,
    MASK: tl.constexpr,
    ACC: tl.constexpr,
):
    """The gradient of a maximum or minimum, for the edges that have won it; 0 for others."""
    offset = target[:, :, None] * width + column[None, None, :]
    winner = tl.load(argument_ptr + offset, mask=valid, other=0).to(tl.int32) & MASK
    wins = valid & (winner == rank[:, :, None])
    offset = (target[:, :, None] * PLACES + PLACE) * width + column[None, None, :]
    return tl.load(grad_ptr + offset, mask=wins, other=0).to(ACC)


@triton.jit(do_not_specialize=["num_rows", "num_edges", "num_chunks"])
@no_type_check
def _backward_kernel(
    out_ptr,  # [num_src, width]
    first_ptr,  # [num_chunks, width] sums of chunks
    x_ptr,  # [num_src, ...] rows x_row_stride apart
    packed_ptr,  # [num_dst, 3 or 1, width], or None: nothing but max and min
    grad_ptr,  # [num_dst, PLACES, width]
    max_argument_ptr,  # [num_dst, width] or None
    min_argument_ptr,  # [num_dst, width] or None
    indptr_ptr,  # [num_src + 1] of the reverse, as those below
    indices_ptr,  # [E]
    edge_id_ptr,  # [E] or None
    plan_ptr,  # [1 + num_chunks, 4] or None
    position_ptr,  # [E] sorted position of an edge in the matrix itself, or None: its number
    dst_indptr_ptr,  # [num_dst + 1] of the matrix itself
    num_rows,
    num_edges,
    num_chunks,
    width,  # in units of VEC, as the stride
    x_row_stride,
    MAX: tl.constexpr,
    MIN: tl.constexpr,
    PLACES: tl.constexpr,
    SPREADS: tl.constexpr,
    ARGUMENT_MASK: tl.constexpr,
    ACC: tl.constexpr,
    VEC: tl.constexpr,
    ROWS: tl.constexpr,
    EDGES: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    # Where am I
    width = width * VEC
    x_row_stride = x_row_stride * VEC
    row, begin, end, _, owns_row = row_part(
        indptr_ptr, plan_ptr, num_rows, num_edges, num_chunks, ROWS
    )
    column = tl.program_id(1) * BLOCK_F + tl.arange(0, BLOCK_F)
    in_width = column < width
    if SPREADS:
        # A lane without an edge may have no row.
        own_offset = row[:, None] * x_row_stride + column[None, :]
        has_edge = (begin < end)[:, None] & in_width[None, :]
        own = tl.load(x_ptr + own_offset, mask=has_edge, other=0).to(ACC)[:, None, :]

    # Load and sum
    first, second = start(ROWS, EDGES, BLOCK_F, ACC, "sum")
    longest = tl.max(end - begin).to(tl.int32)
    for done in range(0, longest, EDGES):
        position = begin[:, None] + (done + tl.arange(0, EDGES))[None, :]  # [ROWS, EDGES]
        in_row = position < end[:, None]
        target = tl.load(indices_ptr + position, mask=in_row, other=0).to(tl.int64)
        valid = in_row[:, :, None] & in_width[None, None, :]  # [ROWS, EDGES, BLOCK_F]
        value = tl.zeros([ROWS, EDGES, BLOCK_F], ACC)
        if packed_ptr is not None:
            PARTS: tl.constexpr = 3 if SPREADS else 1
            offset = target[:, :, None] * (PARTS * width) + column[None, None, :]
            value += tl.load(packed_ptr + offset, mask=valid, other=0)
            if SPREADS:
                slope = tl.load(packed_ptr + offset + width, mask=valid, other=0)
                mean = tl.load(packed_ptr + offset + 2 * width, mask=valid, other=0)
                value += slope * (own - mean)
        if MAX >= 0 or MIN >= 0:
            rank = position
            if edge_id_ptr is not None:
                rank = tl.load(edge_id_ptr + position, mask=in_row, other=0).to(tl.int64)
            if position_ptr is not None:
                rank = tl.load(position_ptr + rank, mask=in_row, other=0).to(tl.int64)
            rank -= tl.load(dst_indptr_ptr + target, mask=in_row, other=0).to(tl.int64)
            rank = rank.to(tl.int32)
        if MAX >= 0:
            value += _won(
                max_argument_ptr,
                grad_ptr,
                target,
                rank,
                column,
                valid,
                width,
                MAX,
                PLACES,
                ARGUMENT_MASK,
                ACC,
            )
        if MIN >= 0:
            value += _won(
                min_argument_ptr,
                grad_ptr,
                target,
                rank,
                column,
                valid,
                width,
                MIN,
                PLACES,
                ARGUMENT_MASK,
                ACC,
            )
        first, second = step(first, second, value, second, valid, "sum", False)
    first, second = merge(first, second, 1, "sum", False)  # [ROWS, BLOCK_F]

    # Store
    if plan_ptr is not None:
        item = tl.program_id(0).to(tl.int64)
        if item < num_chunks:
            lanes_first, lanes_second = merge(first, second, 0, "sum", False)  # [BLOCK_F]
            tl.store(first_ptr + item * width + column, lanes_first, mask=in_width)
            return
    store_rows(out_ptr, None, row, owns_row, end - begin, first, second, column, width, "sum")


# -- launchers -------------------------------------------------------------------------------------


def _pack(
    csr: Csr, x: Tensor, out: Tensor, saved: Tensor, grad: Tensor, reduces: Sequence[str]
) -> Tensor:  # [num_dst, 3 or 1, ...]
    """Level, slope and mean of every row."""
    num_dst, width = grad.shape[0], grad.shape[2:].numel()
    kept = dict(zip(kept_rows(reduces, x.dtype), saved, strict=True))

    def rows(kind: str) -> Tensor | None:
        """The mean or the deviation, saved or in the result."""
        if not kept or (kind not in kept and kind not in reduces):
            return None
        return kept[kind] if kind in kept else out[:, reduces.index(kind)]

    mean, deviation = rows("mean"), rows("std")
    strides = [0 if held is None else held.stride(0) for held in (mean, deviation)]
    packed = saved.new_empty((num_dst, 3 if kept else 1, *x.shape[1:]))
    tiles = tiles_for("multi", width, 0.0, x.dtype == torch.float64, edges_at_once=1)
    vec = alignment(packed.element_size(), width, *strides)
    places = {
        kind.upper(): reduces.index(kind) if kind in reduces else -1
        for kind in ("sum", "mean", "var", "std")
    }
    run(
        _pack_kernel,
        (-(-num_dst // tiles.rows), -(-width // tiles.columns)),
        x.device,
        packed,
        grad,
        mean,
        kept.get("rest"),
        deviation,
        csr.indptr,
        num_dst,
        width // vec,
        *[stride // vec for stride in strides],
        warps=tiles.warps,
        **places,
        PLACES=len(reduces),
        ACC=accumulator(x.dtype),
        VEC=vec,
        ROWS=tiles.rows,
        BLOCK_F=tiles.columns,
    )
    return packed


def multi_reduce_backward(
    fwd: Csr,
    rev: Csr,
    x: Tensor,  # [num_src, ...]
    out: Tensor,  # [num_dst, R, ...]
    winners: Tensor,  # [K, num_dst, ...]
    saved: Tensor,  # [S, num_dst, ...]
    grad: Tensor,  # [num_dst, R, ...]
    reduces: Sequence[str],
    tiles: Tiles | None = None,
) -> Tensor:
    """The gradient of x; `tiles` takes the place of the rule of `configs`."""
    grad_x = x.new_empty(x.shape)
    if x.numel() == 0 or grad.numel() == 0:
        return grad_x.zero_()
    grad = grad.contiguous()
    selected = selections(reduces)
    argument_of = dict(zip(selected, winners, strict=True))
    packed = None
    if len(selected) < len(reduces):
        packed = _pack(fwd, x, out, saved, grad, reduces)
    walk = walk_of(rev)
    x, x_stride, width = rows_of(x)
    first, _ = chunk_states(walk, width, "sum", False, x)
    tiles = tiles or tiles_for("multi", width, walk.degree, x.dtype == torch.float64)
    vec = alignment(x.element_size(), width, x_stride)
    run(
        _backward_kernel,
        (walk.items(tiles.rows), -(-width // tiles.columns)),
        x.device,
        grad_x,
        first,
        x,
        packed,
        grad,
        argument_of.get("max"),
        argument_of.get("min"),
        walk.indptr,
        walk.indices,
        walk.edge_id,
        walk.plan,
        sorted_positions(fwd) if selected else None,
        fwd.indptr,
        walk.num_rows,
        walk.num_edges,
        walk.num_chunks,
        width // vec,
        x_stride // vec,
        warps=tiles.warps,
        MAX=reduces.index("max") if "max" in reduces else -1,
        MIN=reduces.index("min") if "min" in reduces else -1,
        PLACES=len(reduces),
        SPREADS=packed is not None and packed.shape[1] == 3,
        ARGUMENT_MASK=argument_mask(winners),
        ACC=accumulator(x.dtype),
        VEC=vec,
        ROWS=tiles.rows,
        EDGES=tiles.edges,
        BLOCK_F=tiles.columns,
    )
    fold(walk, first, None, grad_x, None, "sum")
    return grad_x
