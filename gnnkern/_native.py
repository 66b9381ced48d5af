"""The C++ module: loading it, how tensors are handed to it, and the kernels of the graph.

Nothing here checks shapes: the public ops and `Graph` have done so.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from gnnkern.settings import isa_from_environment

__all__ = [
    "NO_CSR",
    "Csr",
    "accumulate_dtype",
    "argument_dtype",
    "native",
    "native_error",
    "optional_csr",
]


class Csr(NamedTuple):
    """The tensors of a CSR matrix whose rows are destinations."""

    indptr: Tensor  # [num_rows + 1]
    indices: Tensor  # [E]
    edge_id: Tensor | None  # [E], None: the caller's order
    # int64 [plan_length(num_rows, E)], on a GPU [1 + num_chunks, 4] (gnnkern/_triton/plan.py)
    plan: Tensor


# The fields of no matrix, where an operator may be given one or not.
NO_CSR = (None, None, None, None)


def optional_csr(
    indptr: Tensor | None, indices: Tensor | None, edge_id: Tensor | None, plan: Tensor | None
) -> Csr | None:
    """The matrix of these fields, or None where they are those of no matrix."""
    if indptr is None or indices is None or plan is None:
        return None
    return Csr(indptr, indices, edge_id, plan)


def _share_openmp() -> str | None:
    """Make the libgomp that torch has loaded visible to `_C`; returns why it could not."""
    try:
        mapped = Path("/proc/self/maps").read_text()
    except OSError as error:
        return f"the loaded libraries cannot be listed: {error}"
    libraries = re.findall(r"(/\S*/lib(?:gomp|iomp5|omp)[^/\s]*\.so[^/\s]*)$", mapped, re.MULTILINE)
    if not libraries:
        return "torch has loaded no OpenMP library"
    ctypes.CDLL(libraries[0], mode=ctypes.RTLD_GLOBAL)
    return None


def _load() -> tuple[ModuleType | None, str | None]:
    reason = _share_openmp()
    try:
        from gnnkern import _C
    except ImportError as error:
        return None, f"{error}" if reason is None else f"{error} ({reason})"
    isa = isa_from_environment()
    if isa is not None:
        _C.set_isa(isa)
    return _C, None


native, native_error = _load()

SCALAR_CODES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
INDEX_CODES = {torch.int32: 0, torch.int64: 1}
REDUCE_CODES = {"sum": 0, "mean": 1, "max": 2, "min": 3, "mul": 4, "logsumexp": 5}
EDGE_OP_CODES = {"dot": 0, "add": 1, "sub": 2, "mul": 3, "div": 4, "copy": 5}
EDGE_END_CODES = {"dst": 0, "src": 1, "edge": 2}


def argument_dtype(max_degree: int) -> torch.dtype:
    """The narrowest integer that holds every position in a row of `max_degree` edges."""
    return torch.uint8 if max_degree < 255 else torch.int16 if max_degree < 65535 else torch.int32


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """The precision sums are held in: float64 for float64, otherwise float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def module() -> ModuleType:
    """`gnnkern._C`; RuntimeError where it did not load."""
    if native is None:
        raise RuntimeError(f"gnnkern: the C++ module did not load: {native_error}")
    return native


def address(tensor: Tensor | None) -> int:
    """Where the elements lie; 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()


def fields(csr: Csr, num_cols: int) -> tuple[int, ...]:
    """A matrix as the kernels take it."""
    indptr, indices, edge_id, plan = csr
    return (
        INDEX_CODES[indptr.dtype],
        indptr.data_ptr(),
        indices.data_ptr(),
        address(edge_id),
        plan.data_ptr(),
        indptr.shape[0] - 1,
        num_cols,
        indices.shape[0],
    )


def segment_fields(indptr: Tensor, num_edges: int) -> tuple[int, ...]:
    """Segments of consecutive rows; their plan is made, and indptr checked, by the callee."""
    num_rows = indptr.shape[0] - 1
    code = INDEX_CODES[indptr.dtype]
    return (code, indptr.data_ptr(), 0, 0, 0, num_rows, num_edges, num_edges)


def rows_of(x: Tensor) -> tuple[Tensor, int, int]:
    """`x` with contiguous rows, its row stride and its row width, in elements."""
    shape, stride = x.shape, x.stride()
    if len(shape) == 2 and stride[1] == 1 and stride[0] >= shape[1]:
        return x, stride[0], shape[1]
    width = shape[1:].numel()
    return x.contiguous(), width, width


def new_statistics(x: Tensor, num_groups: int, parts: int) -> Tensor:
    """[num_groups, parts, ...] to be filled: the shift and the slope that a gradient is made of."""
    return x.new_empty((num_groups, parts, *x.shape[1:]), dtype=accumulate_dtype(x.dtype))


# -- graph ---------------------------------------------------------------------------------------


def plan_length(num_rows: int, num_edges: int) -> int:
    """How many int64 elements the plan of a matrix takes."""
    return int(module().plan_length(num_rows, num_edges))


def make_plan(indptr: Tensor, num_edges: int) -> Tensor:
    """Row-chunk plan of `indptr` [num_rows + 1]; ValueError where it is no valid indptr."""
    num_rows = indptr.shape[0] - 1
    plan = torch.empty(plan_length(num_rows, num_edges), dtype=torch.int64)
    code = INDEX_CODES[indptr.dtype]
    module().make_plan(code, indptr.data_ptr(), num_rows, num_edges, plan.data_ptr())
    return plan


def indptr_edges(indptr: Tensor) -> int:
    """The number of edges of a contiguous indptr [num_rows + 1]; -1 where it is not valid."""
    code = INDEX_CODES[indptr.dtype]
    return int(module().indptr_edges(code, indptr.data_ptr(), indptr.shape[0] - 1))


def plan_max_degree(plan: Tensor) -> int:
    """The largest row of a plan."""
    return int(plan[7])


def sort_edges(
    rows: Tensor,  # [E], any stride
    cols: Tensor | None,  # [E], any stride
    num_rows: int,
    num_cols: int,
    dtype: torch.dtype,
) -> tuple[int, bool, Tensor, Tensor, Tensor]:
    """Stable sort by row: (first bad edge or -1, was sorted, indptr, indices, edge_id)."""
    num_edges = rows.shape[0]
    indptr = torch.empty(num_rows + 1, dtype=dtype)
    indices = torch.empty(num_edges if cols is not None else 0, dtype=dtype)
    edge_id = torch.empty(num_edges, dtype=dtype)
    bad_edge, was_sorted = module().sort_edges(
        INDEX_CODES[rows.dtype],
        rows.data_ptr(),
        rows.stride(0) if num_edges else 1,
        address(cols),
        cols.stride(0) if cols is not None and num_edges else 1,
        num_edges,
        num_rows,
        num_cols,
        INDEX_CODES[dtype],
        indptr.data_ptr(),
        indices.data_ptr() if cols is not None else 0,
        edge_id.data_ptr(),
        torch.get_num_threads(),
    )
    return bad_edge, was_sorted, indptr, indices, edge_id


def reverse_csr(
    indptr: Tensor,  # [num_rows + 1]
    indices: Tensor,  # [E]
    edge_id: Tensor | None,  # [E]
    num_cols: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The transposed matrix (indptr [num_cols + 1], indices [E], edge_id [E])."""
    rev_indptr = torch.empty(num_cols + 1, dtype=indptr.dtype)
    rev_indices = torch.empty_like(indices)
    rev_edge_id = torch.empty_like(indices)
    module().reverse_csr(
        INDEX_CODES[indptr.dtype],
        indptr.data_ptr(),
        indices.data_ptr(),
        address(edge_id),
        indptr.shape[0] - 1,
        num_cols,
        indices.shape[0],
        rev_indptr.data_ptr(),
        rev_indices.data_ptr(),
        rev_edge_id.data_ptr(),
        torch.get_num_threads(),
    )
    return rev_indptr, rev_indices, rev_edge_id
