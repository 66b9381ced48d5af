"""Several reductions of the rows that a row names, from one gather."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from gnnkern._cpu.multi_reduce import kept_rows, selections
from gnnkern._native import Csr, accumulate_dtype, argument_dtype, rows_of
from gnnkern._triton.configs import Tiles, tiles_for
from gnnkern._triton.launch import Walk, accumulator, alignment, run, walk_of
from gnnkern._triton.moments import append_moments, first_message, merge_moments, start_moments
from gnnkern._triton.multi_fold import multi_fold_kernel
from gnnkern._triton.multi_rows import store_results
from gnnkern._triton.plan import row_part
from gnnkern._triton.policies import merge, start, step

__all__ = ["Kept", "multi_reduce_forward", "reduce_in_ways"]


@triton.jit(do_not_specialize=["num_rows", "num_edges", "num_chunks"])
@no_type_check
def _multi_reduce_kernel(
    out_ptr,  # [num_rows, PLACES, width]
    max_argument_ptr,  # [num_rows, width] or None
    min_argument_ptr,  # [num_rows, width] or None
    mean_ptr,  # [num_rows, ...] rows kept_row_stride apart, or None
    rest_ptr,  # likewise
    std_ptr,  # likewise
    slope_ptr,  # likewise
    total_ptr,  # [num_chunks, width] state of chunks, None where nothing needs it, as those below
    center_ptr,
    squares_ptr,
    highest_ptr,
    highest_at_ptr,
    lowest_ptr,
    lowest_at_ptr,
    x_ptr,  # [num_cols, ...] rows x_row_stride apart
    indptr_ptr,  # [num_rows + 1]
    indices_ptr,  # [E] or None
    plan_ptr,  # [1 + num_chunks, 4] or None
    num_rows,
    num_edges,
    num_chunks,
    width,  # in units of VEC, as the strides
    x_row_stride,
    kept_row_stride,
    SUM: tl.constexpr,  # the place of a result among PLACES, -1: none
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
    ROWS: tl.constexpr,
    EDGES: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    SUMS: tl.constexpr = SUM >= 0 or MEAN >= 0
    SPREADS: tl.constexpr = VAR >= 0 or STD >= 0
    # Where am I
    width = width * VEC
    x_row_stride = x_row_stride * VEC
    kept_row_stride = kept_row_stride * VEC
    row, begin, end, row_begin, owns_row = row_part(
        indptr_ptr, plan_ptr, num_rows, num_edges, num_chunks, ROWS
    )
    column = tl.program_id(1) * BLOCK_F + tl.arange(0, BLOCK_F)
    in_width = column < width

    # Load and reduce
    shift, total, center, squares = None, None, None, None
    highest, highest_at, lowest, lowest_at = None, None, None, None
    if SUMS:
        total, nothing = start(ROWS, EDGES, BLOCK_F, ACC, "sum")
    if SPREADS:
        shift = first_message(
            x_ptr, indices_ptr, row_begin, begin < end, column, in_width, x_row_stride, ACC
        )
        count, center, squares = start_moments(ROWS, EDGES, BLOCK_F, ACC)
    if MAX >= 0:
        highest, highest_at = start(ROWS, EDGES, BLOCK_F, ACC, "max")
    if MIN >= 0:
        lowest, lowest_at = start(ROWS, EDGES, BLOCK_F, ACC, "min")
    longest = tl.max(end - begin).to(tl.int32)
    for done in range(0, longest, EDGES):
        position = begin[:, None] + (done + tl.arange(0, EDGES))[None, :]  # [ROWS, EDGES]
        in_row = position < end[:, None]
        source = position
        if indices_ptr is not None:
            source = tl.load(indices_ptr + position, mask=in_row, other=0).to(tl.int64)
        valid = in_row[:, :, None] & in_width[None, None, :]  # [ROWS, EDGES, BLOCK_F]
        offset = source[:, :, None] * x_row_stride + column[None, None, :]
        value = tl.load(x_ptr + offset, mask=valid, other=0).to(ACC)
        rank = (position - row_begin[:, None]).to(tl.int32)[:, :, None]
        if SUMS:
            total += tl.where(valid, value, 0.0)
        if SPREADS:
            one = in_row[:, :, None].to(ACC)
            apart = value - shift[:, None, :]
            count, center, squares = append_moments(count, center, squares, one, apart, 0.0, valid)
        if MAX >= 0:
            highest, highest_at = step(highest, highest_at, value, rank, valid, "max", TRACKS)
        if MIN >= 0:
            lowest, lowest_at = step(lowest, lowest_at, -value, rank, valid, "min", TRACKS)
    if SUMS:
        total = tl.sum(total, 1)  # [ROWS, BLOCK_F], as all states from here on
    if SPREADS:
        count, center, squares = merge_moments(count, center, squares, 1)
    if MAX >= 0:
        highest, highest_at = merge(highest, highest_at, 1, "max", TRACKS)
    if MIN >= 0:
        lowest, lowest_at = merge(lowest, lowest_at, 1, "min", TRACKS)

    # Store
    if plan_ptr is not None:
        item = tl.program_id(0).to(tl.int64)
        if item < num_chunks:
            offset = item * width + column  # [BLOCK_F]
            if SUMS:
                tl.store(total_ptr + offset, tl.sum(total, 0), mask=in_width)
            if SPREADS:
                lanes_count, lanes_center, lanes_squares = merge_moments(count, center, squares, 0)
                tl.store(center_ptr + offset, lanes_center, mask=in_width)
                tl.store(squares_ptr + offset, lanes_squares, mask=in_width)
            if MAX >= 0:
                lanes_highest, lanes_highest_at = merge(highest, highest_at, 0, "max", TRACKS)
                tl.store(highest_ptr + offset, lanes_highest, mask=in_width)
                if TRACKS:
                    tl.store(highest_at_ptr + offset, lanes_highest_at, mask=in_width)
            if MIN >= 0:
                lanes_lowest, lanes_lowest_at = merge(lowest, lowest_at, 0, "min", TRACKS)
                tl.store(lowest_ptr + offset, lanes_lowest, mask=in_width)
                if TRACKS:
                    tl.store(lowest_at_ptr + offset, lanes_lowest_at, mask=in_width)
            return
    store_results(
        out_ptr,
        max_argument_ptr,
        min_argument_ptr,
        mean_ptr,
        rest_ptr,
        std_ptr,
        slope_ptr,
        row,
        owns_row,
        end - begin,
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


# -- launchers -------------------------------------------------------------------------------------


class Kept(NamedTuple):
    """What a gradient needs, to be filled; None: nobody asked."""

    max_argument: Tensor | None = None  # [num_rows, ...]
    min_argument: Tensor | None = None  # [num_rows, ...]
    mean: Tensor | None = None  # [num_rows, ...], as those below equally far apart
    rest: Tensor | None = None
    std: Tensor | None = None
    slope: Tensor | None = None


def _chunk_states(
    walk: Walk, width: int, reduces: Sequence[str], tracks: bool, like: Tensor
) -> tuple[Tensor | None, ...]:
    """Memory for the states of chunks, as the kernels write them: total, center, ..., lowest_at."""
    asked = set(reduces) if walk.plan is not None else set()

    def memory(wanted: bool, dtype: torch.dtype) -> Tensor | None:
        return like.new_empty((walk.num_chunks, width), dtype=dtype) if wanted else None

    real = accumulate_dtype(like.dtype)
    spreads = bool(asked & {"var", "std"})
    return (
        memory(bool(asked & {"sum", "mean"}), real),
        memory(spreads, real),
        memory(spreads, real),
        memory("max" in asked, real),
        memory("max" in asked and tracks, torch.int32),
        memory("min" in asked, real),
        memory("min" in asked and tracks, torch.int32),
    )


def reduce_in_ways(
    walk: Walk,
    x: Tensor,
    reduces: Sequence[str],
    out: Tensor,  # [num_rows, R, ...], or [num_rows, ...] of one reduction
    kept: Kept,
    unbiased: bool = False,
    tiles: Tiles | None = None,
) -> None:
    """Fill `out`, which is not empty, and `kept`; `tiles` takes the place of the rule."""
    x, x_stride, width = rows_of(x)
    tracks = kept.max_argument is not None or kept.min_argument is not None
    is_double = x.dtype == torch.float64
    tiles = tiles or tiles_for("multi", width, walk.degree, is_double)
    statistics = next((rows for rows in kept[2:] if rows is not None), None)
    kept_stride = width if statistics is None else statistics.stride(0)
    vec = alignment(x.element_size(), width, x_stride, kept_stride)
    places = {kind.upper(): -1 for kind in ("sum", "mean", "max", "min", "var", "std")}
    places |= {kind.upper(): place for place, kind in enumerate(reduces)}
    states = _chunk_states(walk, width, reduces, tracks, x)
    fold_tiles = tiles_for("multi", width, 0.0, is_double, edges_at_once=8)._replace(rows=1)
    for kernel, items, shape in (
        (_multi_reduce_kernel, walk.items(tiles.rows), tiles),
        (multi_fold_kernel, walk.num_chunks, fold_tiles),
    ):
        run(
            kernel,
            (items, -(-width // shape.columns)),
            x.device,
            out,
            *kept,
            *states,
            x,
            walk.indptr,
            walk.indices,
            walk.plan,
            walk.num_rows,
            walk.num_edges,
            walk.num_chunks,
            width // vec,
            x_stride // vec,
            kept_stride // vec,
            warps=shape.warps,
            **places,
            PLACES=len(reduces),
            UNBIASED=unbiased,
            TRACKS=tracks,
            ACC=accumulator(x.dtype),
            VEC=vec,
            ROWS=shape.rows,
            EDGES=shape.edges,
            BLOCK_F=shape.columns,
        )


def multi_reduce_forward(
    csr: Csr,
    x: Tensor,  # [num_cols, ...]
    reduces: Sequence[str],
    max_degree: int,
    save: bool,
    tiles: Tiles | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The result [num_rows, R, ...], the winners [K, num_rows, ...], `kept_rows` [S, ...]."""
    num_rows = csr.indptr.shape[0] - 1
    out = x.new_empty((num_rows, len(reduces), *x.shape[1:]))
    selected = selections(reduces) if save else []
    kept = kept_rows(reduces, x.dtype) if save else ()
    rows = (num_rows, *x.shape[1:])
    winners = x.new_empty((len(selected), *rows), dtype=argument_dtype(max_degree))
    saved = x.new_empty((len(kept), *rows), dtype=accumulate_dtype(x.dtype))
    if out.numel():
        arguments = {f"{kind}_argument": to for kind, to in zip(selected, winners, strict=True)}
        statistics = dict(zip(kept, saved, strict=True))
        reduce_in_ways(walk_of(csr), x, reduces, out, Kept(**arguments, **statistics), tiles=tiles)
    return out, winners, saved
