"""The public operators, one file each."""

from __future__ import annotations

import importlib

from gnnkern.backends import Implementation
from gnnkern.ops.dot_attention import dot_attention
from gnnkern.ops.edge_softmax import edge_softmax
from gnnkern.ops.gat_attention import gat_attention
from gnnkern.ops.gather_matmul import gather_matmul
from gnnkern.ops.gatv2_attention import gatv2_attention
from gnnkern.ops.multi_reduce import multi_reduce
from gnnkern.ops.scatter_logsumexp import scatter_logsumexp
from gnnkern.ops.scatter_reduce import scatter_reduce
from gnnkern.ops.scatter_std import scatter_std
from gnnkern.ops.sddmm import sddmm
from gnnkern.ops.segment_gather import segment_gather
from gnnkern.ops.segment_logsumexp import segment_logsumexp
from gnnkern.ops.segment_matmul import segment_matmul
from gnnkern.ops.segment_reduce import segment_reduce
from gnnkern.ops.segment_softmax import segment_softmax
from gnnkern.ops.spmm import spmm

__all__ = [
    "dot_attention",
    "edge_softmax",
    "gat_attention",
    "gatv2_attention",
    "gather_matmul",
    "multi_reduce",
    "scatter_logsumexp",
    "scatter_reduce",
    "scatter_std",
    "sddmm",
    "segment_gather",
    "segment_logsumexp",
    "segment_matmul",
    "segment_reduce",
    "segment_softmax",
    "spmm",
]


def implementations() -> dict[str, tuple[Implementation, ...]]:
    """The table of implementations of every op."""
    return {
        name: importlib.import_module(f"gnnkern.ops.{name}").IMPLEMENTATIONS for name in __all__
    }
