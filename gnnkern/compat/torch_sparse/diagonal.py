"""The diagonals of a sparse matrix: taken, removed, set, filled."""

import torch
from torch import Tensor

from gnnkern.compat._script import left_alone
from gnnkern.compat.torch_sparse._matrix import bind
from gnnkern.compat.torch_sparse.selection import masked_select_nnz
from gnnkern.compat.torch_sparse.tensor import SparseTensor

__all__ = ["fill_diag", "get_diag", "remove_diag", "set_diag"]


def remove_diag(src: SparseTensor, k: int = 0) -> SparseTensor:
    """Without the entries (i, i + k)."""
    return masked_select_nnz(src, src.storage.row() != src.storage.col() - k, "coo")


def _length(src: SparseTensor, k: int) -> int:
    rows, cols = src.sparse_sizes()
    return max(min(rows + min(k, 0), cols - max(k, 0)), 0)


def set_diag(src: SparseTensor, values: Tensor | None = None, k: int = 0) -> SparseTensor:
    """With one entry at every (i, i + k).

    Args:
        src: [M, N, ...].
        values: The values of these, [length of the diagonal, ...]; None: ones. Not looked at where
            src has no values.
        k: Which diagonal, above the main one.
    """
    return _with_diagonal(src, values, k)


@left_alone
def _with_diagonal(src: SparseTensor, values: Tensor | None, k: int) -> SparseTensor:
    rest, length = remove_diag(src, k), _length(src, k)
    diagonal = torch.arange(length, device=src.device())
    row = torch.cat((rest.storage.row(), diagonal + max(-k, 0)))
    col = torch.cat((rest.storage.col(), diagonal + max(k, 0)))
    value = rest.storage.value()
    if value is not None:
        shape = (length, *value.shape[1:])
        new = value.new_ones(shape) if values is None else values.to(value.dtype).expand(shape)
        value = torch.cat((value, new))
    return SparseTensor(row, None, col, value, src.sparse_sizes(), False, True)


def fill_diag(src: SparseTensor, fill_value: float, k: int = 0) -> SparseTensor:
    """With one entry of this value at every (i, i + k)."""
    return _with_filled_diagonal(src, fill_value, k)


@left_alone
def _with_filled_diagonal(src: SparseTensor, fill_value: float, k: int) -> SparseTensor:
    value = src.storage.value()
    filled = None
    if value is not None:
        filled = value.new_full((_length(src, k), *value.shape[1:]), fill_value)
    return _with_diagonal(src, filled, k)


def get_diag(src: SparseTensor) -> Tensor:
    """The entries (i, i), [min(M, N), ...], 0 where there is none; ones without values."""
    row, col, value = src.coo()
    on_diagonal = row == col
    if value is None:
        value = torch.ones(row.numel(), dtype=src.dtype(), device=src.device())
    diagonal = value.new_zeros((_length(src, 0), *value.shape[1:]))
    return diagonal.index_put((row[on_diagonal],), value[on_diagonal])


bind(remove_diag=remove_diag, set_diag=set_diag, fill_diag=fill_diag, get_diag=get_diag)
