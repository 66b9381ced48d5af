"""Launcher of segment_gather.cpp: rows repeated."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnkern import _sorting
from gnnkern._native import INDEX_CODES, module


def repeat_rows(indptr: Tensor, x: Tensor, num_edges: int) -> Tensor:
    """[E, ...]: row r of x for every position of segment r; indptr is checked here."""
    shape = x.shape
    out = x.new_empty((num_edges, *shape[1:]))
    row_bytes = shape[1:].numel() * x.element_size()
    if not num_edges or not row_bytes:
        _sorting.check_indptr("segment_gather", indptr, num_edges)
        return out
    x = x.contiguous()
    is_valid = module().segment_gather(
        INDEX_CODES[indptr.dtype],
        indptr.data_ptr(),
        shape[0],
        num_edges,
        row_bytes,
        x.data_ptr(),
        out.data_ptr(),
        torch.get_num_threads(),
    )
    if not is_valid:
        _sorting.check_indptr("segment_gather", indptr, num_edges)
    return out
