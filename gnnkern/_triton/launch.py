"""How tensors are handed to Triton kernels."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from gnnkern._native import Csr
from gnnkern._walk import Walk

__all__ = [
    "Walk",
    "accumulator",
    "alignment",
    "argument_mask",
    "run",
    "segments_walk",
    "walk_of",
]


def run(
    kernel: Any, grid: Sequence[int], device: torch.device, *args: Any, warps: int = 4, **meta: Any
) -> None:
    """Launch a kernel on a device, on torch's current stream; a grid of size 0 is none."""
    if min(grid) == 0:
        return
    guard: AbstractContextManager[Any] = nullcontext()
    if device.type == "cuda":
        guard = torch.cuda.device(device)
    with guard:
        kernel[tuple(grid)](*args, num_warps=warps, **meta)


def accumulator(dtype: torch.dtype) -> Any:
    """The Triton type that sums are held in: float64 for float64, otherwise float32."""
    return tl.float64 if dtype == torch.float64 else tl.float32


def alignment(element_size: int, *counts: int) -> int:
    """The most elements, of 16 bytes together, of which every count is a multiple.

    Counts are passed to kernels in units of it, so that the compiler sees what rows are aligned to
    and loads 16 bytes at a time.
    """
    vector = 16 // element_size
    while any(count % vector for count in counts):
        vector //= 2
    return vector


def argument_mask(argument: Tensor | None) -> int:
    """The bits of a stored position: that of a small type, read as signed, may look negative."""
    return -1 if argument is None else {1: 0xFF, 2: 0xFFFF, 4: -1}[argument.element_size()]


def walk_of(csr: Csr) -> Walk:
    """A matrix as the kernels take it.

    A graph on a GPU holds its plan. One on the CPU holds that of the C++ kernels, so that Triton's
    interpreter plans at each call.
    """
    from gnnkern._triton.plan import drop_empty, make_plan

    num_edges = csr.indices.shape[0]
    plan = csr.plan
    if plan.dim() != 2:
        plan = drop_empty(make_plan(csr.indptr, num_edges))
    return Walk(csr.indptr, csr.indices, csr.edge_id, plan if plan.shape[0] else None, num_edges)


def segments_walk(indptr: Tensor, num_edges: int, chunk_edges: int | None = None) -> Walk:
    """Consecutive rows as the kernels take them; None: chunks are as long as `configs` says."""
    from gnnkern._triton.plan import make_plan

    plan = make_plan(indptr, num_edges, chunk_edges)
    return Walk(indptr, None, None, plan if plan.shape[0] else None, num_edges)
