"""Launcher of scatter_std.cpp: the standard deviation of the rows that each row names."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnkern._native import SCALAR_CODES, Csr, address, fields, module, new_statistics, rows_of


def std_rows(csr: Csr, x: Tensor, unbiased: bool, differentiable: bool) -> tuple[Tensor, Tensor]:
    """out[r] = the standard deviation over the edges of row r, and its statistics if asked."""
    num_rows = csr.indptr.shape[0] - 1
    out = x.new_empty((num_rows, *x.shape[1:]))
    statistics = new_statistics(x, num_rows if differentiable else 0, 3)
    if out.numel():
        x, x_stride, width = rows_of(x)
        module().scatter_std(
            fields(csr, x.shape[0]),
            SCALAR_CODES[x.dtype],
            x.data_ptr(),
            x_stride,
            width,
            unbiased,
            out.data_ptr(),
            address(statistics if differentiable else None),
            torch.get_num_threads(),
        )
    return out, statistics
