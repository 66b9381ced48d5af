"""Launchers of halo.cu: rows taken out of a table, and rows added to one."""

from __future__ import annotations

from torch import Tensor

from gnnkern._cuda.launch import launch
from gnnkern._native import INDEX_CODES, SCALAR_CODES, rows_of

__all__ = ["gather_rows", "scatter_add_rows"]


def gather_rows(x: Tensor, index: Tensor) -> Tensor:
    """[len(index), ...]: out[i] = x[index[i]], an exact copy."""
    out = x.new_empty((index.shape[0], *x.shape[1:]))
    if out.numel():
        x, stride, width = rows_of(x)
        size = x.element_size()
        launch(
            "gather_rows",
            x.device,
            out,
            x,
            index.contiguous(),
            INDEX_CODES[index.dtype],
            index.shape[0],
            width * size,
            stride * size,
        )
    return out


def scatter_add_rows(
    out: Tensor,  # [N, ...], changed; contiguous rows
    target: Tensor,  # [num_rows], distinct
    x: Tensor,  # [m, ...]
    begin: Tensor | None = None,  # [num_rows + 1]
    order: Tensor | None = None,  # [m]
) -> None:
    """Add x[order[begin[r] : begin[r + 1]]] to row target[r] of `out`, row by row in order.

    Without `begin` and `order`, row r of x alone. A sum is rounded once, when it is stored.
    """
    if x.numel() == 0:
        return
    width = x.shape[1:].numel()
    launch(
        "scatter_add_rows",
        x.device,
        out,
        x.contiguous(),
        target.contiguous(),
        begin,
        order,
        SCALAR_CODES[x.dtype],
        INDEX_CODES[target.dtype],
        target.shape[0],
        width,
        out.stride(0),
    )
