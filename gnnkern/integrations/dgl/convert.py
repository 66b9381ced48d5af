"""DGL's own graphs to and from `DGLGraph`; needs DGL only where one comes or goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gnnkern.graph import Graph
from gnnkern.integrations.dgl.dgl_graph import DGLGraph
from gnnkern.integrations.dgl.frames import Frame

__all__ = ["from_dgl", "to_dgl"]


def from_dgl(graph: Any) -> DGLGraph:
    """A `dgl.DGLGraph` with its features, its edge order and the sizes of its batch.

    Features are shared, not copied. Blocks and graphs of several relations are taken as well.

    Raises:
        TypeError: `graph` does not look like a graph of DGL.
    """
    if not hasattr(graph, "canonical_etypes") or not hasattr(graph, "is_block"):
        raise TypeError(f"from_dgl: graph must be a dgl.DGLGraph, got {type(graph).__name__}")
    num_src = {ntype: int(graph.num_src_nodes(ntype)) for ntype in graph.srctypes}
    num_dst = {ntype: int(graph.num_dst_nodes(ntype)) for ntype in graph.dsttypes}
    block = bool(graph.is_block)
    if not block:
        num_src = num_dst = {ntype: int(graph.num_nodes(ntype)) for ntype in graph.ntypes}
    relations = {
        etype: Graph.from_dgl(graph, etype) for etype in map(tuple, graph.canonical_etypes)
    }
    made = DGLGraph(relations, num_src, num_dst, block)
    for ntype, frame in made._frames.src.items():
        _take(frame, (graph.srcnodes if block else graph.nodes)[ntype].data)
    if block:
        for ntype, frame in made._frames.dst.items():
            _take(frame, graph.dstnodes[ntype].data)
    for etype, frame in made._frames.edge.items():
        _take(frame, graph.edges[etype].data)
    if not block and graph.batch_size > 1:
        made.set_batch_num_nodes({ntype: graph.batch_num_nodes(ntype) for ntype in num_src})
        made.set_batch_num_edges({etype: graph.batch_num_edges(etype) for etype in relations})
    return made


def _take(frame: Frame, data: Any) -> None:
    for name in list(data):
        frame[name] = data[name]


def to_dgl(graph: DGLGraph) -> Any:
    """The `dgl.DGLGraph` with the same edges, in the same order, and the same features.

    Raises:
        ImportError: DGL is not installed, or does not import beside this version of torch.
    """
    try:
        import dgl
    except Exception as error:
        raise ImportError(f"to_dgl: DGL does not import: {error}") from error
    edges = {etype: tuple(graph.relation(etype).edge_index) for etype in graph.canonical_etypes}
    frames = graph._frames
    views: list[tuple[Any, Mapping[Any, Frame]]]
    if graph.is_block:
        made = dgl.create_block(edges, graph._num_src, graph._num_dst)
        views = [(made.srcnodes, frames.src), (made.dstnodes, frames.dst)]
    else:
        made = dgl.heterograph(edges, graph._num_src)
        views = [(made.nodes, frames.src)]
        if graph.batch_size > 1:
            made.set_batch_num_nodes({t: graph.batch_num_nodes(t) for t in graph.ntypes})
            made.set_batch_num_edges({t: graph.batch_num_edges(t) for t in edges})
    for view, by_type in (*views, (made.edges, frames.edge)):
        for kind, frame in by_type.items():
            view[kind].data.update(dict(frame))
    return made
