"""Sparse matrices plus and times what broadcasts over their rows or columns, or one another."""

import torch
from torch import Tensor

from gnnkern.compat._script import left_alone
from gnnkern.compat.torch_scatter import gather_csr
from gnnkern.compat.torch_sparse._matrix import bind
from gnnkern.compat.torch_sparse.tensor import SparseTensor

__all__ = ["add", "add_", "add_nnz", "add_nnz_", "mul", "mul_", "mul_nnz", "mul_nnz_"]


def _at_entries(src: SparseTensor, other: Tensor, what: str) -> Tensor:
    """For every entry what `other`, one row or one column of the matrix, has there."""
    rows, cols = src.sparse_sizes()
    if other.dim() >= 2 and other.shape[0] == rows and other.shape[1] == 1:
        return gather_csr(other.squeeze(1), src.storage.rowptr())
    if other.dim() >= 2 and other.shape[0] == 1 and other.shape[1] == cols:
        return other.squeeze(0)[src.storage.col()]
    raise ValueError(
        f"{what}: other must have shape [{rows}, 1, ...] or [1, {cols}, ...], got "
        f"{list(other.shape)}"
    )


@left_alone
def scaled(src: SparseTensor, other: Tensor) -> SparseTensor:
    """`mul`, as TorchScript reads it."""
    if isinstance(other, SparseTensor):
        return _in_both(src, other)
    factor, value = _at_entries(src, other, "mul"), src.storage.value()
    return src.set_value(factor if value is None else value * factor.to(value.dtype), "coo")


def mul(src: SparseTensor, other: Tensor) -> SparseTensor:
    """Entries times what stands beside their row ([M, 1]) or above their column ([1, N]).

    With a SparseTensor: the products of the entries that both have.
    """
    return scaled(src, other)


def _in_both(src: SparseTensor, other: SparseTensor) -> SparseTensor:
    if not (src.is_coalesced() and other.is_coalesced()):
        raise ValueError("mul: both sparse matrices must be coalesced")
    value, other_value = src.storage.value(), other.storage.value()
    if value is None or other_value is None:
        raise ValueError("mul: both sparse matrices must have values")
    sizes = _joint_sizes(src, other)
    key, other_key = (m.storage.row() * sizes[1] + m.storage.col() for m in (src, other))
    if other_key.numel() == 0:
        position = torch.zeros_like(key)
        both = torch.zeros_like(key, dtype=torch.bool)
    else:
        position = torch.searchsorted(other_key, key).clamp(max=other_key.numel() - 1)
        both = other_key[position] == key
    row, col = src.storage.row()[both], src.storage.col()[both]
    product = value[both] * other_value[position[both]]
    return SparseTensor(row, None, col, product, sizes, True, True)


def _joint_sizes(src: SparseTensor, other: SparseTensor) -> tuple[int, int]:
    (rows, cols), (other_rows, other_cols) = src.sparse_sizes(), other.sparse_sizes()
    return max(rows, other_rows), max(cols, other_cols)


@left_alone
def _sum(src: SparseTensor, other: Tensor) -> SparseTensor:
    if not isinstance(other, SparseTensor):
        term, value = _at_entries(src, other, "add"), src.storage.value()
        return src.set_value(term + 1 if value is None else value + term.to(value.dtype), "coo")
    value, other_value = src.storage.value(), other.storage.value()
    joint = None
    if value is not None and other_value is not None:
        joint = torch.cat((value, other_value))
    row = torch.cat((src.storage.row(), other.storage.row()))
    col = torch.cat((src.storage.col(), other.storage.col()))
    both = SparseTensor(row, None, col, joint, _joint_sizes(src, other), False, True)
    return both.coalesce("sum")


def add(src: SparseTensor, other: Tensor) -> SparseTensor:
    """Entries plus what stands beside their row ([M, 1]) or above their column ([1, N]).

    With a SparseTensor: the entries of both, summed where both have one.
    """
    return _sum(src, other)


def mul_(src: SparseTensor, other: Tensor) -> SparseTensor:
    """`mul` with a dense row or column, in place."""
    return src.set_value_(mul(src, other).storage.value(), "coo")


def add_(src: SparseTensor, other: Tensor) -> SparseTensor:
    """`add` with a dense row or column, in place."""
    return src.set_value_(add(src, other).storage.value(), "coo")


def mul_nnz(src: SparseTensor, other: Tensor, layout: str | None = None) -> SparseTensor:
    """Entries times the elements of `other` [E, ...], in the order of `layout`."""
    value, factor = src.storage.value(), src.storage.in_rows(other, layout)
    return src.set_value(factor if value is None else value * factor.to(value.dtype), "coo")


def add_nnz(src: SparseTensor, other: Tensor, layout: str | None = None) -> SparseTensor:
    """Entries plus the elements of `other` [E, ...], in the order of `layout`."""
    value, term = src.storage.value(), src.storage.in_rows(other, layout)
    return src.set_value(term + 1 if value is None else value + term.to(value.dtype), "coo")


def mul_nnz_(src: SparseTensor, other: Tensor, layout: str | None = None) -> SparseTensor:
    """`mul_nnz`, in place."""
    return src.set_value_(mul_nnz(src, other, layout).storage.value(), "coo")


def add_nnz_(src: SparseTensor, other: Tensor, layout: str | None = None) -> SparseTensor:
    """`add_nnz`, in place."""
    return src.set_value_(add_nnz(src, other, layout).storage.value(), "coo")


bind(add=add, add_=add_, add_nnz=add_nnz, add_nnz_=add_nnz_, __add__=add, __radd__=add)
bind(mul=mul, mul_=mul_, mul_nnz=mul_nnz, mul_nnz_=mul_nnz_, __mul__=mul, __rmul__=mul)
