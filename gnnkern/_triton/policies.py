"""Reductions as policies: what a row keeps of its messages, and how one more changes it.

A state is a pair of tiles:

    sum, mean   the total                            nothing
    mul         the product                          nothing
    max, min    the winner so far, negated for min   where it stood in its row, if TRACKS
    logsumexp   the largest                          the sum of exp(message - largest)
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

__all__ = ["NOWHERE", "finish", "merge", "shrink", "start", "step"]

# The position of a winner where there was no message yet: behind every position.
NOWHERE = tl.constexpr(2**31 - 1)


@triton.jit
@no_type_check
def start(
    ROWS: tl.constexpr,
    EDGES: tl.constexpr,
    BLOCK_F: tl.constexpr,
    ACC: tl.constexpr,
    REDUCE: tl.constexpr,
):
    """The state [ROWS, EDGES, BLOCK_F] before any message."""
    if REDUCE == "mul":
        first = tl.full([ROWS, EDGES, BLOCK_F], 1, ACC)
    elif REDUCE == "sum" or REDUCE == "mean":
        first = tl.zeros([ROWS, EDGES, BLOCK_F], ACC)
    else:
        first = tl.full([ROWS, EDGES, BLOCK_F], float("-inf"), ACC)
    if REDUCE == "logsumexp":
        second = tl.zeros([ROWS, EDGES, BLOCK_F], ACC)
    else:
        second = tl.full([ROWS, EDGES, BLOCK_F], NOWHERE, tl.int32)
    return first, second


@triton.jit
@no_type_check
def shrink(value, largest):
    """exp(value - largest), where equal values differ by 0 even if both are infinite."""
    return tl.where(value == largest, 1.0, tl.exp(value - largest))


@triton.jit
@no_type_check
def step(first, second, value, other, valid, REDUCE: tl.constexpr, TRACKS: tl.constexpr):
    """The state after one more message, or one more part of the row, for each lane.

    `other` is, beside a message, its position (max, min) or 1 (logsumexp).
    """
    if REDUCE == "sum" or REDUCE == "mean":
        first += tl.where(valid, value, 0.0)
    elif REDUCE == "mul":
        first *= tl.where(valid, value, 1.0)
    elif REDUCE == "logsumexp":
        # A NaN is never the largest, and enters the sum.
        value = tl.where(valid, value, float("-inf"))
        largest = tl.where(value > first, value, first)
        second = second * shrink(first, largest)
        second += tl.where(valid, other, 0.0) * shrink(value, largest)
        first = largest
    else:
        # The first of equals wins, and a NaN beats every number.
        if TRACKS:
            beats = (value > first) | ((value != value) & (first == first)) | (second == NOWHERE)
            beats = valid & beats
            second = tl.where(beats, other, second)
        else:
            beats = valid & ((value > first) | (value != value))
        first = tl.where(beats, value, first)
    return first, second


@triton.jit
@no_type_check
def _times(a, b):
    return a * b


@triton.jit
@no_type_check
def merge(first, second, AXIS: tl.constexpr, REDUCE: tl.constexpr, TRACKS: tl.constexpr):
    """The state of the lanes along an axis together."""
    if REDUCE == "sum" or REDUCE == "mean":
        merged = tl.sum(first, AXIS)
        other = tl.max(second, AXIS)
    elif REDUCE == "mul":
        merged = tl.reduce(first, AXIS, _times)
        other = tl.max(second, AXIS)
    elif REDUCE == "logsumexp":
        merged = tl.max(first, AXIS)
        other = tl.sum(second * shrink(first, tl.expand_dims(merged, AXIS)), AXIS)
    else:
        is_nan = first != first
        any_nan = tl.max(is_nan.to(tl.int32), AXIS) > 0
        number = tl.where(is_nan, float("-inf"), first)
        largest = tl.max(number, AXIS)
        other = tl.max(second, AXIS)
        if TRACKS:
            wins = tl.where(
                tl.expand_dims(any_nan, AXIS), is_nan, first == tl.expand_dims(largest, AXIS)
            )
            other = tl.min(tl.where(wins, second, NOWHERE), AXIS)
        merged = tl.where(any_nan, float("nan"), largest)
    return merged, other


@triton.jit
@no_type_check
def finish(first, second, count, REDUCE: tl.constexpr):
    """The result of a state, of `count` messages; no messages give 0, 1 (mul) or -inf."""
    value = first
    if REDUCE == "mean":
        value = first / tl.maximum(count, 1).to(first.dtype)
    elif REDUCE == "max":
        value = tl.where(count > 0, first, 0.0)
    elif REDUCE == "min":
        value = tl.where(count > 0, -first, 0.0)
    elif REDUCE == "logsumexp":
        value = first + tl.log(second)
    return value
