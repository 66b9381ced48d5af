"""The states of several reductions of a row become its results, and what their gradient needs."""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

from gnnkern._triton.policies import NOWHERE, finish

__all__ = ["store_results"]


@triton.jit
@no_type_check
def _put(out_ptr, row, owns_row, column, width, value, PLACE: tl.constexpr, PLACES: tl.constexpr):
    """One of the PLACES results of rows; nowhere, if its place is -1."""
    if PLACE >= 0:
        offset = (row[:, None] * PLACES + PLACE) * width + column[None, :]
        mask = owns_row[:, None] & (column < width)[None, :]
        tl.store(out_ptr + offset, value.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
@no_type_check
def _keep(to_ptr, row, owns_row, column, width, row_stride, value):
    """What a gradient needs of rows; nothing, if `to_ptr` is None."""
    if to_ptr is not None:
        offset = row[:, None] * row_stride + column[None, :]
        mask = owns_row[:, None] & (column < width)[None, :]
        tl.store(to_ptr + offset, value.to(to_ptr.dtype.element_ty), mask=mask)


@triton.jit
@no_type_check
def store_results(
    out_ptr,  # [num_rows, PLACES, width]
    max_argument_ptr,  # [num_rows, width] or None
    min_argument_ptr,  # [num_rows, width] or None
    mean_ptr,  # [num_rows, ...] or None
    rest_ptr,  # [num_rows, ...] or None: what the mean lost to rounding
    std_ptr,  # [num_rows, ...] or None
    slope_ptr,  # [num_rows, ...] or None: 1 / (std * divisor)
    row,  # [ROWS]
    owns_row,  # [ROWS]
    count,  # [ROWS]
    shift,  # [ROWS, BLOCK_F], as the states below; None where nothing needs it
    total,
    center,
    squares,
    highest,
    highest_at,
    lowest,
    lowest_at,
    column,  # [BLOCK_F]
    width,
    kept_row_stride,
    SUM: tl.constexpr,
    MEAN: tl.constexpr,
    MAX: tl.constexpr,
    MIN: tl.constexpr,
    VAR: tl.constexpr,
    STD: tl.constexpr,
    PLACES: tl.constexpr,
    UNBIASED: tl.constexpr,
):
    """The results of rows, and what their gradient needs."""
    if SUM >= 0 or MEAN >= 0:
        mean = finish(total, total, count[:, None], "mean")
        _put(out_ptr, row, owns_row, column, width, total, SUM, PLACES)
        _put(out_ptr, row, owns_row, column, width, mean, MEAN, PLACES)
    if VAR >= 0 or STD >= 0:
        divisor = count
        if UNBIASED:
            divisor = count - 1
        divisor = tl.maximum(divisor, 1)[:, None].to(squares.dtype)
        variance = squares / divisor
        deviation = tl.sqrt(variance)
        _put(out_ptr, row, owns_row, column, width, variance, VAR, PLACES)
        _put(out_ptr, row, owns_row, column, width, deviation, STD, PLACES)
        if SUM < 0 and MEAN < 0:
            mean = shift + center
        rest = (shift - mean) + center
        # A deviation of 0 is at its least: the gradient is 0.
        slope = tl.where(deviation == 0, 0.0, 1 / (deviation * divisor))
        _keep(mean_ptr, row, owns_row, column, width, kept_row_stride, mean)
        _keep(rest_ptr, row, owns_row, column, width, kept_row_stride, rest)
        _keep(std_ptr, row, owns_row, column, width, kept_row_stride, deviation)
        _keep(slope_ptr, row, owns_row, column, width, kept_row_stride, slope)
    if MAX >= 0:
        largest = finish(highest, highest, count[:, None], "max")
        _put(out_ptr, row, owns_row, column, width, largest, MAX, PLACES)
        position = tl.where(highest_at == NOWHERE, -1, highest_at)
        _keep(max_argument_ptr, row, owns_row, column, width, width, position)
    if MIN >= 0:
        smallest = finish(lowest, lowest, count[:, None], "min")
        _put(out_ptr, row, owns_row, column, width, smallest, MIN, PLACES)
        position = tl.where(lowest_at == NOWHERE, -1, lowest_at)
        _keep(min_argument_ptr, row, owns_row, column, width, width, position)
