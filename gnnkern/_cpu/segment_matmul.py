"""Launchers of segment_matmul.cpp: rows times the matrix of their segment, and outer products."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnkern._cpu.dense_products import multiply_dense, prefers_dense, sum_outer_dense
from gnnkern._native import (
    INDEX_CODES,
    SCALAR_CODES,
    address,
    module,
    rows_of,
)


def _fields(indptr: Tensor, order: Tensor | None, num_edges: int) -> tuple[int, ...]:
    """Segments of rows, consecutive or named by `order`; the callee plans and checks them."""
    num_rows = indptr.shape[0] - 1
    code = INDEX_CODES[indptr.dtype]
    return (code, indptr.data_ptr(), address(order), 0, 0, num_rows, num_edges, num_edges)


def multiply_segments(
    x: Tensor,  # [E, K]
    indptr: Tensor,  # [R + 1]
    order: Tensor | None,  # [E], the dtype of indptr
    weight: Tensor,  # [R, K, M], any strides
    bias: Tensor | None,  # [R, M]
) -> Tensor:  # [E, M]
    """out[i] = x[i] @ weight[r] + bias[r] for the positions i = order[e] of segment r."""
    num_edges, width = x.shape
    out_width = weight.shape[2]
    if num_edges * out_width == 0:
        return x.new_empty((num_edges, out_width))
    if prefers_dense(x, weight.shape[0], width, out_width, sums=False):
        return multiply_dense(x, indptr, order, weight, bias)
    out = x.new_empty((num_edges, out_width))
    x, x_stride, _ = rows_of(x)
    bias = None if bias is None else bias.contiguous()
    module().segment_matmul(
        _fields(indptr, order, num_edges),
        SCALAR_CODES[x.dtype],
        x.data_ptr(),
        x_stride,
        width,
        0,
        0,
        out_width,
        weight.data_ptr(),
        *weight.stride(),
        address(bias),
        out.data_ptr(),
        torch.get_num_threads(),
    )
    return out


def sum_outer_products(
    x: Tensor,  # [E, K]
    y: Tensor,  # [E, M]
    indptr: Tensor,  # [R + 1]
    order: Tensor | None,  # [E]
) -> Tensor:  # [R, K, M]
    """out[r] = the sum of x[i]^T y[i] over the positions i = order[e] of segment r."""
    num_edges, width = x.shape
    num_segments = indptr.shape[0] - 1
    shape = (num_segments, width, y.shape[1])
    if num_edges == 0 or 0 in shape:
        return x.new_zeros(shape)
    if prefers_dense(x, num_segments, width, y.shape[1], sums=True):
        return sum_outer_dense(x, y, indptr, order)
    out = x.new_empty(shape)
    x, x_stride, _ = rows_of(x)
    y, y_stride, out_width = rows_of(y)
    module().segment_matmul(
        _fields(indptr, order, num_edges),
        SCALAR_CODES[x.dtype],
        x.data_ptr(),
        x_stride,
        width,
        y.data_ptr(),
        y_stride,
        out_width,
        0,
        0,
        0,
        0,
        0,
        out.data_ptr(),
        torch.get_num_threads(),
    )
    return out
