"""How tensors are handed to Triton kernels."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from gnnkern._native import Csr
from gnnkern._walk import Walk, walk_segments, walk_with

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
    """A matrix as the kernels take it."""
    from gnnkern._triton.plan import make_plan

    return walk_with(csr, make_plan)


def segments_walk(indptr: Tensor, num_edges: int, chunk_edges: int | None = None) -> Walk:
    """Consecutive rows as the kernels take them; None: chunks are as long as `configs` says."""
    from gnnkern._triton.plan import make_plan

    return walk_segments(indptr, num_edges, make_plan, chunk_edges)
