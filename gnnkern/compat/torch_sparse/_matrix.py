"""What a `SparseTensor` is beside what TorchScript sees of it: copies, casts, conversions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from gnnkern.compat.torch_sparse.storage import OptTensor, SparseStorage

if TYPE_CHECKING:
    from gnnkern.compat.torch_sparse.tensor import SparseTensor

__all__ = ["Matrix", "bind"]

Self = TypeVar("Self", bound="Matrix")


class Matrix:
    """A sparse matrix [M, N, ...] over a `SparseStorage`; nothing here is differentiable itself."""

    _storage: SparseStorage

    @classmethod
    def from_storage(cls: type[Self], storage: SparseStorage) -> Self:
        """Wrap a storage."""
        matrix = cls.__new__(cls)
        matrix._storage = storage
        return matrix

    @classmethod
    def from_torch_sparse_coo_tensor(cls: type[Self], mat: Tensor, has_value: bool = True) -> Self:
        """From a torch sparse matrix of COO layout."""
        mat = mat.coalesce()
        row, col = mat.indices()
        return cls._of(row, col, mat.values() if has_value else None, mat.shape)

    @classmethod
    def from_torch_sparse_csr_tensor(cls: type[Self], mat: Tensor, has_value: bool = True) -> Self:
        """From a torch sparse matrix of CSR layout."""
        storage = SparseStorage(
            rowptr=mat.crow_indices().long(),
            col=mat.col_indices().long(),
            value=mat.values() if has_value else None,
            sparse_sizes=(mat.shape[0], mat.shape[1]),
            is_sorted=True,
        )
        return cls.from_storage(storage)

    @classmethod
    def from_scipy(cls: type[Self], mat: Any, has_value: bool = True) -> Self:
        """From a scipy sparse matrix."""
        mat = mat.tocoo()
        row, col = (torch.as_tensor(ids).long() for ids in (mat.row, mat.col))
        return cls._of(row, col, torch.as_tensor(mat.data) if has_value else None, mat.shape, False)

    @classmethod
    def eye(
        cls: type[Self],
        M: int,
        N: int | None = None,
        has_value: bool = True,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        fill_cache: bool = False,
    ) -> Self:
        """The identity [M, N]."""
        N = M if N is None else N
        index = torch.arange(min(M, N), device=device)
        value = torch.ones(min(M, N), dtype=dtype, device=device) if has_value else None
        matrix = cls._of(index, index, value, (M, N))
        if fill_cache:
            matrix.fill_cache_()
        return matrix

    @classmethod
    def _of(
        cls: type[Self],
        row: Tensor,
        col: Tensor,
        value: Tensor | None,
        sizes: Any,
        is_sorted: bool = True,
    ) -> Self:
        sizes = (int(sizes[0]), int(sizes[1]))
        return cls.from_storage(
            SparseStorage(row=row, col=col, value=value, sparse_sizes=sizes, is_sorted=is_sorted)
        )

    # -- copies ------------------------------------------------------------------------------------

    def copy(self: Self) -> Self:
        """A copy that shares its arrays."""
        return self.from_storage(self._storage.copy())

    def clone(self: Self) -> Self:
        """A copy that shares nothing."""
        return self.from_storage(self._storage.clone())

    def __copy__(self: Self) -> Self:
        return self.copy()

    def __deepcopy__(self: Self, memo: dict[int, Any]) -> Self:
        memo[id(self)] = copy = self.clone()
        return copy

    def __getstate__(self) -> dict[str, Any]:
        storage = self._storage
        return {
            "rowptr": storage.rowptr(),
            "col": storage.col(),
            "value": storage.value(),
            "sizes": storage.sparse_sizes(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._storage = SparseStorage(
            rowptr=state["rowptr"],
            col=state["col"],
            value=state["value"],
            sparse_sizes=state["sizes"],
            is_sorted=True,
            trust_data=True,
        )

    # -- what it is --------------------------------------------------------------------------------

    def csc(self) -> tuple[Tensor, Tensor, OptTensor]:
        """(colptr [N + 1], row [E], value) in the order of columns."""
        storage = self._storage
        order, value = storage.csr2csc(), storage.value()
        return storage.colptr(), storage.row()[order], None if value is None else value[order]

    def sparse_sizes(self) -> tuple[int, int]:
        """(M, N)."""
        return self._storage.sparse_sizes()

    def sparse_size(self, dim: int) -> int:
        """M or N."""
        return self._storage.sparse_size(dim)

    def sizes(self) -> list[int]:
        """[M, N, ...]: those of values behind."""
        value = self._storage.value()
        return [*self._storage.sparse_sizes(), *([] if value is None else value.shape[1:])]

    @property
    def shape(self) -> torch.Size:
        """Its sizes."""
        return torch.Size(self.sizes())

    def dim(self) -> int:
        """Number of dimensions."""
        return len(self.sizes())

    def numel(self) -> int:
        """Number of stored values."""
        value = self._storage.value()
        return self._storage.col().numel() if value is None else value.numel()

    def density(self) -> float:
        """The share of places with an entry."""
        places = self.sparse_size(0) * self.sparse_size(1)
        return self._storage.col().numel() / places if places else 0.0

    def sparsity(self) -> float:
        """The share of places without one."""
        return 1 - self.density()

    def avg_row_length(self) -> float:
        """Entries per row."""
        return self._storage.col().numel() / self.sparse_size(0)

    def avg_col_length(self) -> float:
        """Entries per column."""
        return self._storage.col().numel() / self.sparse_size(1)

    def is_quadratic(self) -> bool:
        """Whether it has as many rows as columns."""
        return self.sparse_size(0) == self.sparse_size(1)

    def is_symmetric(self) -> bool:
        """Whether it is its transpose."""
        if not self.is_quadratic():
            return False
        storage = self._storage
        colptr, row, value = self.csc()
        same = torch.equal(storage.rowptr(), colptr) and torch.equal(storage.col(), row)
        mine = storage.value()
        return same and (mine is None or value is None or torch.equal(mine, value))

    def is_coalesced(self) -> bool:
        """Whether no entry is there twice."""
        return self._storage.is_coalesced()

    def coalesce(self: Self, reduce: str = "sum") -> Self:
        """Entries at one place reduced into one."""
        return self.from_storage(self._storage.coalesce(reduce))

    def fill_cache_(self: Self) -> Self:
        """Derive now what products and transposes ask for."""
        self._storage.fill_cache_()
        return self

    def clear_cache_(self: Self) -> Self:
        """Forget what was derived."""
        self._storage.clear_cache_()
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Matrix) or self.sizes() != other.sizes():
            return False
        mine, theirs = self._storage, other._storage
        value, other_value = mine.value(), theirs.value()
        return (
            torch.equal(mine.rowptr(), theirs.rowptr())
            and torch.equal(mine.col(), theirs.col())
            and (value is None) == (other_value is None)
            and (value is None or other_value is None or torch.equal(value, other_value))
        )

    __hash__ = object.__hash__

    # -- values, devices, dtypes -------------------------------------------------------------------

    def set_value_(self: Self, value: Tensor | None, layout: str | None = None) -> Self:
        """Give the entries other values."""
        self._storage.set_value_(value, layout)
        return self

    def fill_value_(self: Self, fill_value: Any, dtype: torch.dtype | None = None) -> Self:
        """Give every entry one value."""
        return self.set_value_(self._filled(fill_value, dtype))

    def _filled(self, fill_value: Any, dtype: torch.dtype | None) -> Tensor:
        count, device = self._storage.col().numel(), self._storage.col().device
        return torch.full((count,), fill_value, dtype=dtype, device=device)

    def requires_grad_(self: Self, requires_grad: bool = True, dtype: Any = None) -> Self:
        """Whether values are differentiated; ones are made where there are none."""
        if requires_grad and not self._storage.has_value():
            self.fill_value_(1.0, dtype)
        value = self._storage.value()
        if value is not None:
            value.requires_grad_(requires_grad)
        return self

    def detach(self: Self) -> Self:
        """The same, whose values have no history."""
        return self.from_storage(self._storage.apply_value(Tensor.detach))

    def detach_(self: Self) -> Self:
        """Drop the history of its values."""
        value = self._storage.value()
        if value is not None:
            value.detach_()
        return self

    def device(self) -> torch.device:
        """Where its arrays lie."""
        return self._storage.col().device

    def dtype(self) -> torch.dtype:
        """The dtype of its values; float32 without any."""
        value = self._storage.value()
        return torch.float if value is None else value.dtype

    def is_floating_point(self) -> bool:
        """Whether its values are floating."""
        return self.dtype().is_floating_point

    def astype(self: Self, dtype: torch.dtype, non_blocking: bool = False) -> Self:
        """The same with values of another dtype."""
        return self.from_storage(
            self._storage.apply_value(lambda x: x.to(dtype, non_blocking=non_blocking))
        )

    def type_as(self: Self, tensor: Tensor) -> Self:
        """The same with the dtype of a tensor."""
        return self.astype(tensor.dtype)

    def to(self: Self, *args: Any, non_blocking: bool = False, **kwargs: Any) -> Self:
        """The same on another device, of another dtype, or both, as of `Tensor.to`."""
        device, dtype, _, _ = torch._C._nn._parse_to(*args, **kwargs)
        matrix = self
        if device is not None:
            matrix = matrix.to_device(device, non_blocking)
        return matrix if dtype is None else matrix.astype(dtype, non_blocking)

    def to_device(self: Self, device: Any, non_blocking: bool = False) -> Self:
        """The same on another device."""
        if torch.device(device) == self.device():
            return self
        return self.from_storage(
            self._storage.apply(lambda x: x.to(device, non_blocking=non_blocking))
        )

    def cpu(self: Self) -> Self:
        """The same on the CPU."""
        return self.to_device("cpu")

    def cuda(self: Self, device: Any = None, non_blocking: bool = False) -> Self:
        """The same on a GPU."""
        return self.to_device("cuda" if device is None else device, non_blocking)

    def pin_memory(self: Self) -> Self:
        """The same in pinned memory."""
        return self.from_storage(self._storage.apply(Tensor.pin_memory))

    def is_pinned(self) -> bool:
        """Whether it lies in pinned memory."""
        return self._storage.col().is_pinned()

    def share_memory_(self: Self) -> Self:
        """Put its arrays where other processes see them."""
        self._storage.apply(Tensor.share_memory_)
        return self

    def is_shared(self) -> bool:
        """Whether other processes see its arrays."""
        return bool(self._storage.col().is_shared())

    # -- conversions -------------------------------------------------------------------------------

    def _values(self, dtype: torch.dtype | None) -> Tensor:
        value = self._storage.value()
        if value is None:
            return self._filled(1, dtype or self.dtype())
        return value if dtype is None else value.to(dtype)

    def to_dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """The dense matrix; of entries at one place the last stays."""
        value = self._values(dtype)
        dense = value.new_zeros(self.sizes())
        return dense.index_put((self._storage.row(), self._storage.col()), value)

    def to_torch_sparse_coo_tensor(self, dtype: torch.dtype | None = None) -> Tensor:
        """The same in torch's COO layout."""
        index = torch.stack((self._storage.row(), self._storage.col()))
        return torch.sparse_coo_tensor(index, self._values(dtype), self.sizes())

    def to_torch_sparse_csc_tensor(self, dtype: torch.dtype | None = None) -> Tensor:
        """The same in torch's CSC layout."""
        colptr, row, _ = self.csc()
        value = self._values(dtype)[self._storage.csr2csc()]
        return torch.sparse_csc_tensor(colptr, row, value, self.sizes())

    def to_scipy(self, layout: str | None = None, dtype: torch.dtype | None = None) -> Any:
        """The same as a scipy matrix of layout "coo", "csr" or "csc"."""
        import scipy.sparse

        row, col = self._storage.row().cpu().numpy(), self._storage.col().cpu().numpy()
        value = self._values(dtype).detach().cpu().numpy()
        matrix = scipy.sparse.coo_matrix((value, (row, col)), self.sparse_sizes())
        return matrix.asformat(layout or "coo")

    def __repr__(self) -> str:
        """The sizes, the number of entries, their dtype and device."""
        sizes = ", ".join(map(str, self.sizes()))
        what = self.dtype() if self._storage.has_value() else "no values"
        count = self._storage.col().numel()
        return f"SparseTensor([{sizes}], nnz={count}, {what}, {self.device()})"


def bind(**methods: Callable[..., Any]) -> None:
    """Give matrices methods that are functions of the package, or have the names of types."""
    for name, method in methods.items():
        setattr(Matrix, name, method)


def _cast(dtype: torch.dtype) -> Callable[..., Any]:
    def cast(self: SparseTensor) -> SparseTensor:
        return self.astype(dtype)

    cast.__doc__ = f"The same with values of {dtype}."
    return cast


bind(
    type=Matrix.astype,
    bfloat16=_cast(torch.bfloat16),
    half=_cast(torch.half),
    float=_cast(torch.float),
    double=_cast(torch.double),
    int=_cast(torch.int),
    long=_cast(torch.long),
    bool=_cast(torch.bool),
)
