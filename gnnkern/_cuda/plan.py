"""Launchers of plan.cu, and matrices as the CUDA kernels walk them."""

from __future__ import annotations

from torch import Tensor

from gnnkern._cuda.launch import launch
from gnnkern._native import INDEX_CODES, Csr
from gnnkern._triton import configs
from gnnkern._walk import Walk, plan_shape, walk_segments, walk_with

__all__ = ["check_numbers", "make_plan", "segments_walk", "walk_of"]

# Rows and edges are numbered in 32 bits inside a kernel.
_MOST = 2**32 - 1


def make_plan(indptr: Tensor, num_edges: int, chunk_edges: int | None = None) -> Tensor:
    """The plan of `indptr` [num_rows + 1], with empty slots; None: T is that of `configs`."""
    num_rows = indptr.shape[0] - 1
    chunk_edges = chunk_edges or configs.chunk_edges(num_rows, num_edges)
    plan = indptr.new_empty(plan_shape(num_rows, num_edges, chunk_edges))
    if plan.shape[0]:
        code = INDEX_CODES[indptr.dtype]
        sizes = (num_rows, num_edges, chunk_edges)
        launch("make_plan", indptr.device, plan, indptr.contiguous(), code, *sizes)
    return plan


def walk_of(csr: Csr) -> Walk:
    """A matrix as the kernels take it."""
    return _checked(walk_with(csr, make_plan))


def segments_walk(indptr: Tensor, num_edges: int, chunk_edges: int | None = None) -> Walk:
    """Consecutive rows as the kernels take them; None: chunks are as long as `configs` says."""
    return _checked(walk_segments(indptr.contiguous(), num_edges, make_plan, chunk_edges))


def check_numbers(num_rows: int, num_edges: int) -> None:
    """ValueError where rows or edges are more than the kernels number."""
    if max(num_rows, num_edges) >= _MOST:
        raise ValueError(
            f"the CUDA kernels take fewer than {_MOST} rows and edges, got {num_rows} rows "
            f"and {num_edges} edges"
        )


def _checked(walk: Walk) -> Walk:
    check_numbers(walk.num_rows, walk.num_edges)
    return walk
