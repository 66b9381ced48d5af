"""Launcher of message_reduce.cpp: every row reduces messages of two operands."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gnnkern._cpu.broadcasting import column_tables, groups, shape_of
from gnnkern._native import (
    EDGE_OP_CODES,
    REDUCE_CODES,
    SCALAR_CODES,
    Csr,
    address,
    fields,
    module,
    rows_of,
)


def message_reduce(
    csr: Csr,
    x: Tensor,  # [num_cols, ...]
    edge: Tensor,  # [E, ...], as many dimensions
    op: str,
    reduce: str,
    argument: torch.dtype | None = None,
) -> tuple[Tensor, Tensor | None]:
    """out[r] = reduction over the edges e of row r of `x op edge`; with `argument` who won."""
    x_shape, edge_shape = shape_of(x), shape_of(edge)
    shape = torch.broadcast_shapes(x_shape, edge_shape)
    out = x.new_empty((csr.indptr.shape[0] - 1, *shape))
    positions = None if argument is None else x.new_empty(out.shape, dtype=argument)
    if out.numel() == 0:
        return out, positions
    x, x_stride, _ = rows_of(x)
    edge = edge.contiguous()
    x_columns = edge_columns = None
    if x_shape != shape or groups(edge_shape, shape) is None:
        x_columns, edge_columns = column_tables(x_shape, edge_shape)
    module().message_reduce(
        fields(csr, x.shape[0]),
        SCALAR_CODES[x.dtype],
        x.data_ptr(),
        x_stride,
        math.prod(shape),
        edge.data_ptr(),
        math.prod(edge_shape),
        EDGE_OP_CODES[op],
        address(x_columns),
        address(edge_columns),
        REDUCE_CODES[reduce],
        out.data_ptr(),
        address(positions),
        0 if positions is None else positions.element_size(),
        torch.get_num_threads(),
    )
    return out, positions
