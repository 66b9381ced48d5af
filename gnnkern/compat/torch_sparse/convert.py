"""Sparse matrices as entries `index` [2, E] and values [E], without an object."""

from typing import Any

import torch
from torch import Tensor

from gnnkern.compat.torch_sparse.selection import t
from gnnkern.compat.torch_sparse.tensor import SparseTensor

__all__ = [
    "coalesce",
    "eye",
    "from_scipy",
    "from_torch_sparse",
    "to_scipy",
    "to_torch_sparse",
    "transpose",
]


def _entries(matrix: SparseTensor) -> tuple[Tensor, Any]:
    row, col, value = matrix.coo()
    return torch.stack((row, col)), value


def coalesce(
    index: Tensor, value: Tensor | None, m: int, n: int, op: str = "add"
) -> tuple[Tensor, Any]:
    """The entries of a matrix [m, n] sorted by row and column, those at one place reduced."""
    matrix = SparseTensor(index[0], None, index[1], value, (m, n), False, False)
    return _entries(matrix.coalesce("sum" if op == "add" else op))


def transpose(
    index: Tensor, value: Tensor | None, m: int, n: int, coalesced: bool = True
) -> tuple[Tensor, Any]:
    """The entries of the transpose of a matrix [m, n], sorted and summed where `coalesced`."""
    if not coalesced:
        return index.flip(0), value
    matrix = SparseTensor(index[0], None, index[1], value, (m, n), False, False)
    return _entries(t(matrix.coalesce("sum")))


def eye(
    m: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> tuple[Tensor, Tensor]:
    """The entries of the identity [m, m]."""
    row = torch.arange(m, device=device)
    return torch.stack((row, row)), torch.ones(m, dtype=dtype, device=device)


def to_torch_sparse(index: Tensor, value: Tensor, m: int, n: int) -> Tensor:
    """A torch sparse matrix [m, n]."""
    return torch.sparse_coo_tensor(index.detach(), value, (m, n))


def from_torch_sparse(A: Tensor) -> tuple[Tensor, Tensor]:
    """The entries of a torch sparse matrix, as they are."""
    return A.detach()._indices(), A._values()


def to_scipy(index: Tensor, value: Tensor, m: int, n: int) -> Any:
    """A scipy matrix [m, n] of COO layout."""
    import scipy.sparse

    (row, col), data = index.cpu().numpy(), value.detach().cpu().numpy()
    return scipy.sparse.coo_matrix((data, (row, col)), (m, n))


def from_scipy(A: Any) -> tuple[Tensor, Tensor]:
    """The entries of a scipy matrix."""
    A = A.tocoo()
    index = torch.stack([torch.as_tensor(ids).long() for ids in (A.row, A.col)])
    return index, torch.as_tensor(A.data)
