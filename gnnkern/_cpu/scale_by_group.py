"""Launcher of scale_by_group.cpp: rows shifted and scaled by what their group says."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnkern._native import INDEX_CODES, SCALAR_CODES, module, rows_of


def scale_by_group(
    x: Tensor,  # [E, ...]
    group: Tensor,  # [E], or [num_groups + 1] boundaries
    by_boundaries: bool,
    statistics: Tensor,  # [num_groups, 2 or 3, ...]: the shift, in one part or two, and the slope
    grad: Tensor,  # [num_groups, ...]
    exponential: bool,
) -> Tensor:  # [E, ...]
    """(x - shift) * slope * grad of each row's group, or exp(x - shift) in place of x - shift."""
    out = x.new_empty(x.shape)
    if out.numel() == 0:
        return out
    x, x_stride, width = rows_of(x)
    group = group.contiguous()
    scale = statistics[:, -1] * grad.to(statistics.dtype)
    module().scale_by_group(
        INDEX_CODES[group.dtype],
        group.data_ptr(),
        by_boundaries,
        statistics.shape[0],
        x.shape[0],
        SCALAR_CODES[x.dtype],
        x.data_ptr(),
        x_stride,
        width,
        exponential,
        statistics.data_ptr(),
        scale.contiguous().data_ptr(),
        out.data_ptr(),
        torch.get_num_threads(),
    )
    return out
