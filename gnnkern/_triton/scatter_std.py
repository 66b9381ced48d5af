"""The standard deviation of the rows that each row names."""

from __future__ import annotations

from torch import Tensor

from gnnkern._native import Csr, new_statistics
from gnnkern._triton.configs import Tiles
from gnnkern._triton.launch import walk_of
from gnnkern._triton.multi_reduce import Kept, reduce_in_ways

__all__ = ["std_rows"]


def std_rows(
    csr: Csr, x: Tensor, unbiased: bool, differentiable: bool, tiles: Tiles | None = None
) -> tuple[Tensor, Tensor]:
    """out[r] = the standard deviation over the edges of row r, and its statistics if asked."""
    num_rows = csr.indptr.shape[0] - 1
    out = x.new_empty((num_rows, *x.shape[1:]))
    statistics = new_statistics(x, num_rows if differentiable else 0, 3)
    if out.numel():
        kept = Kept()
        if differentiable:
            kept = Kept(mean=statistics[:, 0], rest=statistics[:, 1], slope=statistics[:, 2])
        reduce_in_ways(walk_of(csr), x, ("std",), out, kept, unbiased, tiles)
    return out, statistics
