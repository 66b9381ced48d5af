"""The launcher of scatter_atomics.cu: rows reduced by an unsorted index, in no order."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnkern._cuda.launch import launch
from gnnkern._cuda.plan import check_numbers
from gnnkern._native import (
    INDEX_CODES,
    REDUCE_CODES,
    SCALAR_CODES,
    accumulate_dtype,
    rows_of,
)

__all__ = ["scatter_atomics"]


def scatter_atomics(
    x: Tensor,  # [E, ...]
    index: Tensor,  # [E]
    num_groups: int,
    reduce: str,  # "sum", "mean", "max" or "min"
) -> tuple[Tensor, Tensor]:
    """The result [num_groups, ...], and int64 [1]: the first position out of range, or beyond E."""
    check_numbers(num_groups, x.shape[0])
    shape = (num_groups, *x.shape[1:])
    status = index.new_full((1,), torch.iinfo(torch.int64).max, dtype=torch.int64)
    cells = _cells(x, shape, reduce)
    out = cells.view(x.dtype) if cells.element_size() == x.element_size() else x.new_empty(shape)
    sizes = index.new_zeros(num_groups, dtype=torch.int32) if reduce == "mean" else None
    x, x_stride, width = rows_of(x)
    index = index.contiguous()
    launch(
        "scatter_atomics",
        x.device,
        out,
        cells,
        sizes,
        status,
        x,
        index,
        INDEX_CODES[index.dtype],
        SCALAR_CODES[x.dtype],
        REDUCE_CODES[reduce],
        x.shape[0],
        num_groups,
        width,
        x_stride,
    )
    return out, status


def _cells(x: Tensor, shape: tuple[int, ...], reduce: str) -> Tensor:
    """What groups are reduced in, before any row of x."""
    dtype = accumulate_dtype(x.dtype)
    if reduce in ("sum", "mean"):
        return x.new_zeros(shape, dtype=dtype)
    integers = torch.int64 if dtype == torch.float64 else torch.int32
    return x.new_full(shape, torch.iinfo(integers).min, dtype=integers)
