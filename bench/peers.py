"""The peers of every op: who they are, whether they are here, what memory they take.

The adapters, one function per (peer, op), stand in `peer_torch`, `peer_pyg` and
`peer_torch_scatter`, a few lines each as a user of that library writes them. Whatever depends on
the graph alone (CSR tensors, sorted indices, `EdgeIndex` caches) is made by the adapter, outside of
what is timed. A peer whose edges are sorted by destination takes its edge tensors in that order.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from functools import lru_cache
from typing import NamedTuple

from bench.problems import FORWARD, Problem
from bench.runners import Runner

ADAPTERS = {
    "torch": "bench.peer_torch",
    "torch_geometric": "bench.peer_pyg",
    "torch_scatter": "bench.peer_torch_scatter",
}


class Peer(NamedTuple):
    """A peer's way to one op."""

    name: str
    package: str
    adapter: str  # a function of the package's adapter module
    # Tensors [E, F] of float32 alive at the peak: of a forward, of it and the gradients.
    edge_rows: tuple[float, float] = (0.0, 0.0)
    reduces: tuple[str, ...] = ("sum", "mean", "max", "dot", "")

    def build(self, problem: Problem) -> Runner:
        """Bind the peer to a problem."""
        module = importlib.import_module(ADAPTERS[self.package])
        runner: Runner = getattr(module, self.adapter)(problem)
        return runner

    def bytes_needed(self, problem: Problem, direction: str) -> float:
        """An estimate of the memory that a call takes beside its inputs and its result."""
        edge_rows = self.edge_rows[direction != FORWARD]
        return edge_rows * 4.0 * problem.graph.num_edges * problem.width


@lru_cache
def absent(package: str) -> str | None:
    """Why a package cannot be used; None where it can."""
    try:
        importlib.import_module(package)
    except Exception as error:  # noqa: BLE001  a broken build may raise anything
        return f"{package} is absent: {type(error).__name__}: {error}"
    return None


def versions() -> dict[str, str]:
    """The version of every peer's package, or why it is absent."""
    return {package: absent(package) or importlib.metadata.version(package) for package in ADAPTERS}


def peers(op: str, reduce: str) -> tuple[Peer, ...]:
    """The peers that have an op and a reduction, present or absent, in the order of columns."""
    return tuple(peer for peer in PEERS[op] if reduce in peer.reduces)


_SUM = ("sum",)
_PYG = "torch_geometric"
_SCATTER = "torch_scatter"

PEERS: dict[str, tuple[Peer, ...]] = {
    "spmm": (
        Peer("torch csr", "torch", "spmm_csr", reduces=_SUM),
        Peer("torch csr reduce", "torch", "spmm_csr_reduce"),
        Peer("torch index_add", "torch", "spmm_index_add", (2, 4), reduces=_SUM),
        Peer("torch scatter_reduce", "torch", "spmm_scatter_reduce", (2, 6)),
        Peer("pyg", _PYG, "spmm", (2, 6)),
        Peer("pyg EdgeIndex", _PYG, "spmm_edge_index", (0, 6)),
        Peer("torch_scatter csr", _SCATTER, "spmm_csr", (2, 4)),
        Peer("torch_scatter scatter", _SCATTER, "spmm_scatter", (2, 6)),
    ),
    "sddmm": (
        Peer("torch sampled_addmm", "torch", "sddmm_sampled"),
        Peer("torch gather", "torch", "sddmm_gather", (3, 5)),
    ),
    "edge_softmax": (
        Peer("torch", "torch", "softmax", (5, 8)),
        Peer("pyg", _PYG, "softmax_index", (5, 8)),
        Peer("pyg ptr", _PYG, "softmax_ptr", (5, 8)),
        Peer("torch_scatter csr", _SCATTER, "softmax_csr", (5, 8)),
        Peer("torch_scatter softmax", _SCATTER, "softmax_scatter", (5, 8)),
    ),
    "gat_attention": (
        Peer("torch", "torch", "gat_attention", (2.5, 5)),
        Peer("pyg", _PYG, "gat_attention", (2.5, 5)),
        Peer("torch_scatter csr", _SCATTER, "gat_attention", (2.5, 5)),
    ),
    "gat_layer": (
        Peer("torch", "torch", "gat_layer", (2.5, 5)),
        Peer("pyg", _PYG, "gat_layer", (2.5, 5)),
        Peer("pyg EdgeIndex", _PYG, "gat_layer_edge_index", (2.5, 5)),
        Peer("pyg loops ready", _PYG, "gat_layer_loops_ready", (2.5, 5)),
        Peer("torch_scatter csr", _SCATTER, "gat_layer", (2.5, 5)),
    ),
    "segment_reduce": (
        Peer("torch segment_reduce", "torch", "segment_reduce", (0, 2)),
        Peer("torch index_add", "torch", "segment_reduce_index_add", (0, 1), reduces=_SUM),
        Peer("pyg", _PYG, "segment_reduce", (0, 2)),
        Peer("torch_scatter csr", _SCATTER, "segment_reduce", (0, 2)),
    ),
    "segment_gather": (
        Peer("torch repeat_interleave", "torch", "segment_gather_repeat", (1, 1)),
        Peer("torch index_select", "torch", "segment_gather_index_select", (1, 1)),
        Peer("torch_scatter csr", _SCATTER, "segment_gather", (1, 1)),
    ),
    "segment_softmax": (
        Peer("torch", "torch", "softmax", (4, 6)),
        Peer("pyg", _PYG, "softmax_index", (4, 6)),
        Peer("pyg ptr", _PYG, "softmax_ptr", (4, 6)),
        Peer("torch_scatter csr", _SCATTER, "softmax_csr", (4, 6)),
        Peer("torch_scatter softmax", _SCATTER, "softmax_scatter", (4, 7)),
    ),
    "scatter_reduce": (
        Peer("torch index_add", "torch", "scatter_reduce_index_add", (0, 1), reduces=_SUM),
        Peer("torch scatter_reduce", "torch", "scatter_reduce_scatter_reduce", (0, 5)),
        Peer("pyg", _PYG, "scatter_reduce", (0, 5)),
        Peer("torch_scatter scatter", _SCATTER, "scatter_reduce", (0, 5)),
    ),
}
