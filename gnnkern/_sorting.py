"""Sorting, reversing and planning edges: in C++ on the CPU, in CUDA or by torch on a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnkern import _cuda, _native, _triton
from gnnkern._triton import configs
from gnnkern._walk import drop_empty, plan_shape

__all__ = [
    "check_indptr",
    "compact_plan",
    "make_plan",
    "max_degree",
    "reverse_csr",
    "row_begins",
    "sort_edges",
    "sorts_on_device",
]

_LIBRARY = torch.library.Library("gnnkern", "FRAGMENT")


def _native_runs(tensor: Tensor) -> bool:
    return _native.native is not None and tensor.is_cpu


def sorts_on_device(rows: Tensor, num_rows: int) -> bool:
    """Whether CUDA sorts edges [E] by row; its kernels number both in 32 bits."""
    return _cuda_runs(rows) and max(rows.shape[0], num_rows) < 2**32 - 1


def _cuda_runs(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda" and _cuda.unusable() is None


def _triton_plans(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda" and _triton.import_error() is None


def make_plan(indptr: Tensor, num_edges: int) -> Tensor:
    """The row-chunk plan of a matrix for the kernels of its device; empty where there are none.

    On a GPU nothing is copied to the host, and the size follows from that of the matrix.
    """
    if _native_runs(indptr):
        return _native.make_plan(indptr, num_edges)
    if _cuda_runs(indptr):
        from gnnkern._cuda.plan import make_plan as make_cuda_plan

        return make_cuda_plan(indptr, num_edges)
    if _triton_plans(indptr):
        from gnnkern._triton.plan import make_plan as make_triton_plan

        return make_triton_plan(indptr, num_edges)
    return torch.empty(0, dtype=torch.int64)


def compact_plan(plan: Tensor) -> Tensor:
    """A plan without empty slots, of which there are none on the CPU; copies a number to it."""
    if plan.dim() != 2:
        return plan
    return drop_empty(plan)


def max_degree(indptr: Tensor, plan: Tensor) -> int:
    """The largest number of edges in a row."""
    if plan.dim() == 1 and plan.numel():
        return _native.plan_max_degree(plan)
    return int((indptr[1:] - indptr[:-1]).max()) if indptr.shape[0] > 1 else 0


def check_indptr(who: str, indptr: Tensor, num_edges: int | None) -> None:
    """ValueError where indptr does not go from 0 to num_edges (any) without decreasing."""
    # Inside a transform of torch.func, or as a subclass, it may have no memory to look at.
    plain = type(indptr) is Tensor and not torch._C._are_functorch_transforms_active()
    if plain and _native_runs(indptr) and indptr.is_contiguous():
        edges = _native.indptr_edges(indptr)
        if edges >= 0 and num_edges in (None, edges):
            return
    first, last = int(indptr[0]), int(indptr[-1])
    if num_edges is None:
        num_edges = last
    if first == 0 and last == num_edges >= 0 and bool((indptr[1:] >= indptr[:-1]).all()):
        return
    if first != 0 or last != num_edges:
        raise ValueError(
            f"{who}: indptr must go from 0 to the number of edges {num_edges}, got {first} to "
            f"{last}"
        )
    falls = (indptr[1:] < indptr[:-1]).nonzero()
    if falls.numel():
        row = int(falls[0])
        raise ValueError(
            f"{who}: indptr must not decrease, got {int(indptr[row])}, {int(indptr[row + 1])} at "
            f"row {row}"
        )


def sort_edges(
    rows: Tensor,  # [E]
    cols: Tensor | None,  # [E]
    num_rows: int,
    num_cols: int,
    dtype: torch.dtype,
) -> tuple[int, Tensor, Tensor, Tensor | None]:
    """Stable sort by row: (first bad edge or -1, indptr, indices, edge_id or None if sorted)."""
    if _native_runs(rows):
        bad_edge, was_sorted, indptr, indices, edge_id = _native.sort_edges(
            rows, cols, num_rows, num_cols, dtype
        )
        return bad_edge, indptr, indices, None if was_sorted else edge_id
    if sorts_on_device(rows, num_rows):
        from gnnkern._cuda.sort_edges import sort_edges as sort_by_cuda

        cols = None if cols is None else cols.to(rows.dtype)
        found = sort_by_cuda(rows, cols, num_rows, num_cols, dtype)
        first_bad, descends = found.status.tolist()
        bad_edge = first_bad if first_bad < rows.shape[0] else -1
        return bad_edge, found.indptr, found.indices, found.edge_id if descends else None
    bad = (rows < 0) | (rows >= num_rows)
    if cols is not None:
        bad |= (cols < 0) | (cols >= num_cols)
    if bool(bad.any()):
        return int(bad.nonzero()[0]), rows, rows, None
    in_order, order = torch.sort(rows, stable=True)
    indptr = row_begins(in_order, num_rows).to(dtype)
    indices = rows.new_empty(0) if cols is None else cols[order]
    was_sorted = bool((rows[1:] >= rows[:-1]).all())
    return -1, indptr, indices.to(dtype), None if was_sorted else order.to(dtype)


def row_begins(in_order: Tensor, num_rows: int) -> Tensor:  # [num_rows + 1]
    """Where each row begins among sorted rows [E]: found without copying a count to the host."""
    rows = torch.arange(num_rows + 1, dtype=in_order.dtype, device=in_order.device)
    return torch.searchsorted(in_order, rows)


def reverse_csr(
    indptr: Tensor,  # [num_rows + 1]
    indices: Tensor,  # [E]
    edge_id: Tensor | None,  # [E]
    num_cols: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The transposed matrix; edges of a row keep the order of their old rows."""
    if _native_runs(indptr):
        return _native.reverse_csr(indptr, indices, edge_id, num_cols)
    if sorts_on_device(indices, max(num_cols, indptr.shape[0] - 1)):
        from gnnkern._cuda.sort_edges import reverse_csr as reverse_by_cuda

        return reverse_by_cuda(indptr, indices, edge_id, num_cols)
    nodes = torch.arange(indptr.shape[0] - 1, device=indptr.device)
    degree = (indptr[1:] - indptr[:-1]).long()
    rows = torch.repeat_interleave(nodes, degree, output_size=indices.shape[0])
    in_order, order = torch.sort(indices, stable=True)
    rev_indptr = row_begins(in_order, num_cols).to(indptr.dtype)
    rev_edge_id = order.to(indptr.dtype) if edge_id is None else edge_id[order]
    return rev_indptr, rows[order].to(indptr.dtype), rev_edge_id


# -- the reverse as a torch operator, for graphs first reversed inside torch.compile --------------

_LIBRARY.define(
    "reverse_csr(Tensor indptr, Tensor indices, Tensor? edge_id, SymInt num_cols)"
    " -> (Tensor, Tensor, Tensor, Tensor)"
)


def _reverse_with_plan(
    indptr: Tensor, indices: Tensor, edge_id: Tensor | None, num_cols: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    reversed_arrays = reverse_csr(indptr, indices, edge_id, num_cols)
    return *reversed_arrays, make_plan(reversed_arrays[0], indices.shape[0])


_LIBRARY.impl("reverse_csr", _reverse_with_plan, "CompositeExplicitAutograd")


def _reverse_fake(
    indptr: Tensor, indices: Tensor, edge_id: Tensor | None, num_cols: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    num_edges = indices.shape[0]
    # The size of a plan follows from the counts.
    if _cuda_runs(indptr) or _triton_plans(indptr):
        plan = indptr.new_empty(
            plan_shape(num_cols, num_edges, configs.chunk_edges(num_cols, num_edges))
        )
    else:
        # csrc/cpu/plan.h
        chunk = 2048
        group = torch.sym_min(torch.sym_max((num_cols + num_edges) // 16, 256), chunk)
        items = (2 * (num_cols + num_edges) + 3 * num_edges) // group + 2
        length = 8 + 5 * items + 3 * (num_edges // chunk + 1)
        plan = torch.empty(length, dtype=torch.int64)
    return (
        indptr.new_empty(num_cols + 1),
        torch.empty_like(indices),
        torch.empty_like(indices),
        plan,
    )


torch.library.register_fake("gnnkern::reverse_csr", _reverse_fake, lib=_LIBRARY)
