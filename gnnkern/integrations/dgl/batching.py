"""Many small graphs as one, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from gnnkern.integrations.dgl.construct import graphs_of
from gnnkern.integrations.dgl.dgl_graph import DGLGraph
from gnnkern.integrations.dgl.errors import DGLError
from gnnkern.integrations.dgl.frames import Frame
from gnnkern.integrations.dgl.structure import EdgeType

__all__ = ["batch", "unbatch"]

Kind = TypeVar("Kind")


def batch(graphs: Sequence[DGLGraph]) -> DGLGraph:
    """One graph of several: their nodes and edges one after the other, with their features.

    Args:
        graphs: Graphs of the same types, whose nodes and edges have the same fields; no blocks.

    Returns:
        A graph with `batch_size`, `batch_num_nodes()` and `batch_num_edges()`.

    Raises:
        DGLError: there is no graph, or types or fields differ.
    """
    if not graphs:
        raise DGLError("batch: needs at least one graph, got none")
    first = graphs[0]
    for position, g in enumerate(graphs):
        alike = g.ntypes == first.ntypes and g.canonical_etypes == first.canonical_etypes
        if g.is_block or not alike:
            raise DGLError(
                f"batch: graph {position} must have the types {first.canonical_etypes} and be no "
                f"block, got {g.canonical_etypes}"
            )
    nodes = {ntype: torch.cat([g.batch_num_nodes(ntype) for g in graphs]) for ntype in first.ntypes}
    edges = {
        etype: torch.cat([g.batch_num_edges(etype) for g in graphs])
        for etype in first.canonical_etypes
    }
    num_nodes = {ntype: sum(g.num_nodes(ntype) for g in graphs) for ntype in first.ntypes}
    before = {ntype: 0 for ntype in first.ntypes}
    parts: dict[EdgeType, list[Tensor]] = {etype: [] for etype in edges}
    for g in graphs:
        for etype, shifted in parts.items():
            shifted.append(g.relation(etype).edge_index + _shift(etype, before, g))
        before = {ntype: start + g.num_nodes(ntype) for ntype, start in before.items()}
    joined = {etype: torch.cat(shifted, 1) for etype, shifted in parts.items()}
    joint = DGLGraph(graphs_of(joined, num_nodes, num_nodes), num_nodes, num_nodes)
    for ntype in first.ntypes:
        _join([g._frames.src[ntype] for g in graphs], joint._frames.src[ntype])
    for etype in edges:
        _join([g._frames.edge[etype] for g in graphs], joint._frames.edge[etype])
    joint.set_batch_num_nodes(nodes)
    joint.set_batch_num_edges(edges)
    return joint


def _shift(etype: EdgeType, starts: Mapping[str, int], g: DGLGraph) -> Tensor:  # [2, 1]
    """Where the nodes of one graph begin, at both ends of a relation."""
    return torch.tensor([[starts[etype[0]]], [starts[etype[2]]]], device=g.device)


def _join(frames: list[Frame], joint: Frame) -> None:
    """The rows of all frames, which must have the same fields unless they have no rows."""
    frames = [frame for frame in frames if frame.num_rows] or frames[:1]
    fields = set(frames[0])
    for frame in frames:
        if set(frame) != fields:
            raise DGLError(
                f"batch: the {joint.what} of all graphs must have the same fields, got "
                f"{sorted(fields)} and {sorted(frame)}"
            )
    for name in frames[0]:
        joint[name] = torch.cat([frame[name] for frame in frames])


def unbatch(g: DGLGraph) -> list[DGLGraph]:
    """The graphs of a batch, with their features."""
    size = g.batch_size
    nodes = {ntype: g.batch_num_nodes(ntype).tolist() for ntype in g.ntypes}
    edges = {etype: g.batch_num_edges(etype).tolist() for etype in g.canonical_etypes}
    index = {
        etype: g.relation(etype).edge_index.split(counts, 1) for etype, counts in edges.items()
    }
    node_parts = {ntype: _split(g._frames.src[ntype], counts) for ntype, counts in nodes.items()}
    edge_parts = {etype: _split(g._frames.edge[etype], counts) for etype, counts in edges.items()}
    starts = {ntype: 0 for ntype in nodes}
    graphs = []
    for i in range(size):
        count = {ntype: counts[i] for ntype, counts in nodes.items()}
        own = {etype: parts[i] - _shift(etype, starts, g) for etype, parts in index.items()}
        one = DGLGraph(graphs_of(own, count, count), count, count)
        _fill(one._frames.src, node_parts, i)
        _fill(one._frames.edge, edge_parts, i)
        graphs.append(one)
        starts = {ntype: start + count[ntype] for ntype, start in starts.items()}
    return graphs


def _split(frame: Frame, counts: list[int]) -> dict[str, tuple[Tensor, ...]]:
    return {name: value.split(counts) for name, value in frame.items()}


def _fill(
    frames: Mapping[Kind, Frame], parts: Mapping[Kind, dict[str, tuple[Tensor, ...]]], i: int
) -> None:
    for kind, frame in frames.items():
        frame.update({name: split[i] for name, split in parts[kind].items()})
