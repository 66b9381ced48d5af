"""Rows times the matrix of their segment, and sums of outer products over segments.

The list of tiles is a plan (`plan.py`) whose chunks are as long as a tile: a program takes a chunk
of a long segment, or a short segment whole. It is made on the device; programs of empty slots
return. Sums over a segment are those of its chunks, folded in order.
"""

from __future__ import annotations

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from gnnkern._edge_loops import chunk_states
from gnnkern._native import rows_of
from gnnkern._triton import INTERPRETS
from gnnkern._triton.configs import Tiles, dot_tiles_for, outer_rows
from gnnkern._triton.fold import fold
from gnnkern._triton.launch import accumulator, alignment, run, segments_walk
from gnnkern._triton.plan import row_part

__all__ = ["multiply_segments", "sum_outer_products"]


@triton.jit(do_not_specialize=["num_rows", "num_edges", "num_chunks"])
@no_type_check
def _multiply_kernel(
    out_ptr,  # [E, out_width]
    x_ptr,  # [E, ...] rows x_row_stride apart
    weight_ptr,  # [num_rows, width, out_width], by the strides below
    bias_ptr,  # [num_rows, out_width] or None
    indptr_ptr,  # [num_rows + 1]
    order_ptr,  # [E] the rows of x in the order of segments, or None: their own
    plan_ptr,  # [1 + num_chunks, 4] or None
    num_rows,
    num_edges,
    num_chunks,
    width,  # in units of VEC, as the stride of x
    x_row_stride,
    out_width,
    weight_stride,
    weight_row_stride,
    weight_column_stride,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
    ACC: tl.constexpr,
    VEC: tl.constexpr,
    ROWS: tl.constexpr,
    INNER: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    # Where am I
    width = width * VEC
    x_row_stride = x_row_stride * VEC
    segment, begin, end, _, _ = row_part(
        indptr_ptr, plan_ptr, num_rows, num_edges, num_chunks, 1
    )  # [1]
    if tl.max(end - begin) <= 0:
        return
    position = begin + tl.arange(0, ROWS)  # [ROWS]
    in_rows = position < end
    row = position
    if order_ptr is not None:
        row = tl.load(order_ptr + position, mask=in_rows, other=0).to(tl.int64)
    column = tl.program_id(1).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    in_columns = column < out_width
    matrix = segment[:, None] * weight_stride + column[None, :] * weight_column_stride

    # Load and multiply
    total = tl.zeros([ROWS, COLUMNS], ACC)
    for start in range(0, width, INNER):
        inner = start + tl.arange(0, INNER)
        in_width = inner < width
        offset = row[:, None] * x_row_stride + inner[None, :]
        mask = in_rows[:, None] & in_width[None, :]
        x_tile = tl.load(x_ptr + offset, mask=mask, other=0).to(OPERAND)
        offset = matrix + inner.to(tl.int64)[:, None] * weight_row_stride
        mask = in_width[:, None] & in_columns[None, :]
        weight_tile = tl.load(weight_ptr + offset, mask=mask, other=0).to(OPERAND)
        total = tl.dot(x_tile, weight_tile, total, input_precision=PRECISION, out_dtype=ACC)

    # Store
    if bias_ptr is not None:
        offset = segment[:, None] * out_width + column[None, :]
        total += tl.load(bias_ptr + offset, mask=in_columns[None, :], other=0).to(ACC)
    offset = row[:, None] * out_width + column[None, :]
    mask = in_rows[:, None] & in_columns[None, :]
    tl.store(out_ptr + offset, total.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["num_rows", "num_edges", "num_chunks"])
@no_type_check
def _outer_kernel(
    out_ptr,  # [num_rows, width, out_width]
    first_ptr,  # [num_chunks, width * out_width] sums of chunks
    x_ptr,  # [E, ...] rows x_row_stride apart
    y_ptr,  # [E, ...] rows y_row_stride apart
    indptr_ptr,  # [num_rows + 1]
    order_ptr,  # [E] or None
    plan_ptr,  # [1 + num_chunks, 4] or None
    num_rows,
    num_edges,
    num_chunks,
    width,  # in units of VEC, as its stride
    x_row_stride,
    out_width,  # in units of VEC, as its stride
    y_row_stride,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
    ACC: tl.constexpr,
    VEC: tl.constexpr,
    ROWS: tl.constexpr,  # of a sum: columns of x
    INNER: tl.constexpr,  # rows of x and y in one step
    COLUMNS: tl.constexpr,
):
    # Where am I
    width = width * VEC
    x_row_stride = x_row_stride * VEC
    out_width = out_width * VEC
    y_row_stride = y_row_stride * VEC
    segment, begin, end, _, owns_row = row_part(
        indptr_ptr, plan_ptr, num_rows, num_edges, num_chunks, 1
    )  # [1]
    item = tl.program_id(0).to(tl.int64)
    length = tl.max(end - begin).to(tl.int32)
    if (item < num_chunks) & (length <= 0):
        return
    column_tiles = tl.cdiv(out_width, COLUMNS)
    x_column = tl.program_id(1) // column_tiles * ROWS + tl.arange(0, ROWS)
    y_column = tl.program_id(1) % column_tiles * COLUMNS + tl.arange(0, COLUMNS)

    # Load and sum
    total = tl.zeros([ROWS, COLUMNS], ACC)
    for done in range(0, length, INNER):
        position = begin + (done + tl.arange(0, INNER))  # [INNER]
        in_part = position < end
        row = position
        if order_ptr is not None:
            row = tl.load(order_ptr + position, mask=in_part, other=0).to(tl.int64)
        offset = row[:, None] * x_row_stride + x_column[None, :]
        mask = in_part[:, None] & (x_column < width)[None, :]
        x_tile = tl.load(x_ptr + offset, mask=mask, other=0).to(OPERAND)
        offset = row[:, None] * y_row_stride + y_column[None, :]
        mask = in_part[:, None] & (y_column < out_width)[None, :]
        y_tile = tl.load(y_ptr + offset, mask=mask, other=0).to(OPERAND)
        total = tl.dot(tl.trans(x_tile), y_tile, total, input_precision=PRECISION, out_dtype=ACC)

    # Store
    offset = x_column.to(tl.int64)[:, None] * out_width + y_column[None, :]
    mask = (x_column < width)[:, None] & (y_column < out_width)[None, :]
    size = width.to(tl.int64) * out_width
    if plan_ptr is not None:
        chunk_ptr = first_ptr + item * size
        if item < num_chunks:
            tl.store(chunk_ptr + offset, total, mask=mask)
            return
    mask = mask & owns_row[:, None]
    tl.store(
        out_ptr + segment[:, None] * size + offset, total.to(out_ptr.dtype.element_ty), mask=mask
    )


# -- launchers -------------------------------------------------------------------------------------


def _precision(dtype: torch.dtype) -> str:
    """How float32 is multiplied: as torch's own products are."""
    if dtype != torch.float32:
        return "ieee"
    matmul = torch.backends.cuda.matmul
    allowed = getattr(matmul, "fp32_precision", None)
    uses_tf32 = matmul.allow_tf32 if allowed is None else allowed == "tf32"
    return "tf32" if uses_tf32 else "ieee"


def _types(dtype: torch.dtype) -> dict[str, Any]:
    """The types of a product; the interpreter has no products of halves."""
    native = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
    wide = accumulator(dtype)
    operand = wide if INTERPRETS else native.get(dtype, wide)
    return {"PRECISION": _precision(dtype), "OPERAND": operand, "ACC": wide}


def multiply_segments(
    x: Tensor,  # [E, K]
    indptr: Tensor,  # [R + 1]
    order: Tensor | None,  # [E]
    weight: Tensor,  # [R, K, M], any strides
    bias: Tensor | None,  # [R, M]
    tiles: Tiles | None = None,
) -> Tensor:  # [E, M]
    """out[i] = x[i] @ weight[r] + bias[r] for the positions i = order[e] of segment r.

    `tiles` takes the place of the rule of `configs`.
    """
    (num_edges, width), (num_segments, _, out_width) = x.shape, weight.shape
    out = x.new_empty((num_edges, out_width))
    if out.numel() == 0:
        return out
    x, x_stride, _ = rows_of(x)
    is_double = x.dtype == torch.float64
    if tiles is None:
        rows = num_edges // max(num_segments, 1)
        tiles = dot_tiles_for("matmul", rows, width, out_width, is_double)
    walk = segments_walk(indptr, num_edges, tiles.rows)
    vec = alignment(x.element_size(), width, x_stride)
    run(
        _multiply_kernel,
        (walk.items(1), -(-out_width // tiles.columns)),
        x.device,
        out,
        x,
        weight,
        None if bias is None else bias.contiguous(),
        walk.indptr,
        None if order is None else order.contiguous(),
        walk.plan,
        walk.num_rows,
        walk.num_edges,
        walk.num_chunks,
        width // vec,
        x_stride // vec,
        out_width,
        *weight.stride(),
        warps=tiles.warps,
        **_types(x.dtype),
        VEC=vec,
        ROWS=tiles.rows,
        INNER=tiles.edges,
        COLUMNS=tiles.columns,
    )
    return out


def sum_outer_products(
    x: Tensor,  # [E, K]
    y: Tensor,  # [E, M]
    indptr: Tensor,  # [R + 1]
    order: Tensor | None,  # [E]
    tiles: Tiles | None = None,
) -> Tensor:  # [R, K, M]
    """out[r] = the sum of x[i]^T y[i] over the positions i = order[e] of segment r."""
    (num_edges, width), out_width = x.shape, y.shape[1]
    out = x.new_empty((indptr.shape[0] - 1, width, out_width))
    if num_edges == 0 or out.numel() == 0:
        return out.zero_()
    x, x_stride, _ = rows_of(x)
    y, y_stride, _ = rows_of(y)
    is_double = x.dtype == torch.float64
    tiles = tiles or dot_tiles_for("outer", width, num_edges, out_width, is_double)
    walk = segments_walk(indptr, num_edges, outer_rows(num_edges, width, out_width))
    first, _ = chunk_states(walk, width * out_width, "sum", False, x)
    vec = alignment(x.element_size(), width, x_stride, out_width, y_stride)
    run(
        _outer_kernel,
        (walk.items(1), -(-width // tiles.rows) * -(-out_width // tiles.columns)),
        x.device,
        out,
        first,
        x,
        y,
        walk.indptr,
        None if order is None else order.contiguous(),
        walk.plan,
        walk.num_rows,
        walk.num_edges,
        walk.num_chunks,
        width // vec,
        x_stride // vec,
        out_width // vec,
        y_stride // vec,
        warps=tiles.warps,
        **_types(x.dtype),
        VEC=vec,
        ROWS=tiles.rows,
        INNER=tiles.edges,
        COLUMNS=tiles.columns,
    )
    fold(walk, first, None, out, None, "sum")
    return out
