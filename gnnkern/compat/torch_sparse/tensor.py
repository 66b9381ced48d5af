"""`SparseTensor`: what TorchScript compiles of it.

TorchScript compiles every method that a class names itself, and none that it inherits: those here
hand over to functions that it leaves alone, because a layer that takes a `SparseTensor` or a tensor
is scripted for both. Scripted code cannot make or use a matrix, only be compiled for one.
"""

from typing import Optional

import torch
from torch import Tensor

from gnnkern.compat._script import left_alone
from gnnkern.compat.torch_sparse._matrix import Matrix
from gnnkern.compat.torch_sparse.storage import OptTensor, SparseStorage

__all__ = ["SparseTensor"]

# TorchScript reads no `torch.dtype | None`.
MaybeDtype = Optional[torch.dtype]  # noqa: UP045


class SparseTensor(Matrix):
    """A sparse matrix [M, N, ...] with the constructor and the methods of torch_sparse's.

    Entries are sorted by row and then by column; their values may have more dimensions. Products go
    to gnnkern's kernels, over a graph from columns to rows that is planned at the first of them.

    Args:
        row: [E] int64; or rowptr [M + 1] in its place.
        rowptr: [M + 1] int64.
        col: [E] int64.
        value: None (ones) or [E, ...].
        sparse_sizes: (M, N), or None for what indices need.
        is_sorted: The entries are in order.
        trust_data: Indices are within the sizes given.

    Raises:
        ValueError: a shape or dtype is wrong, or an index is beyond the sizes.
    """

    __jit_unused_properties__ = ["shape"]  # noqa: RUF012

    def __init__(
        self,
        row: Tensor | None = None,
        rowptr: Tensor | None = None,
        col: Tensor | None = None,
        value: Tensor | None = None,
        sparse_sizes: tuple[int | None, int | None] | None = None,
        is_sorted: bool = False,
        trust_data: bool = False,
    ) -> None:
        self._fill(row, rowptr, col, value, sparse_sizes, is_sorted, trust_data)

    @left_alone
    def _fill(
        self,
        row: Tensor | None,
        rowptr: Tensor | None,
        col: Tensor | None,
        value: Tensor | None,
        sparse_sizes: tuple[int | None, int | None] | None,
        is_sorted: bool,
        trust_data: bool,
    ) -> None:
        self._storage = SparseStorage(
            row=row,
            rowptr=rowptr,
            col=col,
            value=value,
            sparse_sizes=sparse_sizes,
            is_sorted=is_sorted,
            trust_data=trust_data,
        )

    @classmethod
    def from_edge_index(
        self,
        edge_index: Tensor,
        edge_attr: Tensor | None = None,
        sparse_sizes: tuple[int | None, int | None] | None = None,
        is_sorted: bool = False,
        trust_data: bool = False,
    ) -> "SparseTensor":
        """From rows `edge_index[0]` and columns `edge_index[1]`, with values or without."""
        return SparseTensor(
            edge_index[0], None, edge_index[1], edge_attr, sparse_sizes, is_sorted, trust_data
        )

    @classmethod
    def from_dense(self, mat: Tensor, has_value: bool = True) -> "SparseTensor":
        """From the elements of a dense matrix [M, N, ...] that are not 0."""
        places = mat if mat.dim() == 2 else mat.abs().sum(list(range(2, mat.dim())))
        index = places.nonzero().t().contiguous()
        value: Tensor | None = None
        if has_value:
            value = mat[index[0], index[1]]
        return SparseTensor(index[0], None, index[1], value, (mat.size(0), mat.size(1)), True, True)

    @property
    def storage(self) -> SparseStorage:
        """Its entries."""
        return self._stored()

    @left_alone
    def _stored(self) -> SparseStorage:
        return self._storage

    @left_alone
    def coo(self) -> tuple[Tensor, Tensor, OptTensor]:
        """(row [E], column [E], value)."""
        storage = self._storage
        return storage.row(), storage.col(), storage.value()

    @left_alone
    def csr(self) -> tuple[Tensor, Tensor, OptTensor]:
        """(rowptr [M + 1], column [E], value)."""
        storage = self._storage
        return storage.rowptr(), storage.col(), storage.value()

    def size(self, dim: int) -> int:
        """Its size along one dimension."""
        return self._size(dim)

    @left_alone
    def _size(self, dim: int) -> int:
        return self.sizes()[dim]

    @left_alone
    def nnz(self) -> int:
        """Number of entries."""
        return self._storage.col().numel()

    @left_alone
    def is_cuda(self) -> bool:
        """Whether it is on a GPU."""
        return self._storage.col().is_cuda

    @left_alone
    def has_value(self) -> bool:
        """Whether entries have values; else each stands for 1."""
        return self._storage.has_value()

    @left_alone
    def requires_grad(self) -> bool:
        """Whether its values are differentiated."""
        value = self._storage.value()
        return value is not None and value.requires_grad

    def set_value(self, value: Tensor | None, layout: str | None = None) -> "SparseTensor":
        """The same entries with other values, in the order of "coo", "csr" or "csc"."""
        return self._with_value(value, layout)

    @left_alone
    def _with_value(self, value: Tensor | None, layout: str | None) -> "SparseTensor":
        return self.from_storage(self._storage.set_value(value, layout))

    def fill_value(self, fill_value: float, dtype: MaybeDtype = None) -> "SparseTensor":
        """The same entries, each with one value."""
        return self._with_one_value(fill_value, dtype)

    @left_alone
    def _with_one_value(self, fill_value: float, dtype: MaybeDtype) -> "SparseTensor":
        return self._with_value(self._filled(fill_value, dtype), None)

    def to_torch_sparse_csr_tensor(self, dtype: MaybeDtype = None) -> Tensor:
        """The same in torch's CSR layout."""
        return self._as_torch_csr(dtype)

    @left_alone
    def _as_torch_csr(self, dtype: MaybeDtype) -> Tensor:
        storage = self._storage
        return torch.sparse_csr_tensor(
            storage.rowptr(), storage.col(), self._values(dtype), self.sizes()
        )
