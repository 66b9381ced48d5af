"""How far the messages of a row spread about their mean: a state of three tiles.

Messages are taken relative to the first one of their row, so that a common offset costs no digits.
Counts, means and squared distances from these are merged (Chan, Golub and LeVeque, "Updating
formulae and a pairwise algorithm for computing sample variances", 1979), which only adds what is
positive, so that a first message far from the others costs few.

    count    [ROWS, EDGES, 1]        messages, or parts of a row
    center   [ROWS, EDGES, BLOCK_F]  their mean, less the first message of the row
    squares  [ROWS, EDGES, BLOCK_F]  the sum of their squared distances from their mean
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

__all__ = ["append_moments", "first_message", "merge_moments", "start_moments"]


@triton.jit
@no_type_check
def start_moments(
    ROWS: tl.constexpr, EDGES: tl.constexpr, BLOCK_F: tl.constexpr, ACC: tl.constexpr
):
    """The state before any message."""
    count = tl.zeros([ROWS, EDGES, 1], ACC)
    center = tl.zeros([ROWS, EDGES, BLOCK_F], ACC)
    squares = tl.zeros([ROWS, EDGES, BLOCK_F], ACC)
    return count, center, squares


@triton.jit
@no_type_check
def append_moments(
    count,
    center,
    squares,
    part_count,  # [ROWS, EDGES, 1], 0 where there is none
    part_center,  # [ROWS, EDGES, BLOCK_F]
    part_squares,  # [ROWS, EDGES, BLOCK_F], or 0 of one message
    valid,  # [ROWS, EDGES, BLOCK_F]
):
    """The state after one more message, or one more part of the row, for each lane."""
    total = count + part_count
    share = part_count / tl.maximum(total, 1)
    apart = part_center - center
    squares += tl.where(valid, part_squares + apart * apart * (count * share), 0.0)
    center += tl.where(valid, apart * share, 0.0)
    return total, center, squares


@triton.jit
@no_type_check
def merge_moments(count, center, squares, AXIS: tl.constexpr):
    """The state of the lanes along an axis together.

    A distance of infinite values is NaN, and so are the squares of a row that has one.
    """
    total = tl.sum(count, AXIS)
    mean = tl.sum(count * center, AXIS) / tl.maximum(total, 1)
    apart = center - tl.expand_dims(mean, AXIS)
    return total, mean, tl.sum(squares + count * apart * apart, AXIS)


@triton.jit
@no_type_check
def first_message(
    x_ptr,  # rows x_row_stride apart
    indices_ptr,  # [E] or None
    row_begin,  # [ROWS]
    has_edge,  # [ROWS]
    column,  # [BLOCK_F]
    in_width,  # [BLOCK_F]
    x_row_stride,
    ACC: tl.constexpr,
):
    """[ROWS, BLOCK_F]: the first message of a row, which the others are relative to."""
    source = row_begin
    if indices_ptr is not None:
        source = tl.load(indices_ptr + row_begin, mask=has_edge, other=0).to(tl.int64)
    offset = source[:, None] * x_row_stride + column[None, :]
    return tl.load(x_ptr + offset, mask=has_edge[:, None] & in_width[None, :], other=0).to(ACC)
