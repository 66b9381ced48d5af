"""Sums, means and extremes of a sparse matrix over its dimensions, entries alone."""

import torch
from torch import Tensor

from gnnkern.compat._script import left_alone
from gnnkern.compat.torch_scatter import scatter, segment_csr
from gnnkern.compat.torch_sparse._matrix import bind
from gnnkern.compat.torch_sparse.tensor import SparseTensor

__all__ = ["max", "mean", "min", "reduction", "sum"]


@left_alone
def reduction(src: SparseTensor, dim: int | None, reduce: str) -> Tensor:
    """Reduce over everything (None), over the columns of each row (1), or over rows (0).

    Dimensions from 2 on are those of the values; their result has the entries of src.
    """
    value, storage = src.storage.value(), src.storage
    dim = dim + src.dim() if dim is not None and dim < 0 else dim
    if value is None:
        if reduce == "sum" and dim in (0, 1):
            return (storage.colcount() if dim == 0 else storage.rowcount()).to(src.dtype())
        shape = () if dim is None else (src.sparse_size(1 - dim),)
        fill = src.nnz() if reduce == "sum" else 1
        return torch.full(shape, fill, dtype=src.dtype(), device=src.device())
    if dim is None:
        extreme = {"min": torch.amin, "max": torch.amax}
        out: Tensor = extreme.get(reduce, getattr(torch, reduce))(value)
        return out
    if dim == 0:
        return scatter(value, storage.col(), 0, None, src.sparse_size(1), reduce)
    if dim == 1:
        return segment_csr(value, storage.rowptr(), None, reduce)
    function = {"sum": torch.sum, "mean": torch.mean, "min": torch.amin, "max": torch.amax}[reduce]
    reduced: Tensor = function(value, dim=dim - 1)  # type: ignore[operator]
    return src.set_value(reduced, "coo")  # type: ignore[return-value]


def sum(src: SparseTensor, dim: int | None = None) -> Tensor:
    """Sum over everything, or over one dimension: see `reduction`."""
    return reduction(src, dim, "sum")


def mean(src: SparseTensor, dim: int | None = None) -> Tensor:
    """Mean over the entries, likewise; 0 where there are none."""
    return reduction(src, dim, "mean")


def min(src: SparseTensor, dim: int | None = None) -> Tensor:
    """Minimum over the entries, likewise; 0 where there are none."""
    return reduction(src, dim, "min")


def max(src: SparseTensor, dim: int | None = None) -> Tensor:
    """Maximum over the entries, likewise; 0 where there are none."""
    return reduction(src, dim, "max")


bind(sum=sum, mean=mean, min=min, max=max)
