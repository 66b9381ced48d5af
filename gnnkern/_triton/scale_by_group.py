"""Rows shifted and scaled by what their group says: gradients of what a group has in common."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from gnnkern._native import rows_of
from gnnkern._triton.configs import Tiles, tiles_for
from gnnkern._triton.launch import accumulator, alignment, run, segments_walk
from gnnkern._triton.plan import row_part

__all__ = ["scale_by_group"]


@triton.jit
@no_type_check
def _load_group(
    statistics_ptr,  # [num_groups, 2 or 3, width]
    scale_ptr,  # [num_groups, width]
    group,  # [ROWS, EDGES or 1]
    in_rows,  # [ROWS, EDGES or 1]
    column,  # [BLOCK_F]
    width,
    EXPONENTIAL: tl.constexpr,
):
    """The shift, what it lacks, and the scale of groups, [ROWS, EDGES or 1, BLOCK_F] each."""
    PARTS: tl.constexpr = 2 if EXPONENTIAL else 3
    valid = in_rows[:, :, None] & (column < width)[None, None, :]
    offset = group[:, :, None] * width + column[None, None, :]
    scale = tl.load(scale_ptr + offset, mask=valid, other=0)
    offset = group[:, :, None] * (PARTS * width) + column[None, None, :]
    shift = tl.load(statistics_ptr + offset, mask=valid, other=0)
    rest = shift
    if not EXPONENTIAL:
        rest = tl.load(statistics_ptr + offset + width, mask=valid, other=0)
    return shift, rest, scale


@triton.jit(do_not_specialize=["num_rows", "num_edges", "num_chunks"])
@no_type_check
def _scale_kernel(
    out_ptr,  # [E, width]
    x_ptr,  # [E, ...] rows x_row_stride apart
    statistics_ptr,  # [num_groups, 2 or 3, width]: the shift, in one part or two, and the slope
    scale_ptr,  # [num_groups, width]
    index_ptr,  # [E] group of each row, or None: groups are consecutive rows
    indptr_ptr,  # [num_groups + 1] without an index
    plan_ptr,  # [1 + num_chunks, 4] or None
    num_rows,
    num_edges,
    num_chunks,
    width,  # in units of VEC, as the stride
    x_row_stride,
    EXPONENTIAL: tl.constexpr,
    ACC: tl.constexpr,
    VEC: tl.constexpr,
    ROWS: tl.constexpr,
    EDGES: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    # Where am I
    width = width * VEC
    x_row_stride = x_row_stride * VEC
    column = tl.program_id(1) * BLOCK_F + tl.arange(0, BLOCK_F)
    in_width = column < width
    if index_ptr is None:
        row, begin, end, _, _ = row_part(
            indptr_ptr, plan_ptr, num_rows, num_edges, num_chunks, ROWS
        )
        # What the edges of a row share is read once. A lane without an edge may have no row.
        shift, rest, scale = _load_group(
            statistics_ptr,
            scale_ptr,
            row[:, None],
            (begin < end)[:, None],
            column,
            width,
            EXPONENTIAL,
        )
    else:
        begin = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)) * EDGES
        end = tl.minimum(begin + EDGES, num_edges)

    # Load, compute and store
    longest = tl.max(end - begin).to(tl.int32)
    for done in range(0, longest, EDGES):
        edge = begin[:, None] + (done + tl.arange(0, EDGES))[None, :]  # [ROWS, EDGES]
        in_row = edge < end[:, None]
        if index_ptr is not None:
            group = tl.load(index_ptr + edge, mask=in_row, other=0).to(tl.int64)
            shift, rest, scale = _load_group(
                statistics_ptr, scale_ptr, group, in_row, column, width, EXPONENTIAL
            )
        valid = in_row[:, :, None] & in_width[None, None, :]  # [ROWS, EDGES, BLOCK_F]
        offset = edge[:, :, None] * x_row_stride + column[None, None, :]
        value = tl.load(x_ptr + offset, mask=valid, other=0).to(ACC) - shift
        if EXPONENTIAL:
            value = tl.exp(value)
        else:
            value -= rest
        offset = edge[:, :, None] * width + column[None, None, :]
        tl.store(out_ptr + offset, (value * scale).to(out_ptr.dtype.element_ty), mask=valid)


# -- launcher --------------------------------------------------------------------------------------


def scale_by_group(
    x: Tensor,  # [E, ...]
    group: Tensor,  # [E], or [num_groups + 1] boundaries
    by_boundaries: bool,
    statistics: Tensor,  # [num_groups, 2 or 3, ...]: the shift, in one part or two, and the slope
    grad: Tensor,  # [num_groups, ...]
    exponential: bool,
    tiles: Tiles | None = None,
) -> Tensor:  # [E, ...]
    """(x - shift) * slope * grad of each row's group, or exp(x - shift) in place of x - shift."""
    out = x.new_empty(x.shape)
    if out.numel() == 0:
        return out
    x, x_stride, width = rows_of(x)
    group = group.contiguous()
    scale = (statistics[:, -1] * grad.to(statistics.dtype)).contiguous()
    num_groups, num_edges = statistics.shape[0], x.shape[0]
    is_double = x.dtype == torch.float64
    tiles = tiles or tiles_for("edges", width, num_edges / max(num_groups, 1), is_double)
    walk = segments_walk(group, num_edges) if by_boundaries else None
    items = -(-num_edges // (tiles.rows * tiles.edges)) if walk is None else walk.items(tiles.rows)
    vec = alignment(x.element_size(), width, x_stride)
    run(
        _scale_kernel,
        (items, -(-width // tiles.columns)),
        x.device,
        out,
        x,
        statistics,
        scale,
        None if by_boundaries else group,
        group if by_boundaries else None,
        None if walk is None else walk.plan,
        num_groups,
        num_edges,
        0 if walk is None else walk.num_chunks,
        width // vec,
        x_stride // vec,
        warps=tiles.warps,
        EXPONENTIAL=exponential,
        ACC=accumulator(x.dtype),
        VEC=vec,
        ROWS=tiles.rows,
        EDGES=tiles.edges,
        BLOCK_F=tiles.columns,
    )
    return out
