"""Launcher of sddmm.cpp: one result per edge."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gnnkern._cpu.broadcasting import column_tables, groups, shape_of
from gnnkern._native import (
    EDGE_END_CODES,
    EDGE_OP_CODES,
    SCALAR_CODES,
    Csr,
    address,
    fields,
    module,
)


def sddmm_rows(csr: Csr, x_dst: Tensor, x_src: Tensor, op: str) -> Tensor:
    """One result per edge, in the caller's order."""
    heads = 1 if x_dst.dim() == 2 else x_dst.shape[1]
    width = x_dst.shape[1:].numel()
    num_edges = csr.indices.shape[0]
    shape = x_dst.shape[1:] if op != "dot" else x_dst.shape[1:-1]
    out = x_dst.new_empty((num_edges, *shape))
    if width == 0:
        return out.zero_()
    if out.numel():
        x_dst, x_src = x_dst.contiguous(), x_src.contiguous()
        module().sddmm(
            fields(csr, x_src.shape[0]),
            SCALAR_CODES[x_dst.dtype],
            x_dst.data_ptr(),
            x_src.data_ptr(),
            width,
            heads,
            EDGE_OP_CODES[op],
            out.data_ptr(),
            torch.get_num_threads(),
        )
    return out


def combine_rows(
    csr: Csr,
    lhs: Tensor,  # [rows, ...]
    rhs: Tensor | None,  # [rows, ...], as many dimensions; None: copies of lhs
    op: str,
    lhs_at: str,
    rhs_at: str,
    out_shape: Sequence[int],
) -> Tensor:  # [E, *out_shape]
    """`lhs op rhs` on every edge, summed over the dimensions in which `out_shape` is smaller."""
    lhs_shape = shape_of(lhs)
    rhs_shape = lhs_shape if rhs is None else shape_of(rhs)
    shape, out_shape = torch.broadcast_shapes(lhs_shape, rhs_shape), tuple(out_shape)
    width, out_width = math.prod(shape), math.prod(out_shape)
    out = lhs.new_empty((csr.indices.shape[0], *out_shape))
    if out.numel() == 0 or width == 0:
        return out.zero_()
    lhs = lhs.contiguous()
    rhs = None if rhs is None else rhs.contiguous()
    lhs_columns = rhs_columns = None
    heads = groups(out_shape, shape) if lhs_shape == rhs_shape else None
    if op == "mul" and heads is not None and out_width != width:
        op = "dot"
    elif not (rhs is None or lhs_shape == rhs_shape == out_shape):
        lhs_columns, rhs_columns = column_tables(lhs_shape, rhs_shape, out_shape)
    num_cols = max(
        (x.shape[0] for x, at in ((lhs, lhs_at), (rhs, rhs_at)) if x is not None and at == "src"),
        default=0,
    )
    module().sddmm_anywhere(
        fields(csr, num_cols),
        SCALAR_CODES[lhs.dtype],
        lhs.data_ptr(),
        EDGE_END_CODES[lhs_at],
        math.prod(lhs_shape),
        address(lhs_columns),
        address(rhs),
        EDGE_END_CODES[rhs_at],
        math.prod(rhs_shape),
        address(rhs_columns),
        width,
        heads or 1,
        EDGE_OP_CODES[op],
        out_width,
        out.data_ptr(),
        torch.get_num_threads(),
    )
    return out
