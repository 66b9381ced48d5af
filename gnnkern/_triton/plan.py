"""The plan of a matrix for Triton kernels: which pieces its long rows are cut into.

Rows of at most T edges are walked whole, several to a program. A longer row is cut into chunks of T
edges from its own begin on, each walked by a program, whose partial results a second kernel folds
in order. The plan lists the chunks. It is made on the device by one kernel without a scan, and its
length follows from the number of edges alone, so that nothing is copied to the host: every block of
T edge positions holds at most one chunk of a row that began earlier, and one of a row that begins
in it, and each has a slot of its own.

    plan [1 + num_chunks, 4], in the type of indptr
        row 0   T, the distance between the slots of a row's chunks, 0, 0
        others  row, begin, end, slot of the row's first chunk; an empty slot: -1, 0, 0, 0
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl
from torch import Tensor

from gnnkern import _walk
from gnnkern._triton import configs
from gnnkern._triton.launch import run

__all__ = ["make_plan", "plan_shape", "row_part", "slot_of_part"]

# Blocks of edges to a program of the plan kernel.
_BLOCKS = 128


@triton.jit
@no_type_check
def _row_at(indptr_ptr, position, num_rows, num_halvings):
    """The row that the edge at a position belongs to: the last one that begins at or before it."""
    low = tl.zeros_like(position)
    high = low + num_rows
    for _ in range(num_halvings):
        middle = (low + high) // 2
        before = tl.load(indptr_ptr + middle) <= position
        low = tl.where(before, middle, low)
        high = tl.where(before, high, middle)
    return low


@triton.jit
@no_type_check
def _store_record(plan_ptr, slot, in_plan, is_chunk, row, begin, end, first):
    record_ptr = plan_ptr + 4 * (1 + slot)
    integer = plan_ptr.dtype.element_ty
    tl.store(record_ptr, tl.where(is_chunk, row, -1).to(integer), mask=in_plan)
    tl.store(record_ptr + 1, tl.where(is_chunk, begin, 0).to(integer), mask=in_plan)
    tl.store(record_ptr + 2, tl.where(is_chunk, end, 0).to(integer), mask=in_plan)
    tl.store(record_ptr + 3, tl.where(is_chunk, first, 0).to(integer), mask=in_plan)


@triton.jit(do_not_specialize=["num_rows", "num_edges", "chunk_edges", "num_halvings"])
@no_type_check
def _plan_kernel(
    plan_ptr,  # [1 + 2 * ceil(num_edges / chunk_edges), 4]
    indptr_ptr,  # [num_rows + 1]
    num_rows,
    num_edges,
    chunk_edges,
    num_halvings,
    BLOCKS: tl.constexpr,
):
    """Two slots for each block of `chunk_edges` edge positions."""
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    block_begin = block * chunk_edges
    in_plan = block_begin < num_edges
    last = tl.minimum(block_begin + chunk_edges, num_edges) - 1

    # A chunk of a long row that began before the block.
    row = _row_at(indptr_ptr, tl.minimum(block_begin, last), num_rows, num_halvings)
    row_begin = tl.load(indptr_ptr + row).to(tl.int64)
    row_end = tl.load(indptr_ptr + row + 1).to(tl.int64)
    part = tl.cdiv(block_begin - row_begin, chunk_edges)
    begin = row_begin + part * chunk_edges
    is_chunk = (row_begin < block_begin) & (row_end - row_begin > chunk_edges) & (begin < row_end)
    end = tl.minimum(begin + chunk_edges, row_end)
    first = 2 * (row_begin // chunk_edges) + 1
    _store_record(plan_ptr, 2 * block, in_plan, is_chunk, row, begin, end, first)

    # The first chunk of a long row that begins in the block: such a row goes on beyond its end.
    row = _row_at(indptr_ptr, last, num_rows, num_halvings)
    row_begin = tl.load(indptr_ptr + row).to(tl.int64)
    row_end = tl.load(indptr_ptr + row + 1).to(tl.int64)
    is_chunk = (row_begin >= block_begin) & (row_end - row_begin > chunk_edges)
    end = row_begin + chunk_edges
    first = 2 * block + 1
    _store_record(plan_ptr, first, in_plan, is_chunk, row, row_begin, end, first)

    if tl.program_id(0) == 0:
        integer = plan_ptr.dtype.element_ty
        tl.store(plan_ptr, chunk_edges.to(integer))
        tl.store(plan_ptr + 1, tl.full([], 2, integer))
        tl.store(plan_ptr + 2, tl.full([], 0, integer))
        tl.store(plan_ptr + 3, tl.full([], 0, integer))


@triton.jit
@no_type_check
def row_part(
    indptr_ptr,  # [num_rows + 1]
    plan_ptr,  # [1 + num_chunks, 4], or None: no row is long
    num_rows,
    num_edges,
    num_chunks,
    ROWS: tl.constexpr,
):
    """What this program walks: ROWS rows, or one chunk shared out to ROWS lanes.

    Returns row, begin, end, where the row begins (all int64 [ROWS]), and whether a lane has a row
    of its own. Edges of a row that is long, or that lie outside of an array because an indptr is
    not valid, are in no lane.
    """
    lane = tl.arange(0, ROWS)
    item = tl.program_id(0).to(tl.int64)
    if plan_ptr is None:
        row = item * ROWS + lane
        owns_row = row < num_rows
        begin = tl.load(indptr_ptr + row, mask=owns_row, other=0).to(tl.int64)
        end = tl.load(indptr_ptr + row + 1, mask=owns_row, other=0).to(tl.int64)
        row_begin = begin
    else:
        chunk_edges = tl.load(plan_ptr).to(tl.int64)
        if item < num_chunks:
            record_ptr = plan_ptr + 4 * (1 + item)
            # An empty slot has no edges, and stands in row 0.
            row = tl.maximum(tl.load(record_ptr).to(tl.int64), 0) + tl.zeros([ROWS], tl.int64)
            share = tl.cdiv(chunk_edges, ROWS)
            begin = tl.load(record_ptr + 1).to(tl.int64) + lane * share
            end = tl.minimum(begin + share, tl.load(record_ptr + 2).to(tl.int64))
            row_begin = tl.load(indptr_ptr + row).to(tl.int64)
            owns_row = lane < 0
        else:
            row = (item - num_chunks) * ROWS + lane
            in_rows = row < num_rows
            begin = tl.load(indptr_ptr + row, mask=in_rows, other=0).to(tl.int64)
            end = tl.load(indptr_ptr + row + 1, mask=in_rows, other=0).to(tl.int64)
            row_begin = begin
            owns_row = in_rows & (end - begin <= chunk_edges)
            end = tl.where(owns_row, end, begin)
    return row, tl.maximum(begin, 0), tl.minimum(end, num_edges), row_begin, owns_row


@triton.jit
@no_type_check
def slot_of_part(plan_ptr, first, part):
    """The slot of a row's part-th chunk, given that of its first."""
    distance = tl.load(plan_ptr + 1).to(tl.int64)
    return first + distance * part - tl.where(part > 0, distance - 1, 0)


def plan_shape(num_rows: int, num_edges: int, chunk_edges: int | None = None) -> tuple[int, int]:
    """The shape of a plan before empty slots are dropped; [0, 4] where no row can be long."""
    return _walk.plan_shape(
        num_rows, num_edges, chunk_edges or configs.chunk_edges(num_rows, num_edges)
    )


def make_plan(indptr: Tensor, num_edges: int, chunk_edges: int | None = None) -> Tensor:
    """The plan of `indptr` [num_rows + 1], on its device; None: T is that of `configs`."""
    num_rows = indptr.shape[0] - 1
    chunk_edges = chunk_edges or configs.chunk_edges(num_rows, num_edges)
    plan = indptr.new_empty(plan_shape(num_rows, num_edges, chunk_edges))
    if plan.shape[0]:
        run(
            _plan_kernel,
            (triton.cdiv(triton.cdiv(num_edges, chunk_edges), _BLOCKS),),
            indptr.device,
            plan,
            indptr,
            num_rows,
            num_edges,
            chunk_edges,
            num_rows.bit_length(),
            BLOCKS=_BLOCKS,
        )
    return plan
