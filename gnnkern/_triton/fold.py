"""Long rows: the states of their chunks, and how they become one, in the order of the chunks."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from gnnkern._triton.configs import tiles_for
from gnnkern._triton.launch import accumulator, alignment, run
from gnnkern._triton.plan import slot_of_part
from gnnkern._triton.policies import NOWHERE, finish, merge, start, step
from gnnkern._walk import Walk

__all__ = ["fold", "long_row", "store_rows"]


@triton.jit
@no_type_check
def store_rows(
    out_ptr,  # [num_rows, width]
    argument_ptr,  # [num_rows, width], of logsumexp [num_rows, 2, width] statistics, or None
    row,  # [ROWS]
    owns_row,  # [ROWS]
    count,  # [ROWS]
    first,  # [ROWS, BLOCK_F]
    second,  # [ROWS, BLOCK_F]
    column,  # [BLOCK_F]
    width,
    REDUCE: tl.constexpr,
):
    """The results of rows, and where they were found, or what a gradient is made of."""
    value = finish(first, second, count[:, None], REDUCE)
    offset = row[:, None] * width + column[None, :]
    mask = owns_row[:, None] & (column < width)[None, :]
    tl.store(out_ptr + offset, value.to(out_ptr.dtype.element_ty), mask=mask)
    if argument_ptr is not None:
        if REDUCE == "logsumexp":
            # Where all are -inf, the shift is not: their distance from it is, and never NaN.
            shift = tl.where(first == float("-inf"), 0.0, first)
            slope = tl.where(second == 0, 0.0, 1 / second)
            offset += row[:, None] * width
            tl.store(argument_ptr + offset, shift, mask=mask)
            tl.store(argument_ptr + offset + width, slope, mask=mask)
        else:
            position = tl.where(second == NOWHERE, -1, second)
            tl.store(argument_ptr + offset, position.to(argument_ptr.dtype.element_ty), mask=mask)


@triton.jit
@no_type_check
def long_row(
    indptr_ptr,  # [num_rows + 1]
    plan_ptr,  # [1 + num_chunks, 4]
    slot,
):
    """The row whose first chunk is in a slot, its edges and its chunks; 0 chunks: there is none."""
    record_ptr = plan_ptr + 4 * (1 + slot)
    row = tl.load(record_ptr).to(tl.int64)
    begins = (row >= 0) & (tl.load(record_ptr + 3).to(tl.int64) == slot)
    row = tl.maximum(row, 0)
    count = tl.load(indptr_ptr + row + 1).to(tl.int64) - tl.load(indptr_ptr + row).to(tl.int64)
    num_parts = tl.cdiv(count, tl.load(plan_ptr).to(tl.int64)).to(tl.int32)
    return row, count, tl.where(begins, num_parts, 0)


@triton.jit
@no_type_check
def _fold_kernel(
    out_ptr,  # [num_rows, width], or None: the state goes to the slot of the row's first chunk
    argument_ptr,  # as that of `store_rows`
    first_ptr,  # [num_chunks, width] states of chunks
    second_ptr,  # [num_chunks, width] or None
    indptr_ptr,  # [num_rows + 1]
    plan_ptr,  # [1 + num_chunks, 4]
    width,  # in units of VEC
    REDUCE: tl.constexpr,
    TRACKS: tl.constexpr,
    ACC: tl.constexpr,
    VEC: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    # Where am I: every row is folded by the program of its first chunk.
    width = width * VEC
    slot = tl.program_id(0).to(tl.int64)
    row, count, num_parts = long_row(indptr_ptr, plan_ptr, slot)
    if num_parts == 0:
        return
    column = tl.program_id(1) * BLOCK_F + tl.arange(0, BLOCK_F)
    in_width = column < width

    # Load and fold, in the order of the chunks
    first, second = start(1, PARTS, BLOCK_F, ACC, REDUCE)
    for done in range(0, num_parts, PARTS):
        part = done + tl.arange(0, PARTS)
        part_slot = slot_of_part(plan_ptr, slot, part.to(tl.int64))
        offset = part_slot[None, :, None] * width + column[None, None, :]
        valid = (part < num_parts)[None, :, None] & in_width[None, None, :]
        value = tl.load(first_ptr + offset, mask=valid, other=0)
        other = tl.full([1, 1, 1], 0, second.dtype)
        if second_ptr is not None:
            other = tl.load(second_ptr + offset, mask=valid, other=0)
        first, second = step(first, second, value, other, valid, REDUCE, TRACKS)
    first, second = merge(first, second, 1, REDUCE, TRACKS)  # [1, BLOCK_F]

    # Store
    if out_ptr is None:
        offset = slot * width + column[None, :]
        tl.store(first_ptr + offset, first, mask=in_width[None, :])
        if second_ptr is not None:
            tl.store(second_ptr + offset, second, mask=in_width[None, :])
    else:
        lane = tl.arange(0, 1)
        store_rows(
            out_ptr,
            argument_ptr,
            row + lane,
            lane == 0,
            count + lane,
            first,
            second,
            column,
            width,
            REDUCE,
        )


def fold(
    walk: Walk,
    first: Tensor | None,  # [num_chunks, width]
    second: Tensor | None,
    out: Tensor | None,
    argument: Tensor | None,
    reduce: str,
) -> None:
    """Fold the chunks of every long row, into its row of `out` or into its first chunk."""
    if walk.plan is None or first is None:
        return
    width = first.shape[1]
    is_double = first.dtype == torch.float64
    tiles = tiles_for("fold", width, 0.0, is_double, edges_at_once=16)
    vec = alignment(4, width)
    run(
        _fold_kernel,
        (walk.num_chunks, -(-width // tiles.columns)),
        first.device,
        out,
        argument,
        first,
        second,
        walk.indptr,
        walk.plan,
        width // vec,
        warps=tiles.warps,
        REDUCE=reduce,
        TRACKS=reduce in ("max", "min") and second is not None,
        ACC=accumulator(first.dtype),
        VEC=vec,
        PARTS=tiles.edges,
        BLOCK_F=tiles.columns,
    )
