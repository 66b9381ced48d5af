"""Launcher of segment_gather.cpp: rows repeated."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnkern._native import (
    module,
    segment_fields,
)


def repeat_rows(indptr: Tensor, x: Tensor, num_edges: int) -> Tensor:
    """[E, ...]: row r of x for every position of segment r."""
    out = x.new_empty((num_edges, *x.shape[1:]))
    if out.numel():
        x = x.contiguous()
        row_bytes = x.shape[1:].numel() * x.element_size()
        module().segment_gather(
            segment_fields(indptr, num_edges),
            row_bytes,
            x.data_ptr(),
            out.data_ptr(),
            torch.get_num_threads(),
        )
    return out
