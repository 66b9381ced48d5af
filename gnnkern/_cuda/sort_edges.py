"""Launchers of sort_edges.cu: an edge list sorted by row, and a matrix reversed, on the device."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gnnkern import _cuda
from gnnkern._cuda.launch import launch
from gnnkern._native import INDEX_CODES

__all__ = ["SortedEdges", "reverse_csr", "sort_edges"]


class SortedEdges(NamedTuple):
    """A stable sort by row; an edge that is not valid is in no row."""

    indptr: Tensor  # [num_rows + 1]
    indices: Tensor  # [E], [0] without columns
    edge_id: Tensor  # [E]
    # int64 [2], on the device: the first edge that is not valid, otherwise the largest int64, and
    # whether rows descended anywhere.
    status: Tensor


def sort_edges(
    rows: Tensor,  # [E], any stride
    cols: Tensor | None,  # [E], any stride, of the same type
    num_rows: int,
    num_cols: int,
    dtype: torch.dtype,
) -> SortedEdges:
    """Sort an edge list by row, without copying anything to the host."""
    return _sort(rows, cols, None, None, num_rows, num_cols, dtype)


def reverse_csr(
    indptr: Tensor,  # [num_rows + 1]
    indices: Tensor,  # [E]
    edge_id: Tensor | None,  # [E]
    num_cols: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The transposed matrix; edges of a row keep the order of their old rows."""
    return _sort(indices, None, indptr, edge_id, num_cols, 0, indptr.dtype)[:3]


def _sort(
    rows: Tensor,
    cols: Tensor | None,
    begins: Tensor | None,  # [num_begins + 1]
    numbers: Tensor | None,  # [E]
    num_rows: int,
    num_cols: int,
    dtype: torch.dtype,
) -> SortedEdges:
    num_edges = rows.shape[0]
    has_indices = cols is not None or begins is not None
    indptr = rows.new_empty(num_rows + 1, dtype=dtype)
    indices = rows.new_empty(num_edges if has_indices else 0, dtype=dtype)
    edge_id = rows.new_empty(num_edges, dtype=dtype)
    status = rows.new_full((2,), torch.iinfo(torch.int64).max, dtype=torch.int64)
    status[1].zero_()
    workspace_bytes = _cuda.module().sort_edges_bytes(num_edges, num_rows)
    launch(
        "sort_edges",
        rows.device,
        rows,
        rows.stride(0),
        cols,
        0 if cols is None else cols.stride(0),
        begins,
        0 if begins is None else begins.shape[0] - 1,
        numbers,
        INDEX_CODES[rows.dtype],
        num_edges,
        num_rows,
        num_cols,
        INDEX_CODES[dtype],
        indptr,
        indices if has_indices else None,
        edge_id,
        status,
        rows.new_empty(workspace_bytes, dtype=torch.uint8),
        workspace_bytes,
    )
    return SortedEdges(indptr, indices, edge_id, status)
