"""Rows, columns and entries of a sparse matrix chosen, joined, turned and permuted."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gnnkern.compat._script import left_alone
from gnnkern.compat.torch_scatter import gather_csr
from gnnkern.compat.torch_sparse._matrix import bind
from gnnkern.compat.torch_sparse.storage import SparseStorage, pointers
from gnnkern.compat.torch_sparse.tensor import SparseTensor

__all__ = [
    "cat",
    "index_select",
    "index_select_nnz",
    "masked_select",
    "masked_select_nnz",
    "narrow",
    "permute",
    "select",
    "t",
]


def t(src: SparseTensor) -> SparseTensor:
    """The transpose: what is derived of one serves the other."""
    storage = src.storage
    colptr, row, value = src.csc()
    turned = SparseStorage(
        row=storage.col()[storage.csr2csc()],
        rowptr=colptr,
        col=row,
        value=value,
        sparse_sizes=(src.sparse_size(1), src.sparse_size(0)),
        rowcount=storage.colcount(),
        colptr=storage.rowptr(),
        colcount=storage.rowcount(),
        csr2csc=storage.csc2csr(),
        csc2csr=storage.csr2csc(),
        is_sorted=True,
        trust_data=True,
    )
    return SparseTensor.from_storage(turned)


@left_alone
def _entries(src: SparseTensor, mask: Tensor, layout: str | None) -> SparseTensor:
    mask = src.storage.in_rows(mask, layout)
    row, col, value = src.coo()
    value = None if value is None else value[mask]
    return SparseTensor(row[mask], None, col[mask], value, src.sparse_sizes(), True, True)


def masked_select_nnz(src: SparseTensor, mask: Tensor, layout: str | None = None) -> SparseTensor:
    """The entries where `mask` [E], in the order of `layout`, is true; the sizes stay."""
    return _entries(src, mask, layout)


def index_select_nnz(src: SparseTensor, idx: Tensor, layout: str | None = None) -> SparseTensor:
    """The entries at positions `idx`, which keep the order; the sizes stay."""
    if layout == "csc":
        idx = src.storage.csr2csc()[idx]
    row, col, value = src.coo()
    value = None if value is None else value[idx]
    return SparseTensor(row[idx], None, col[idx], value, src.sparse_sizes(), True, True)


def index_select(src: SparseTensor, dim: int, idx: Tensor) -> SparseTensor:
    """Rows (dim 0) or columns (1) `idx` in its order, some twice; or values along a dimension."""
    dim = dim + src.dim() if dim < 0 else dim
    if dim >= 2:
        value = src.storage.value()
        assert value is not None
        return src.set_value(value.index_select(dim - 1, idx), "coo")
    if dim == 1:
        return t(index_select(t(src), 0, idx))
    rowptr, col, value = src.csr()
    count = src.storage.rowcount()[idx]
    new_ptr = pointers(count)
    total = int(new_ptr[-1])
    shift = gather_csr(rowptr[idx] - new_ptr[:-1], new_ptr)
    position = torch.arange(total, device=idx.device) + shift
    value = None if value is None else value[position]
    sizes = (idx.numel(), src.sparse_size(1))
    return SparseTensor(None, new_ptr, col[position], value, sizes, True, True)


def masked_select(src: SparseTensor, dim: int, mask: Tensor) -> SparseTensor:
    """Rows, columns, or values along a dimension, where `mask` is true."""
    return index_select(src, dim, mask.nonzero().flatten())


def narrow(src: SparseTensor, dim: int, start: int, length: int) -> SparseTensor:
    """`length` rows, columns, or values along a dimension, from `start` on."""
    dim = dim + src.dim() if dim < 0 else dim
    if dim >= 2:
        value = src.storage.value()
        assert value is not None
        return src.set_value(value.narrow(dim - 1, start, length), "coo")
    start = start + src.sparse_size(dim) if start < 0 else start
    if dim == 1:
        col = src.storage.col()
        kept = masked_select_nnz(src, (col >= start) & (col < start + length), "coo")
        row, col, value = kept.coo()
        sizes = (src.sparse_size(0), length)
        return SparseTensor(row, None, col - start, value, sizes, True, True)
    rowptr, col, value = src.csr()
    rowptr = rowptr.narrow(0, start, length + 1)
    first, last = int(rowptr[0]), int(rowptr[-1])
    value = None if value is None else value[first:last]
    sizes = (length, src.sparse_size(1))
    return SparseTensor(None, rowptr - first, col[first:last], value, sizes, True, True)


def select(src: SparseTensor, dim: int, idx: int) -> SparseTensor:
    """One row or column, as a matrix."""
    return narrow(src, dim, idx, 1)


def permute(src: SparseTensor, perm: Tensor) -> SparseTensor:
    """Rows and columns in the order of `perm`."""
    return index_select(index_select(src, 0, perm), 1, perm)


def cat(tensors: Sequence[SparseTensor], dim: Any) -> SparseTensor:
    """Join matrices below each other (dim 0), beside each other (1) or along the diagonal (0, 1).

    From dimension 2 on values are joined. The sizes are summed where matrices are joined and are
    the largest elsewhere.
    """
    if isinstance(dim, int) and dim >= 2:
        joint = torch.cat([_to_value(m) for m in tensors], dim - 1)
        return tensors[0].set_value(joint, "coo")
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    if not set(dims) <= {0, 1} or not dims:
        raise ValueError(f"cat: dim must be 0, 1, (0, 1) or that of values, got {dim!r}")
    offset, largest = [0, 0], [0, 0]
    rows, cols, values = [], [], []
    for matrix in tensors:
        row, col, value = matrix.coo()
        rows.append(row + offset[0])
        cols.append(col + offset[1])
        values.append(value)
        for i in (0, 1):
            largest[i] = max(largest[i], offset[i] + matrix.sparse_size(i))
            offset[i] += matrix.sparse_size(i) if i in dims else 0
    present = [value for value in values if value is not None]
    joint_value = torch.cat(present) if len(present) == len(values) else None
    sizes = (largest[0], largest[1])
    is_sorted = 0 in dims
    return SparseTensor(torch.cat(rows), None, torch.cat(cols), joint_value, sizes, is_sorted, True)


def _to_value(self: SparseTensor) -> Tensor:
    value = self.storage.value()
    if value is None:
        raise ValueError("cat: matrices must have values to be joined along those")
    return value


def _item(self: SparseTensor, index: Any) -> SparseTensor:
    """Rows, columns and values by numbers, slices, masks and indices, as in a dense tensor."""
    items = list(index) if isinstance(index, tuple) else [index]
    if sum(item is Ellipsis for item in items) > 1:
        raise IndexError("SparseTensor: at most one ... in an index")
    dim, out = 0, self
    for position, item in enumerate(items):
        if item is Ellipsis:
            dim = self.dim() - (len(items) - position - 1)
            continue
        if isinstance(item, int):
            out = select(out, dim, item)
        elif isinstance(item, slice):
            start, stop, step = item.indices(out.size(dim))
            if step != 1:
                raise ValueError("SparseTensor: slices must have a step of 1")
            out = narrow(out, dim, start, max(stop - start, 0))
        else:
            item = torch.as_tensor(item, device=out.device())
            chosen = masked_select if item.dtype == torch.bool else index_select
            out = chosen(out, dim, item)
        dim += 1
    return out


def _symmetric(self: SparseTensor, reduce: str = "sum") -> SparseTensor:
    """The entries of the matrix and of its transpose, reduced where both have one."""
    row, col, value = self.coo()
    size = max(self.sparse_sizes())
    value = None if value is None else torch.cat((value, value))
    both = SparseTensor(
        torch.cat((row, col)), None, torch.cat((col, row)), value, (size, size), False, True
    )
    return both.coalesce(reduce)


bind(
    t=t,
    narrow=narrow,
    select=select,
    index_select=index_select,
    index_select_nnz=index_select_nnz,
    masked_select=masked_select,
    masked_select_nnz=masked_select_nnz,
    permute=permute,
    to_symmetric=_symmetric,
    __getitem__=_item,
)
