"""Groups reduced in no order, where a caller allows it: there is no sort to pay for."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from gnnkern.ops._groups import check_first_bad
from gnnkern.ops._operator import needs_gradient

__all__ = ["UNORDERED", "reduces_unordered", "scatter_reduce_unordered"]

# What stands in place of a backend's name where its atomics run.
UNORDERED = "cuda_unordered"


def reduces_unordered(x: Tensor, reduce: str) -> bool:
    """Whether there are atomics for it: a gradient of max and min asks who has won."""
    return reduce in ("sum", "mean") or (reduce in ("max", "min") and not needs_gradient(x))


def scatter_reduce_unordered(
    x: Tensor,  # [E, ...]
    index: Tensor,  # [E]
    num_segments: int,
    reduce: str,
) -> Tensor:  # [num_segments, ...]
    """The CUDA atomics, straight from the unsorted index."""
    from gnnkern._cuda.scatter_atomics import scatter_atomics

    _respect_determinism("scatter_reduce")
    out, first_bad = scatter_atomics(x, index, num_segments, reduce)
    check_first_bad("scatter_reduce", index, num_segments, first_bad)
    return out


def _respect_determinism(op: str) -> None:
    """As torch's own ops that have an order of no kind: an error, or a warning where that will do.

    It is asked when the kernel runs, so that gradients and compiled code are held to it as well.
    """
    if not torch.are_deterministic_algorithms_enabled():
        return
    message = (
        f"{op}: deterministic must be True while torch.use_deterministic_algorithms(True) is in "
        "force, got False, and this call would run on atomics"
    )
    if not torch.is_deterministic_algorithms_warn_only_enabled():
        raise ValueError(message)
    warnings.warn(message, stacklevel=2)
