"""Products of sparse matrices with dense ones and with one another."""

import torch
from torch import Tensor

from gnnkern.compat._script import left_alone
from gnnkern.compat.torch_sparse._matrix import bind
from gnnkern.compat.torch_sparse.tensor import SparseTensor
from gnnkern.ops.spmm import spmm as _spmm

__all__ = ["matmul", "product", "spmm", "spspmm"]


def matmul(src: SparseTensor, other: Tensor, reduce: str = "sum") -> Tensor:
    """The sparse matrix times `other`, its sums replaced by another reduction.

    Args:
        src: [M, N], with values of one dimension, differentiable, or without.
        other: [N, F] or [N]; or a SparseTensor [N, K], for "sum".
        reduce: "sum", "add", "mean", "max" or "min". A row without entries gets 0.

    Returns:
        [M, F] or [M]; a SparseTensor [M, K] where `other` is one.

    Gradients: of other and of the values, by any number of derivatives for sums and means.
    """
    return product(src, other, reduce)


@left_alone
def product(src: SparseTensor, other: Tensor, reduce: str) -> Tensor:
    """`matmul` with every argument, as TorchScript reads it."""
    if isinstance(other, SparseTensor):
        if reduce not in ("sum", "add"):
            raise NotImplementedError(f"matmul: two sparse matrices are summed, got {reduce!r}")
        return _sparse_product(src, other)
    reduce = "sum" if reduce == "add" else reduce
    value = src.storage.value()
    if value is not None:
        value = value.to(other.dtype)
    rows = other.unsqueeze(-1) if other.dim() == 1 else other
    out = _spmm(src.storage.graph(), rows, value, reduce=reduce)
    return out.squeeze(-1) if other.dim() == 1 else out


def _sparse_product(src: SparseTensor, other: SparseTensor) -> SparseTensor:
    out = torch.sparse.mm(src.to_torch_sparse_coo_tensor(), other.to_torch_sparse_coo_tensor())
    has_value = src.has_value() or other.has_value()
    return SparseTensor.from_torch_sparse_coo_tensor(out, has_value)


def spmm(index: Tensor, value: Tensor, m: int, n: int, matrix: Tensor) -> Tensor:
    """The sparse matrix [m, n] of entries `index` [2, E] and `value` [E], times `matrix` [n, F].

    Entries may come in any order, and several at one place. A vector [n] counts as [n, 1].
    """
    src = SparseTensor(index[0], None, index[1], value, (m, n), False, False)
    return matmul(src, matrix.unsqueeze(-1) if matrix.dim() == 1 else matrix)


def spspmm(
    indexA: Tensor,
    valueA: Tensor,
    indexB: Tensor,
    valueB: Tensor,
    m: int,
    k: int,
    n: int,
    coalesced: bool = False,
) -> tuple[Tensor, Tensor]:
    """The product of sparse matrices [m, k] and [k, n]: its entries [2, E] and values [E].

    By torch's product of sparse matrices, which is differentiable once. Entries at one place are
    summed whether `coalesced` or not.
    """
    a = torch.sparse_coo_tensor(indexA, valueA, (m, k))
    b = torch.sparse_coo_tensor(indexB, valueB, (k, n))
    out = torch.sparse.mm(a, b).coalesce()
    return out.indices(), out.values()


def _spmm_method(self: SparseTensor, other: Tensor, reduce: str = "sum") -> Tensor:
    """`matmul`, as a method."""
    return product(self, other, reduce)


bind(matmul=_spmm_method, spmm=_spmm_method, __matmul__=_spmm_method)
