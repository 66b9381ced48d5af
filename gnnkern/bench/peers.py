"""The peers of every op: who they are, whether they are here, what memory they take.

The adapters, one function per (peer, op), stand in `peer_<library>`, a few lines each as a user of
that library writes them. Whatever depends on the graph alone (CSR tensors, sorted indices,
`EdgeIndex` caches) is made by the adapter, outside of what is timed. A peer whose edges are sorted
by destination takes its edge tensors in that order.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch

from gnnkern.bench import cusparse
from gnnkern.bench.problems import Problem
from gnnkern.bench.runners import Runner, compiled

ADAPTERS = {
    "torch": "gnnkern.bench.peer_torch",
    "torch_geometric": "gnnkern.bench.peer_pyg",
    "torch_scatter": "gnnkern.bench.peer_torch_scatter",
    "torch_sparse": "gnnkern.bench.peer_torch_sparse",
    "dgl": "gnnkern.bench.peer_dgl",
}
# On a GPU, besides those.
CUDA_ADAPTERS = {"cusparse": "gnnkern.bench.peer_cusparse"}

# What the command line calls a group of peers, where that is not the name of the package.
NAMES = {"torch_geometric": "pyg", "torch_geometric compiled": "pyg-compiled"}
NAMES["torch compiled"] = "torch-compiled"

# The column of PyG as it comes, without a form of the edges that has to be asked for.
PYG_DEFAULT = "pyg"

EdgeRows = Mapping[str, tuple[float, ...]]
NOTHING: EdgeRows = {}


class Peer(NamedTuple):
    """A peer's way to one op."""

    name: str
    package: str
    adapter: str  # a function of the package's adapter module
    # By reduction, the tensors [E, F] of float32 alive at the peak of each direction, as measured
    # where E is large; a reduction that is not named takes nothing of that size.
    edge_rows: EdgeRows = NOTHING
    reduces: tuple[str, ...] = ("sum", "mean", "max", "dot", "")
    devices: tuple[str, ...] = ("cpu", "cuda")
    compiled: bool = False  # through torch.compile

    @property
    def group(self) -> str:
        """What is chosen together: a package, as it comes or compiled."""
        return f"{self.package} compiled" if self.compiled else self.package

    def build(self, problem: Problem) -> Runner:
        """Bind the peer to a problem."""
        module = importlib.import_module({**ADAPTERS, **CUDA_ADAPTERS}[self.package])
        runner: Runner = getattr(module, self.adapter)(problem)
        return compiled(runner) if self.compiled else runner

    def bytes_needed(self, problem: Problem, direction: str) -> float:
        """An estimate of the memory that a call takes beside its inputs and its result."""
        by_direction = self.edge_rows.get(problem.reduce, (0.0,))
        position = list(problem.directions).index(direction)
        edge_rows = by_direction[min(position, len(by_direction) - 1)]
        itemsize = problem.dtype.itemsize
        return edge_rows * itemsize * problem.graph.num_edges * problem.width


@lru_cache
def absent(package: str) -> str | None:
    """Why a package cannot be used; None where it can."""
    try:
        if package == "dgl":
            _let_dgl_import()
        if package == "cusparse":
            cusparse.load()
        else:
            importlib.import_module(package)
    except Exception as error:  # noqa: BLE001  a broken build may raise anything
        return f"{package} is absent: {type(error).__name__}: {error}"
    return None


def _let_dgl_import() -> None:
    """Put an empty module in the place of DGL's data loader where torch is another than its own.

    The loader, graphbolt, is compiled once per version of torch, and importing DGL fails where
    there is none for this one. The operators that are measured do without it.
    """
    if "dgl" in sys.modules:
        return
    spec = importlib.util.find_spec("dgl")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        version = torch.__version__.partition("+")[0]
        if not (Path(folder) / "graphbolt" / f"libgraphbolt_pytorch_{version}.so").exists():
            sys.modules.setdefault("dgl.graphbolt", ModuleType("dgl.graphbolt"))


def versions(device_type: str = "cpu") -> dict[str, str]:
    """The version of every peer's package, or why it is absent."""
    found = {p: absent(p) or importlib.metadata.version(p) for p in ADAPTERS}
    if device_type == "cuda":
        found["cusparse"] = absent("cusparse") or cusparse.version()
    return found


def peers(op: str, reduce: str, device_type: str = "cpu") -> tuple[Peer, ...]:
    """The peers that have an op and a reduction, present or absent, in the order of columns."""
    known = PEERS[op] + (COMPILED.get(op, ()) if device_type == "cuda" else ())
    return tuple(p for p in known if reduce in p.reduces and device_type in p.devices)


_PYG = "torch_geometric"
_SCATTER = "torch_scatter"
_TORCH_SPARSE = "torch_sparse"
_DGL = "dgl"
_SUM = ("sum",)
_GPU = ("cuda",)

# One message per edge, summed; torch's own maximum compares and divides them in its gradient.
_MESSAGES: EdgeRows = {"sum": (2.3, 2.5, 4.5), "mean": (1.5, 1.6), "max": (1.5, 1.8)}
_MESSAGES_TORCH: EdgeRows = {"sum": (2.3, 2.6, 4.6), "mean": (1.5, 4.8), "max": (1.5, 7.3)}
_EDGE_INDEX: EdgeRows = {"sum": (0.2, 0.5, 4.5), "mean": (0.3, 0.6), "max": (0.2, 7.3)}
_SPARSE: EdgeRows = {"sum": (0.3, 0.7), "mean": (0.3, 0.7), "max": (0.3, 0.7), "dot": (0.3, 1.0)}
_GATHERS: EdgeRows = {"dot": (3.1, 4.2)}
_EDGE_SOFTMAX: EdgeRows = {"": (6.6, 13.6)}
_SEGMENT_SOFTMAX: EdgeRows = {"": (4.7, 7.7)}
_ATTENTION: EdgeRows = {"": (2.7, 5.0)}
_LAYER: EdgeRows = {"": (3.4, 6.0)}
# DGL multiplies and sums as it gathers; what it makes per edge is as wide as the heads.
_LAYER_DGL: EdgeRows = {"": (0.3, 0.6)}
_ATTENTION_V2: EdgeRows = {"": (4.2, 7.0)}
_LAYER_V2: EdgeRows = {"": (4.6, 8.0)}
_DOT_ATTENTION: EdgeRows = {"": (4.0, 7.0)}
_DOT_LAYER: EdgeRows = {"": (4.7, 8.0)}
_REPEATED: EdgeRows = {"": (1.1, 1.3)}
# The matrix of every row, gathered, where there are seven edges to a node.
_GATHERED_MATRICES: EdgeRows = {"": (20.0, 60.0)}
_STATISTICS: EdgeRows = {"": (3.7, 6.7)}
_ROWS: EdgeRows = {"sum": (0.4, 1.5), "max": (0.4, 1.6)}
_FOUR: EdgeRows = {"": (4.0, 16.0)}
_ROWS_TORCH: EdgeRows = {"sum": (0.4, 1.5), "max": (0.4, 6.5)}
_ENDS: EdgeRows = {"add": (2.3, 3.3), "dot": (3.1, 4.2)}
_ON_EDGES = ("add", "dot")

PEERS: dict[str, tuple[Peer, ...]] = {
    "spmm": (
        Peer("torch csr", "torch", "spmm_csr", _SPARSE, _SUM),
        Peer("torch csr reduce", "torch", "spmm_csr_reduce", _SPARSE, devices=("cpu",)),
        Peer("cusparse", "cusparse", "spmm", NOTHING, _SUM, devices=_GPU),
        Peer("torch index_add", "torch", "spmm_index_add", _MESSAGES, _SUM),
        Peer("torch scatter_reduce", "torch", "spmm_scatter_reduce", _MESSAGES_TORCH),
        Peer("pyg", _PYG, "spmm", _MESSAGES_TORCH),
        Peer("pyg EdgeIndex", _PYG, "spmm_edge_index", _EDGE_INDEX),
        Peer("torch_scatter csr", _SCATTER, "spmm_csr", _MESSAGES),
        Peer("torch_scatter scatter", _SCATTER, "spmm_scatter", _MESSAGES),
        Peer("torch_sparse", _TORCH_SPARSE, "spmm", _SPARSE),
        Peer("dgl", _DGL, "spmm", _SPARSE),
    ),
    "sddmm": (
        Peer("torch sampled_addmm", "torch", "sddmm_sampled", _SPARSE),
        Peer("torch gather", "torch", "sddmm_gather", _GATHERS),
        Peer("dgl", _DGL, "sddmm", _SPARSE),
    ),
    "edge_softmax": (
        Peer("torch", "torch", "softmax", _EDGE_SOFTMAX),
        Peer("pyg", _PYG, "softmax_index", _EDGE_SOFTMAX),
        Peer("pyg ptr", _PYG, "softmax_ptr", _EDGE_SOFTMAX),
        Peer("torch_scatter csr", _SCATTER, "softmax_csr", _EDGE_SOFTMAX),
        Peer("torch_scatter softmax", _SCATTER, "softmax_scatter", _EDGE_SOFTMAX),
        Peer("dgl", _DGL, "edge_softmax", _EDGE_SOFTMAX),
    ),
    "gat_attention": (
        Peer("torch", "torch", "gat_attention", _ATTENTION),
        Peer("pyg", _PYG, "gat_attention", _ATTENTION),
        Peer("torch_scatter csr", _SCATTER, "gat_attention", _ATTENTION),
        Peer("dgl", _DGL, "gat_attention", _LAYER_DGL),
    ),
    "gat_layer": (
        Peer("torch", "torch", "gat_layer", _LAYER),
        Peer("pyg", _PYG, "gat_layer", _LAYER),
        Peer("pyg EdgeIndex", _PYG, "gat_layer_edge_index", _LAYER),
        Peer("pyg loops ready", _PYG, "gat_layer_loops_ready", _LAYER),
        Peer("torch_scatter csr", _SCATTER, "gat_layer", _LAYER),
        Peer("dgl", _DGL, "gat_layer", _LAYER_DGL),
    ),
    "gatv2_attention": (
        Peer("torch", "torch", "gatv2_attention", _ATTENTION_V2),
        Peer("pyg", _PYG, "gatv2_attention", _ATTENTION_V2),
        Peer("torch_scatter csr", _SCATTER, "gatv2_attention", _ATTENTION_V2),
        Peer("dgl", _DGL, "gatv2_attention", _ATTENTION_V2),
    ),
    "gatv2_layer": (
        Peer("torch", "torch", "gatv2_layer", _LAYER_V2),
        Peer("pyg", _PYG, "gatv2_layer", _LAYER_V2),
        Peer("pyg loops ready", _PYG, "gatv2_layer_loops_ready", _LAYER_V2),
        Peer("torch_scatter csr", _SCATTER, "gatv2_layer", _LAYER_V2),
    ),
    "dot_attention": (
        Peer("torch", "torch", "dot_attention", _DOT_ATTENTION),
        Peer("pyg", _PYG, "dot_attention", _DOT_ATTENTION),
        Peer("torch_scatter csr", _SCATTER, "dot_attention", _DOT_ATTENTION),
    ),
    "transformer_layer": (
        Peer("torch", "torch", "transformer_layer", _DOT_LAYER),
        Peer("pyg", _PYG, "transformer_layer", _DOT_LAYER),
        Peer("pyg EdgeIndex", _PYG, "transformer_layer_edge_index", _DOT_LAYER),
        Peer("torch_scatter csr", _SCATTER, "transformer_layer", _DOT_LAYER),
    ),
    "segment_reduce": (
        Peer("torch segment_reduce", "torch", "segment_reduce", _ROWS),
        Peer("torch index_add", "torch", "segment_reduce_index_add", _ROWS, _SUM),
        Peer("pyg", _PYG, "segment_reduce", _ROWS),
        Peer("torch_scatter csr", _SCATTER, "segment_reduce", _ROWS),
        Peer("dgl", _DGL, "segment_reduce", _ROWS),
    ),
    "segment_gather": (
        Peer("torch repeat_interleave", "torch", "segment_gather_repeat", _REPEATED),
        Peer("torch index_select", "torch", "segment_gather_index_select", _REPEATED),
        Peer("torch_scatter csr", _SCATTER, "segment_gather", _REPEATED),
    ),
    "segment_softmax": (
        Peer("torch", "torch", "softmax", _SEGMENT_SOFTMAX),
        Peer("pyg", _PYG, "softmax_index", _SEGMENT_SOFTMAX),
        Peer("pyg ptr", _PYG, "softmax_ptr", _SEGMENT_SOFTMAX),
        Peer("torch_scatter csr", _SCATTER, "softmax_csr", _SEGMENT_SOFTMAX),
        Peer("torch_scatter softmax", _SCATTER, "softmax_scatter", _SEGMENT_SOFTMAX),
    ),
    "scatter_reduce": (
        Peer("torch index_add", "torch", "scatter_reduce_index_add", _ROWS, _SUM),
        Peer("torch scatter_reduce", "torch", "scatter_reduce_scatter_reduce", _ROWS_TORCH),
        Peer("pyg", _PYG, "scatter_reduce", _ROWS_TORCH),
        Peer("torch_scatter scatter", _SCATTER, "scatter_reduce", _ROWS),
    ),
    "multi_reduce": (
        Peer("torch scatter_reduce", "torch", "multi_reduce", _FOUR),
        Peer("pyg MultiAggregation", _PYG, "multi_reduce", _FOUR),
        Peer("torch_scatter csr", _SCATTER, "multi_reduce_csr", _FOUR),
        Peer("torch_scatter scatter", _SCATTER, "multi_reduce_scatter", _FOUR),
    ),
    "spmm_messages": (
        Peer("torch index_add", "torch", "messages_index_add", _MESSAGES, _SUM),
        Peer("torch scatter_reduce", "torch", "messages_scatter_reduce", _MESSAGES_TORCH),
        Peer("pyg scatter", _PYG, "messages", _MESSAGES_TORCH),
        Peer("torch_scatter csr", _SCATTER, "messages_csr", _MESSAGES),
        Peer("torch_scatter scatter", _SCATTER, "messages_scatter", _MESSAGES),
        Peer("dgl", _DGL, "messages", _SPARSE),
    ),
    "sddmm_rows": (
        Peer("torch gather", "torch", "on_edges", _ENDS, _ON_EDGES),
        Peer("dgl", _DGL, "on_edges", NOTHING, _ON_EDGES),
    ),
    "segment_matmul": (
        Peer("torch loop", "torch", "segment_matmul_loop"),
        Peer("torch bmm of gathered matrices", "torch", "matmul_bmm", _GATHERED_MATRICES),
        Peer("pyg HeteroLinear", _PYG, "segment_matmul"),
        Peer("dgl", _DGL, "segment_matmul"),
    ),
    "gather_matmul": (
        Peer("torch loop over sorted", "torch", "gather_matmul_sorted"),
        Peer("torch loop over masks", "torch", "gather_matmul_masks"),
        Peer("torch bmm of gathered matrices", "torch", "matmul_bmm", _GATHERED_MATRICES),
        Peer("pyg HeteroLinear", _PYG, "gather_matmul"),
        Peer("dgl", _DGL, "gather_matmul"),
    ),
    "segment_logsumexp": (
        Peer("torch", "torch", "segment_logsumexp", _STATISTICS),
        Peer("pyg", _PYG, "segment_logsumexp", _STATISTICS),
        Peer("torch_scatter csr", _SCATTER, "segment_logsumexp", _STATISTICS),
    ),
    "scatter_logsumexp": (
        Peer("torch", "torch", "scatter_logsumexp", _STATISTICS),
        Peer("torch_scatter scatter", _SCATTER, "scatter_logsumexp", _STATISTICS),
    ),
    "scatter_std": (
        Peer("torch", "torch", "scatter_std", _STATISTICS),
        Peer("torch_scatter scatter", _SCATTER, "scatter_std", _STATISTICS),
    ),
}


def _compiled(peer: Peer) -> Peer:
    """The same through torch.compile; the plain path of a library has the library's name alone."""
    plain = "torch" if peer.package == "torch" else PYG_DEFAULT
    name = peer.name if peer.name in _NOT_PLAIN else plain
    return peer._replace(name=f"{name} compiled", compiled=True, devices=_GPU)


# The layer counts the loops that it removes, where torch.compile has to break off.
_NOT_PLAIN = ("pyg loops ready",)
# On a GPU, where torch.compile makes fewer kernels of these, and as many passes over the edges.
_COMPILED_NAMES = {
    "spmm": ("torch scatter_reduce", "pyg"),
    "edge_softmax": ("torch", "pyg"),
    "gat_attention": ("torch", "pyg"),
    "gat_layer": ("pyg", "pyg loops ready"),
    "gatv2_attention": ("torch", "pyg"),
    "gatv2_layer": ("pyg", "pyg loops ready"),
    "dot_attention": ("torch", "pyg"),
    "transformer_layer": ("pyg",),
    "multi_reduce": ("torch scatter_reduce", "pyg MultiAggregation"),
    "spmm_messages": ("torch scatter_reduce", "pyg scatter"),
    "segment_softmax": ("torch", "pyg"),
    "sddmm": ("torch gather",),
    "sddmm_rows": ("torch gather",),
}
COMPILED = {
    op: tuple(_compiled(peer) for peer in PEERS[op] if peer.name in names)
    for op, names in _COMPILED_NAMES.items()
}
# What `Peer.group` may be.
GROUPS = (*ADAPTERS, *CUDA_ADAPTERS, "torch compiled", f"{_PYG} compiled")
