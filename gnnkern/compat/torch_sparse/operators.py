"""torch_sparse's operators that PyG calls through `torch.ops`: products over CSR arrays."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnnkern.compat._script import define_all
from gnnkern.compat.torch_scatter import segment_max_csr, segment_min_csr
from gnnkern.compat.torch_sparse import sampling
from gnnkern.graph import Graph
from gnnkern.ops.spmm import spmm

__all__ = ["define"]

_SUM = "Tensor? row, Tensor rowptr, Tensor col, Tensor? value"
_SELECT = "Tensor rowptr, Tensor col, Tensor? value, Tensor mat"


def _product(rowptr: Tensor, col: Tensor, value: Tensor | None, mat: Tensor, reduce: str) -> Tensor:
    graph = Graph.from_csr(rowptr, col, num_src=mat.shape[0])
    return spmm(graph, mat, None if value is None else value.to(mat.dtype), reduce=reduce)


def _spmm_sum(
    row: Tensor | None,
    rowptr: Tensor,
    col: Tensor,
    value: Tensor | None,
    colptr: Tensor | None,
    csr2csc: Tensor | None,
    mat: Tensor,
) -> Tensor:
    return _product(rowptr, col, value, mat, "sum")


def _spmm_mean(
    row: Tensor | None,
    rowptr: Tensor,
    col: Tensor,
    value: Tensor | None,
    rowcount: Tensor | None,
    colptr: Tensor | None,
    csr2csc: Tensor | None,
    mat: Tensor,
) -> Tensor:
    return _product(rowptr, col, value, mat, "mean")


def _messages(col: Tensor, value: Tensor | None, mat: Tensor) -> Tensor:
    rows = mat.index_select(0, col)
    return rows if value is None else rows * value.to(mat.dtype).unsqueeze(-1)


def _spmm_min(
    rowptr: Tensor, col: Tensor, value: Tensor | None, mat: Tensor
) -> tuple[Tensor, Tensor]:
    return segment_min_csr(_messages(col, value, mat), rowptr)


def _spmm_max(
    rowptr: Tensor, col: Tensor, value: Tensor | None, mat: Tensor
) -> tuple[Tensor, Tensor]:
    return segment_max_csr(_messages(col, value, mat), rowptr)


_OPERATORS: dict[str, tuple[str, Callable[..., Any]]] = {
    "spmm_sum": (f"({_SUM}, Tensor? colptr, Tensor? csr2csc, Tensor mat) -> Tensor", _spmm_sum),
    "spmm_mean": (
        f"({_SUM}, Tensor? rowcount, Tensor? colptr, Tensor? csr2csc, Tensor mat) -> Tensor",
        _spmm_mean,
    ),
    "spmm_min": (f"({_SELECT}) -> (Tensor, Tensor)", _spmm_min),
    "spmm_max": (f"({_SELECT}) -> (Tensor, Tensor)", _spmm_max),
    **sampling.OPERATORS,
}


def define() -> torch.library.Library:
    """Define `torch.ops.torch_sparse.spmm_sum` and the others; they last as long as the result.

    The extremes come with the entry that won and so make the messages; sums and means do not.
    """
    library = torch.library.Library("torch_sparse", "FRAGMENT")
    define_all(library, _OPERATORS)
    return library
