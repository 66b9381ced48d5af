"""One result per edge, from rows of its ends or its own: dot products, arithmetic, copies."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from gnnkern._edge_loops import EdgeLoop, Operand
from gnnkern._native import rows_of
from gnnkern._triton.configs import Tiles, tiles_for
from gnnkern._triton.launch import (
    accumulator,
    alignment,
    argument_mask,
    run,
    segments_walk,
    walk_of,
)
from gnnkern._triton.plan import row_part
from gnnkern._triton.row_reduce import combine
from gnnkern._walk import Walk

__all__ = ["LOOP", "combine_rows", "on_edges", "repeat_rows", "sddmm_rows"]


@triton.jit
@no_type_check
def _load_operand(
    x_ptr,
    columns_ptr,  # [columns of a message] or None
    row,  # [ROWS]
    source,  # [ROWS, EDGES]
    edge,  # [ROWS, EDGES]
    column,  # [OUTPUTS, COLUMNS]
    in_width,  # [OUTPUTS, COLUMNS]
    has_edge,  # [ROWS]
    passes,  # [ROWS, EDGES, OUTPUTS, COLUMNS]
    row_stride,
    AT: tl.constexpr,
):
    """[ROWS, EDGES, OUTPUTS, COLUMNS]; what lies at the destination is read once for its edges."""
    if columns_ptr is not None:
        column = tl.load(columns_ptr + column, mask=in_width, other=0)
    if AT == "dst":
        # A lane without an edge may have no row either.
        offset = row[:, None, None] * row_stride + column[None, :, :]
        mask = has_edge[:, None, None] & in_width[None, :, :]
        value = tl.load(x_ptr + offset, mask=mask, other=0)[:, None, :, :]
    elif AT == "src":
        offset = source[:, :, None, None] * row_stride + column[None, None, :, :]
        value = tl.load(x_ptr + offset, mask=passes, other=0)
    else:
        offset = edge[:, :, None, None] * row_stride + column[None, None, :, :]
        value = tl.load(x_ptr + offset, mask=passes, other=0)
    return value


@triton.jit
@no_type_check
def _edge_values(
    lhs_ptr,
    rhs_ptr,
    winner_ptr,
    lhs_columns_ptr,
    rhs_columns_ptr,
    row,  # [ROWS]
    source,  # [ROWS, EDGES]
    edge,  # [ROWS, EDGES]
    rank,  # [ROWS, EDGES] position of an edge in its row
    in_row,  # [ROWS, EDGES]
    column,  # [OUTPUTS, COLUMNS]
    in_width,  # [OUTPUTS, COLUMNS]
    lhs_row_stride,
    rhs_row_stride,
    width,
    OP: tl.constexpr,
    LHS_AT: tl.constexpr,
    RHS_AT: tl.constexpr,
    WINNER_MASK: tl.constexpr,
    ACC: tl.constexpr,
):
    """[ROWS, EDGES, OUTPUTS, COLUMNS]: what the operands of edges make in these columns."""
    has_edge = tl.max(in_row.to(tl.int32), 1) > 0
    passes = in_row[:, :, None, None] & in_width[None, None, :, :]
    if winner_ptr is not None:
        winner_column = column
        if lhs_columns_ptr is not None:
            winner_column = tl.load(lhs_columns_ptr + column, mask=in_width, other=0)
        offset = row[:, None, None] * width + winner_column[None, :, :]
        mask = has_edge[:, None, None] & in_width[None, :, :]
        winner = tl.load(winner_ptr + offset, mask=mask, other=0).to(tl.int32) & WINNER_MASK
        passes = passes & (winner[:, None, :, :] == rank[:, :, None, None])
    value = _load_operand(
        lhs_ptr,
        lhs_columns_ptr,
        row,
        source,
        edge,
        column,
        in_width,
        has_edge,
        passes,
        lhs_row_stride,
        LHS_AT,
    ).to(ACC)
    if rhs_ptr is not None:
        rhs = _load_operand(
            rhs_ptr,
            rhs_columns_ptr,
            row,
            source,
            edge,
            column,
            in_width,
            has_edge,
            passes,
            rhs_row_stride,
            RHS_AT,
        ).to(ACC)
        value = combine(value, rhs, OP)
    return tl.where(passes, value, 0.0)


@triton.jit(do_not_specialize=["num_rows", "num_edges", "num_chunks"])
@no_type_check
def _edge_kernel(
    out_ptr,  # [E, out_width]
    lhs_ptr,  # rows lhs_row_stride apart
    rhs_ptr,  # rows rhs_row_stride apart, or None: copies of lhs
    winner_ptr,  # [num_rows, width] the edge of a row that may pass, or None: every edge passes
    indptr_ptr,  # [num_rows + 1]
    indices_ptr,  # [E] or None
    edge_id_ptr,  # [E] or None
    plan_ptr,  # [1 + num_chunks, 4] or None
    lhs_columns_ptr,  # [width] or None
    rhs_columns_ptr,  # [width] or None
    num_rows,
    num_edges,
    num_chunks,
    lhs_row_stride,  # in units of VEC
    rhs_row_stride,  # in units of VEC
    out_width,  # in units of VEC, unless SUMS
    group,  # columns summed into one of out, where SUMS; in units of VEC
    OP: tl.constexpr,
    LHS_AT: tl.constexpr,
    RHS_AT: tl.constexpr,
    SUMS: tl.constexpr,
    WINNER_MASK: tl.constexpr,
    ACC: tl.constexpr,
    VEC: tl.constexpr,
    ROWS: tl.constexpr,
    EDGES: tl.constexpr,
    OUTPUTS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    # Where am I
    lhs_row_stride = lhs_row_stride * VEC
    rhs_row_stride = rhs_row_stride * VEC
    row, begin, end, row_begin, _ = row_part(
        indptr_ptr, plan_ptr, num_rows, num_edges, num_chunks, ROWS
    )
    if SUMS:
        group = group * VEC
        output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)  # [OUTPUTS]
        in_outputs = output < out_width
        width = out_width * group
    else:
        width = out_width * VEC
        column = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS))[None, :]  # [1, COLUMNS]
        in_width = column < width

    longest = tl.max(end - begin).to(tl.int32)
    for done in range(0, longest, EDGES):
        position = begin[:, None] + (done + tl.arange(0, EDGES))[None, :]  # [ROWS, EDGES]
        in_row = position < end[:, None]
        rank = (position - row_begin[:, None]).to(tl.int32)
        source = position
        if indices_ptr is not None and (LHS_AT == "src" or RHS_AT == "src"):
            source = tl.load(indices_ptr + position, mask=in_row, other=0).to(tl.int64)
        edge = position
        if edge_id_ptr is not None:
            edge = tl.load(edge_id_ptr + position, mask=in_row, other=0).to(tl.int64)

        if SUMS:
            total = tl.zeros([ROWS, EDGES, OUTPUTS, COLUMNS], ACC)
            for start in range(0, group, COLUMNS):
                inner = start + tl.arange(0, COLUMNS)
                summed = output[:, None] * group + inner[None, :]  # [OUTPUTS, COLUMNS]
                in_groups = in_outputs[:, None] & (inner < group)[None, :]
                total += _edge_values(
                    lhs_ptr,
                    rhs_ptr,
                    winner_ptr,
                    lhs_columns_ptr,
                    rhs_columns_ptr,
                    row,
                    source,
                    edge,
                    rank,
                    in_row,
                    summed,
                    in_groups,
                    lhs_row_stride,
                    rhs_row_stride,
                    width,
                    OP,
                    LHS_AT,
                    RHS_AT,
                    WINNER_MASK,
                    ACC,
                )
            result = tl.sum(total, 3)  # [ROWS, EDGES, OUTPUTS]
            offset = edge[:, :, None] * out_width + output[None, None, :]
            mask = in_row[:, :, None] & in_outputs[None, None, :]
            tl.store(out_ptr + offset, result.to(out_ptr.dtype.element_ty), mask=mask)
        else:
            result = _edge_values(
                lhs_ptr,
                rhs_ptr,
                winner_ptr,
                lhs_columns_ptr,
                rhs_columns_ptr,
                row,
                source,
                edge,
                rank,
                in_row,
                column,
                in_width,
                lhs_row_stride,
                rhs_row_stride,
                width,
                OP,
                LHS_AT,
                RHS_AT,
                WINNER_MASK,
                ACC,
            )  # [ROWS, EDGES, 1, COLUMNS]
            offset = edge[:, :, None, None] * width + column[None, None, :, :]
            mask = in_row[:, :, None, None] & in_width[None, None, :, :]
            tl.store(out_ptr + offset, result.to(out_ptr.dtype.element_ty), mask=mask)


# -- launchers -------------------------------------------------------------------------------------


def on_edges(
    walk: Walk,
    lhs: Operand,
    rhs: Operand,
    op: str,
    out: Tensor,  # [E, ...]
    group: int,
    winner: Tensor | None = None,  # [num_rows, ...]
    tiles: Tiles | None = None,
) -> Tensor:
    """Fill `out`; with `group`, every column is a sum over a group of so many."""
    assert lhs.x is not None
    group = 0 if group == 1 else group
    x, x_stride, _ = rows_of(lhs.x)
    y, y_stride = None, 0
    if rhs.x is not None:
        y, y_stride, _ = rows_of(rhs.x)
    out_width = out.shape[1:].numel()
    is_double = x.dtype == torch.float64
    if tiles is None:
        width, outputs = (group, out_width) if group else (out_width, 1)
        tiles = tiles_for("edges", width, walk.degree, is_double, outputs)
    vec = alignment(x.element_size(), x_stride, y_stride, group or out_width)
    block = tiles.outputs if group else tiles.columns
    run(
        _edge_kernel,
        (walk.items(tiles.rows), -(-out_width // block)),
        x.device,
        out,
        x,
        y,
        winner,
        walk.indptr,
        walk.indices,
        walk.edge_id,
        walk.plan,
        lhs.columns,
        rhs.columns,
        walk.num_rows,
        walk.num_edges,
        walk.num_chunks,
        x_stride // vec,
        y_stride // vec,
        out_width if group else out_width // vec,
        group // vec,
        warps=tiles.warps,
        OP=op,
        LHS_AT=lhs.at,
        RHS_AT=rhs.at,
        SUMS=group > 0,
        WINNER_MASK=argument_mask(winner),
        ACC=accumulator(x.dtype),
        VEC=vec,
        ROWS=tiles.rows,
        EDGES=tiles.edges,
        OUTPUTS=tiles.outputs if group else 1,
        COLUMNS=tiles.columns,
    )
    return out


LOOP = EdgeLoop(walk_of, segments_walk, on_edges)
sddmm_rows = LOOP.sddmm_rows
combine_rows = LOOP.combine_rows
repeat_rows = LOOP.repeat_rows
