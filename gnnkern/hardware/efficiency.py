"""How far from the floor the implementations were measured: what `predict` multiplies by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["EFFICIENCY", "Efficiency", "efficiency_of"]


class Efficiency(NamedTuple):
    """What was measured of an op.

    Attributes:
        forward: The floor by the time of the C++ kernels.
        backward: The same of what a gradient adds to floor and time.
        reference_forward: The reference's time in copies of a tensor of E rows of features, in the
            type it computes in.
        reference_backward: The same of what a gradient adds.
        reference_calls: Torch ops in the reference's forward, about.
    """

    forward: float
    backward: float
    reference_forward: float
    reference_backward: float
    reference_calls: int


# float32, width 64 (edge_softmax: 4 heads; gat_attention: 4 heads of 16), 2 threads of an Intel
# Xeon with AVX-512 and AMX (a virtual machine); gnnkern.bench's powerlaw_1m and, for ops with
# gathers, powerlaw_10m: the geometric mean of both. Medians of 9 calls; gradients of every input.
EFFICIENCY = {
    "spmm": Efficiency(0.48, 0.42, 6.6, 9.8, 4),
    "spmm select": Efficiency(0.44, 0.02, 46.0, 13.0, 20),
    "sddmm": Efficiency(0.37, 0.36, 8.3, 13.0, 5),
    "edge_softmax": Efficiency(0.10, 0.13, 130.0, 20.0, 30),
    "gat_attention": Efficiency(0.26, 0.08, 17.0, 21.0, 40),
    "segment_reduce": Efficiency(0.89, 0.57, 5.0, 1.6, 5),
    "segment_reduce select": Efficiency(0.86, 0.11, 65.0, 16.0, 20),
    "segment_gather": Efficiency(0.67, 0.74, 3.0, 3.4, 4),
    "segment_softmax": Efficiency(0.15, 0.12, 59.0, 25.0, 30),
    "scatter_reduce": Efficiency(0.34, 0.39, 6.6, 2.7, 3),
    "scatter_reduce select": Efficiency(0.28, 0.09, 65.0, 16.0, 20),
}
# Ops without a measurement stand as the one that walks most like them.
_LIKE = {
    "gatv2_attention": "gat_attention",
    "dot_attention": "gat_attention",
    "multi_reduce": "spmm",
    "segment_logsumexp": "segment_softmax",
    "scatter_logsumexp": "segment_softmax",
    "scatter_std": "scatter_reduce",
    "segment_matmul": "segment_gather",
    "gather_matmul": "segment_gather",
}


def efficiency_of(op: str, reduces: Sequence[str]) -> Efficiency:
    """What is known of an op, or of the one most like it."""
    known = _LIKE.get(op, op)
    if all(reduce in ("max", "min") for reduce in reduces):
        known = f"{known} select" if f"{known} select" in EFFICIENCY else known
    return EFFICIENCY[known]
