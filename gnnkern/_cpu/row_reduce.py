"""Launchers of row_reduce.cpp: every row reduces the rows of x that it names."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnkern._native import (
    REDUCE_CODES,
    SCALAR_CODES,
    Csr,
    address,
    fields,
    module,
    new_statistics,
    rows_of,
    segment_fields,
)


def _reduce(
    csr_fields: tuple[int, ...],
    x: Tensor,
    weight: Tensor | None,  # [E] or [E, H]
    reduce: str,
    argument: torch.dtype | None,
    statistics: Tensor | None = None,  # [num_rows, 2, ...] of the accumulating dtype, to be filled
) -> tuple[Tensor, Tensor | None]:
    # Sizes one by one: torch reads them in half the time of a tuple's.
    out = x.new_empty(csr_fields[5], *x.shape[1:])
    positions = None if argument is None else torch.empty_like(out, dtype=argument)
    if out.numel() == 0:
        return out, positions
    x, x_stride, width = rows_of(x)
    weight = None if weight is None else weight.contiguous()
    module().row_reduce(
        csr_fields,
        SCALAR_CODES[x.dtype],
        x.data_ptr(),
        x_stride,
        width,
        address(weight),
        1 if weight is None or weight.dim() == 1 else weight.shape[1],
        REDUCE_CODES[reduce],
        out.data_ptr(),
        address(positions),
        0 if positions is None else positions.element_size(),
        address(statistics),
        torch.get_num_threads(),
    )
    return out, positions


def row_reduce(
    csr: Csr,
    x: Tensor,  # [num_cols, ...]
    weight: Tensor | None,  # [E] or [E, H]
    reduce: str,
    argument: torch.dtype | None = None,
) -> tuple[Tensor, Tensor | None]:
    """out[r] = reduction over the edges of row r of weight * x; with `argument` who won."""
    return _reduce(fields(csr, x.shape[0]), x, weight, reduce, argument)


def reduce_segments(
    indptr: Tensor,  # [num_segments + 1]
    x: Tensor,  # [E, ...]
    reduce: str,
    argument: torch.dtype | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The same over consecutive rows of x."""
    return _reduce(segment_fields(indptr, x.shape[0]), x, None, reduce, argument)


def _log_sum_exp(
    csr_fields: tuple[int, ...], x: Tensor, differentiable: bool
) -> tuple[Tensor, Tensor]:
    statistics = new_statistics(x, csr_fields[5] if differentiable else 0, 2)
    wanted = statistics if differentiable else None
    return _reduce(csr_fields, x, None, "logsumexp", None, wanted)[0], statistics


def log_sum_exp_rows(csr: Csr, x: Tensor, differentiable: bool) -> tuple[Tensor, Tensor]:
    """The log of the sum of exponentials over the edges of row r, and its statistics if asked."""
    return _log_sum_exp(fields(csr, x.shape[0]), x, differentiable)


def log_sum_exp_segments(indptr: Tensor, x: Tensor, differentiable: bool) -> tuple[Tensor, Tensor]:
    """The same over consecutive rows of x."""
    return _log_sum_exp(segment_fields(indptr, x.shape[0]), x, differentiable)
