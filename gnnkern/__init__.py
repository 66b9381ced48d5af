"""Message passing for graph neural networks at the speed of the memory it lives in."""

from gnnkern.backends import BackendUnavailable, use_backend
from gnnkern.explain import explain
from gnnkern.graph import Graph
from gnnkern.integrations.pyg import (
    accelerate,
    decelerate,
    patch_pyg,
    patched_pyg,
    pyg_report,
    unpatch_pyg,
)
from gnnkern.ops import (
    dot_attention,
    edge_softmax,
    gat_attention,
    gather_matmul,
    gatv2_attention,
    multi_reduce,
    scatter_logsumexp,
    scatter_reduce,
    scatter_std,
    sddmm,
    segment_gather,
    segment_logsumexp,
    segment_matmul,
    segment_reduce,
    segment_softmax,
    spmm,
)

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailable",
    "Graph",
    "accelerate",
    "decelerate",
    "dot_attention",
    "edge_softmax",
    "explain",
    "gat_attention",
    "gatv2_attention",
    "gather_matmul",
    "multi_reduce",
    "patch_pyg",
    "patched_pyg",
    "pyg_report",
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
    "unpatch_pyg",
    "use_backend",
]
