"""`SparseStorage`: the entries of a sparse matrix in order, and what is derived from them.

Entries are sorted by row and then by column. Every derived array is computed at its first use and
kept; `graph` is the matrix as gnnkern's ops take it, with rows for destinations.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gnnkern.compat._script import left_alone
from gnnkern.compat.pyg_lib.ops import index_sort
from gnnkern.compat.torch_scatter import scatter
from gnnkern.graph import Graph

__all__ = ["OptTensor", "SparseStorage", "pointers"]

# By a name, because TorchScript reads no union inside of brackets.
OptTensor = Tensor | None

_CACHED = ("rowcount", "rowptr", "colcount", "colptr", "csr2csc", "csc2csr")


def pointers(count: Tensor) -> Tensor:
    """Where each of consecutive runs begins: one more than there are runs."""
    return torch.cat([count.new_zeros(1), count.cumsum(0)])


def _inverse(order: Tensor) -> Tensor:
    position = torch.arange(order.shape[0], device=order.device)
    return torch.empty_like(order).index_copy_(0, order, position)


class Storage:
    """What a `SparseStorage` does; TorchScript looks at that class alone."""

    _row: Tensor | None
    _col: Tensor
    _value: Tensor | None
    _sizes: tuple[int, int]
    _cache: dict[str, Tensor]
    _graph: Graph | None

    def fill(
        self,
        row: Tensor | None,
        rowptr: Tensor | None,
        col: Tensor | None,
        value: Tensor | None,
        sparse_sizes: tuple[int | None, int | None] | None,
        cached: dict[str, Tensor | None],
        is_sorted: bool,
        trust_data: bool,
    ) -> None:
        """Take over the arrays, sorted; sizes that are not given are those that indices need."""
        if (row is None and rowptr is None) or col is None:
            raise ValueError("SparseStorage: col and one of row and rowptr must be given")
        for name, index in (("row", row), ("rowptr", rowptr), ("col", col)):
            if index is not None and (index.dtype != torch.int64 or index.dim() != 1):
                raise ValueError(
                    f"SparseStorage: {name} must be int64 of one dimension, got {index.dtype} of "
                    f"{index.dim()}"
                )
        if value is not None and value.shape[:1] != col.shape:
            raise ValueError(
                f"SparseStorage: value must have shape [{col.shape[0]}, ...], got "
                f"{list(value.shape)}"
            )
        self._row, self._col, self._value = row, col.contiguous(), value
        self._cache = {name: array for name, array in cached.items() if array is not None}
        if rowptr is not None:
            self._cache["rowptr"] = rowptr
        self._graph = None
        self._sizes = self._check_sizes(sparse_sizes or (None, None), trust_data)
        if not is_sorted:
            self._sort()

    def _check_sizes(
        self, sizes: tuple[int | None, int | None], trust_data: bool
    ) -> tuple[int, int]:
        num_rows, num_cols = sizes[0], sizes[1]
        rowptr = self._cache.get("rowptr")
        if rowptr is not None:
            least = rowptr.shape[0] - 1
            num_rows = least if num_rows is None else num_rows
            if num_rows != least:
                raise ValueError(
                    f"SparseStorage: rowptr must have {num_rows} + 1 elements for the size given, "
                    f"got {least + 1}"
                )
        for name, index, size in (("row", self._row, num_rows), ("col", self._col, num_cols)):
            if index is None or (trust_data and size is not None):
                continue
            least = int(index.max()) + 1 if index.numel() else 0
            if size is not None and least > size:
                raise ValueError(
                    f"SparseStorage: {name} must be below {size}, the size given, got {least - 1}"
                )
            if name == "row" and num_rows is None:
                num_rows = least
            elif name == "col" and num_cols is None:
                num_cols = least
        assert num_rows is not None and num_cols is not None
        return num_rows, num_cols

    def _sort(self) -> None:
        key = self.rows() * self._sizes[1] + self._col
        if bool((key[1:] >= key[:-1]).all()):
            return
        _, order = index_sort(key)
        counts = ("rowcount", "rowptr", "colcount", "colptr")
        kept = {name: array for name, array in self._cache.items() if name in counts}
        self._row, self._col = self.rows()[order], self._col[order]
        self._value = None if self._value is None else self._value[order]
        self._cache = kept

    # -- what it holds -----------------------------------------------------------------------------

    def rows(self) -> Tensor:
        """[E] row of each entry."""
        if self._row is None:
            rowptr = self._cache["rowptr"]
            rows = torch.arange(self._sizes[0], device=rowptr.device)
            self._row = rows.repeat_interleave(rowptr.diff(), output_size=self._col.shape[0])
        return self._row

    def rowptr(self) -> Tensor:
        """[M + 1] where each row begins."""
        raise NotImplementedError

    def csc2csr(self) -> Tensor:
        """[E] position, in the order of columns, of each entry in the order of rows."""
        raise NotImplementedError

    def has_value(self) -> bool:
        """Whether entries have values; else each stands for 1."""
        return self._value is not None

    def sparse_sizes(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self._sizes

    def sparse_size(self, dim: int) -> int:
        """Rows or columns."""
        return self._sizes[dim]

    def _derived(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        array = self._cache.get(name)
        if array is None:
            array = self._cache[name] = compute()
        return array

    def graph(self) -> Graph:
        """The matrix as a graph from columns to rows; its edge order is that of the entries."""
        if self._graph is None:
            self._graph = Graph.from_csr(self.rowptr(), self._col, num_src=self._sizes[1])
        return self._graph

    # -- changed copies ----------------------------------------------------------------------------

    def _like(self, value: Tensor | None) -> "SparseStorage":
        storage = SparseStorage.__new__(SparseStorage)
        storage.__dict__.update(self.__dict__)
        # What either derives serves both.
        storage._value = value
        return storage

    def in_rows(self, value: Tensor, layout: str | None) -> Tensor:
        """Values in the order of rows, given in that of "coo", "csr" or "csc"."""
        if layout not in (None, "coo", "csr", "csc"):
            raise ValueError(f"SparseStorage: layout must be coo, csr or csc, got {layout!r}")
        if value.shape[:1] != self._col.shape:
            raise ValueError(
                f"SparseStorage: value must have shape [{self._col.shape[0]}, ...], got "
                f"{list(value.shape)}"
            )
        return value[self.csc2csr()] if layout == "csc" else value

    def set_value(self, value: Tensor | None, layout: str | None = None) -> "SparseStorage":
        """The same entries with other values."""
        return self._like(None if value is None else self.in_rows(value, layout))

    def set_value_(self, value: Tensor | None, layout: str | None = None) -> "Storage":
        """Give the entries other values."""
        self._value = None if value is None else self.in_rows(value, layout)
        return self

    def apply(self, function: Callable[[Tensor], Tensor]) -> "SparseStorage":
        """A copy with `function` of every array."""
        storage = self._like(None if self._value is None else function(self._value))
        storage._row = None if self._row is None else function(self._row)
        storage._col = function(self._col)
        storage._cache = {name: function(array) for name, array in self._cache.items()}
        storage._graph = None
        return storage

    def apply_value(self, function: Callable[[Tensor], Tensor]) -> "SparseStorage":
        """A copy with `function` of the values."""
        return self._like(None if self._value is None else function(self._value))

    def is_coalesced(self) -> bool:
        """Whether no entry is there twice."""
        key = self.rows() * self._sizes[1] + self._col
        return bool((key[1:] > key[:-1]).all())

    def coalesce(self, reduce: str = "sum") -> "SparseStorage":
        """Entries at one place reduced into one."""
        key = self.rows() * self._sizes[1] + self._col
        first = torch.ones_like(key, dtype=torch.bool)
        first[1:] = key[1:] > key[:-1]
        if bool(first.all()):
            return self._like(self._value)
        value = self._value
        if value is not None:
            group = first.cumsum(0) - 1
            value = scatter(value, group, 0, dim_size=int(group[-1]) + 1, reduce=reduce)
        return SparseStorage(
            row=self.rows()[first],
            col=self._col[first],
            value=value,
            sparse_sizes=self._sizes,
            is_sorted=True,
        )

    def num_cached_keys(self) -> int:
        """How many derived arrays are there."""
        return len(self.cached_keys())

    def cached_keys(self) -> list[str]:
        """Which derived arrays are there."""
        return [name for name in _CACHED if name in self._cache]

    def fill_cache_(self) -> "Storage":
        """Derive every array now."""
        for name in _CACHED:
            getattr(self, name)()
        return self

    def clear_cache_(self) -> "Storage":
        """Forget every derived array."""
        self.rows()
        self._cache, self._graph = {}, None
        return self

    def clone(self) -> "SparseStorage":
        """A copy that shares nothing."""
        return self.apply(Tensor.clone)

    def copy(self) -> "SparseStorage":
        """A copy that shares its arrays."""
        return self._like(self._value)


class SparseStorage(Storage):
    """The entries of a sparse matrix [M, N], with the constructor of torch_sparse's.

    Args:
        row: [E] int64; or rowptr [M + 1] in its place.
        rowptr: [M + 1] int64.
        col: [E] int64.
        value: None or [E, ...].
        sparse_sizes: (M, N), or None for what indices need.
        rowcount: [M] entries of each row, where it is known; the others likewise.
        colptr: [N + 1].
        colcount: [N].
        csr2csc: [E].
        csc2csr: [E].
        is_sorted: The entries are in order.
        trust_data: Indices are within the sizes given.

    Raises:
        ValueError: a shape or dtype is wrong, or an index is beyond the sizes.
    """

    def __init__(
        self,
        row: Tensor | None = None,
        rowptr: Tensor | None = None,
        col: Tensor | None = None,
        value: Tensor | None = None,
        sparse_sizes: tuple[int | None, int | None] | None = None,
        rowcount: Tensor | None = None,
        colptr: Tensor | None = None,
        colcount: Tensor | None = None,
        csr2csc: Tensor | None = None,
        csc2csr: Tensor | None = None,
        is_sorted: bool = False,
        trust_data: bool = False,
    ) -> None:
        self._fill(
            row,
            rowptr,
            col,
            value,
            sparse_sizes,
            rowcount,
            colptr,
            colcount,
            csr2csc,
            csc2csr,
            is_sorted,
            trust_data,
        )

    @left_alone
    def _fill(
        self,
        row: Tensor | None,
        rowptr: Tensor | None,
        col: Tensor | None,
        value: Tensor | None,
        sparse_sizes: tuple[int | None, int | None] | None,
        rowcount: Tensor | None,
        colptr: Tensor | None,
        colcount: Tensor | None,
        csr2csc: Tensor | None,
        csc2csr: Tensor | None,
        is_sorted: bool,
        trust_data: bool,
    ) -> None:
        cached = {
            "rowcount": rowcount,
            "colptr": colptr,
            "colcount": colcount,
            "csr2csc": csr2csc,
            "csc2csr": csc2csr,
        }
        self.fill(row, rowptr, col, value, sparse_sizes, cached, is_sorted, trust_data)

    @left_alone
    def value(self) -> OptTensor:
        """[E, ...] value of each entry, or None."""
        return self._value

    @left_alone
    def row(self) -> Tensor:
        """[E] row of each entry."""
        return self.rows()

    @left_alone
    def col(self) -> Tensor:
        """[E] column of each entry."""
        return self._col

    @left_alone
    def rowptr(self) -> Tensor:
        """[M + 1] where each row begins."""
        return self._derived("rowptr", lambda: pointers(self.rowcount()))

    @left_alone
    def rowcount(self) -> Tensor:
        """[M] entries in each row."""
        if "rowptr" in self._cache:
            return self._derived("rowcount", lambda: self._cache["rowptr"].diff())
        return self._derived(
            "rowcount", lambda: torch.bincount(self.rows(), minlength=self._sizes[0])
        )

    @left_alone
    def colptr(self) -> Tensor:
        """[N + 1] where each column begins in the order of columns."""
        return self._derived("colptr", lambda: pointers(self.colcount()))

    @left_alone
    def colcount(self) -> Tensor:
        """[N] entries in each column."""
        return self._derived(
            "colcount", lambda: torch.bincount(self._col, minlength=self._sizes[1])
        )

    @left_alone
    def csr2csc(self) -> Tensor:
        """[E] position, in the order of rows, of each entry in the order of columns."""
        return self._derived("csr2csc", lambda: index_sort(self._col, self._sizes[1])[1])

    @left_alone
    def csc2csr(self) -> Tensor:
        """[E] its inverse."""
        return self._derived("csc2csr", lambda: _inverse(self.csr2csc()))
