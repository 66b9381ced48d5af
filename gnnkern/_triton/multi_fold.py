"""Long rows of several reductions: the states of their chunks become one, in their order."""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

from gnnkern._triton.fold import long_row
from gnnkern._triton.moments import append_moments, first_message, merge_moments, start_moments
from gnnkern._triton.multi_rows import store_results
from gnnkern._triton.plan import slot_of_part
from gnnkern._triton.policies import merge, start, step

__all__ = ["multi_fold_kernel"]


@triton.jit(do_not_specialize=["num_rows", "num_edges", "num_chunks"])
@no_type_check
def multi_fold_kernel(
    out_ptr,
    max_argument_ptr,
    min_argument_ptr,
    mean_ptr,
    rest_ptr,
    std_ptr,
    slope_ptr,
    total_ptr,
    center_ptr,
    squares_ptr,
    highest_ptr,
    highest_at_ptr,
    lowest_ptr,
    lowest_at_ptr,
    x_ptr,
    indptr_ptr,
    indices_ptr,
    plan_ptr,
    num_rows,
    num_edges,
    num_chunks,
    width,
    x_row_stride,
    kept_row_stride,
    SUM: tl.constexpr,
    MEAN: tl.constexpr,
    MAX: tl.constexpr,
    MIN: tl.constexpr,
    VAR: tl.constexpr,
    STD: tl.constexpr,
    PLACES: tl.constexpr,
    UNBIASED: tl.constexpr,
    TRACKS: tl.constexpr,
    ACC: tl.constexpr,
    VEC: tl.constexpr,
    ROWS: tl.constexpr,  # 1
    EDGES: tl.constexpr,  # chunks in one step
    BLOCK_F: tl.constexpr,
):
    """The chunks of every long row, in order; arguments are those of `_multi_reduce_kernel`."""
    SUMS: tl.constexpr = SUM >= 0 or MEAN >= 0
    SPREADS: tl.constexpr = VAR >= 0 or STD >= 0
    # Where am I: every row is folded by the program of its first chunk.
    width = width * VEC
    x_row_stride = x_row_stride * VEC
    kept_row_stride = kept_row_stride * VEC
    slot = tl.program_id(0).to(tl.int64)
    row, degree, num_parts = long_row(indptr_ptr, plan_ptr, slot)
    if num_parts == 0:
        return
    column = tl.program_id(1) * BLOCK_F + tl.arange(0, BLOCK_F)
    in_width = column < width
    lane = tl.arange(0, ROWS)
    row_begin = tl.load(indptr_ptr + row).to(tl.int64)
    chunk_edges = tl.load(plan_ptr).to(tl.int64)

    # Load and fold, in the order of the chunks
    shift, total, center, squares = None, None, None, None
    highest, highest_at, lowest, lowest_at = None, None, None, None
    if SUMS:
        total, nothing = start(ROWS, EDGES, BLOCK_F, ACC, "sum")
    if SPREADS:
        shift = first_message(
            x_ptr, indices_ptr, row_begin + lane, lane == 0, column, in_width, x_row_stride, ACC
        )
        count, center, squares = start_moments(ROWS, EDGES, BLOCK_F, ACC)
    if MAX >= 0:
        highest, highest_at = start(ROWS, EDGES, BLOCK_F, ACC, "max")
    if MIN >= 0:
        lowest, lowest_at = start(ROWS, EDGES, BLOCK_F, ACC, "min")
    for done in range(0, num_parts, EDGES):
        part = (done + tl.arange(0, EDGES)).to(tl.int64)
        in_row = part < num_parts
        offset = slot_of_part(plan_ptr, slot, part)[None, :, None] * width + column[None, None, :]
        valid = in_row[None, :, None] & in_width[None, None, :]
        if SUMS:
            total += tl.load(total_ptr + offset, mask=valid, other=0)
        if SPREADS:
            edges = tl.minimum(chunk_edges, degree - part * chunk_edges)
            count, center, squares = append_moments(
                count,
                center,
                squares,
                tl.where(in_row, edges, 0).to(ACC)[None, :, None],
                tl.load(center_ptr + offset, mask=valid, other=0),
                tl.load(squares_ptr + offset, mask=valid, other=0),
                valid,
            )
        if MAX >= 0:
            value = tl.load(highest_ptr + offset, mask=valid, other=0)
            at = tl.full([1, 1, 1], 0, tl.int32)
            if TRACKS:
                at = tl.load(highest_at_ptr + offset, mask=valid, other=0)
            highest, highest_at = step(highest, highest_at, value, at, valid, "max", TRACKS)
        if MIN >= 0:
            value = tl.load(lowest_ptr + offset, mask=valid, other=0)
            at = tl.full([1, 1, 1], 0, tl.int32)
            if TRACKS:
                at = tl.load(lowest_at_ptr + offset, mask=valid, other=0)
            lowest, lowest_at = step(lowest, lowest_at, value, at, valid, "min", TRACKS)
    if SUMS:
        total = tl.sum(total, 1)  # [1, BLOCK_F], as all states from here on
    if SPREADS:
        count, center, squares = merge_moments(count, center, squares, 1)
    if MAX >= 0:
        highest, highest_at = merge(highest, highest_at, 1, "max", TRACKS)
    if MIN >= 0:
        lowest, lowest_at = merge(lowest, lowest_at, 1, "min", TRACKS)

    # Store
    store_results(
        out_ptr,
        max_argument_ptr,
        min_argument_ptr,
        mean_ptr,
        rest_ptr,
        std_ptr,
        slope_ptr,
        row + lane,
        lane == 0,
        degree + lane,
        shift,
        total,
        center,
        squares,
        highest,
        highest_at,
        lowest,
        lowest_at,
        column,
        width,
        kept_row_stride,
        SUM,
        MEAN,
        MAX,
        MIN,
        VAR,
        STD,
        PLACES,
        UNBIASED,
    )
