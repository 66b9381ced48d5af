"""Launcher of sddmm.cpp: one result per edge."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnkern._native import (
    EDGE_OP_CODES,
    SCALAR_CODES,
    Csr,
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
