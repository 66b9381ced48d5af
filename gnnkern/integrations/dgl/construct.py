"""Graphs from edges, graphs from graphs, and batches of graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gnnkern.graph import Graph
from gnnkern.integrations.dgl.dgl_graph import DGLGraph
from gnnkern.integrations.dgl.errors import DGLError
from gnnkern.integrations.dgl.frames import Frame
from gnnkern.integrations.dgl.structure import EdgeType

__all__ = [
    "add_self_loop",
    "create_block",
    "graph",
    "heterograph",
    "remove_self_loop",
    "reverse",
]

_NODE, _EDGE = "_N", "_E"


def _edge_index(data: Any, device: Any) -> Tensor:  # [2, E]
    """Sources and destinations of a pair of tensors or lists, or of a list of pairs."""
    pair = isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], str | int)
    if pair or (isinstance(data, Tensor) and data.dim() == 2 and data.shape[0] == 2):
        src, dst = data
    elif isinstance(data, list):
        src, dst = zip(*data, strict=True) if data else ((), ())
    elif hasattr(data, "tocoo"):
        matrix = data.tocoo()
        src, dst = matrix.row, matrix.col
    else:
        raise DGLError(
            "edges must be a pair (sources, destinations), a list of pairs or a SciPy matrix, got "
            f"{type(data).__name__}"
        )
    ends = [torch.as_tensor(ids, device=device) for ids in (src, dst)]
    if any(ids.is_floating_point() and ids.numel() for ids in ends):
        raise DGLError(f"ids of nodes must be integers, got {ends[0].dtype} and {ends[1].dtype}")
    if ends[0].dim() != 1 or ends[0].shape != ends[1].shape:
        raise DGLError(
            f"sources and destinations must have shape [E], got {list(ends[0].shape)} and "
            f"{list(ends[1].shape)}"
        )
    return torch.stack([ids.long() for ids in ends])


def _sizes(edges: Mapping[EdgeType, Tensor], end: int, counts: dict[str, int]) -> dict[str, int]:
    """Numbers of nodes by type: one more than the largest id at an end, where nobody said."""
    needed: dict[str, int] = {}
    for etype, index in edges.items():
        largest = int(index[end // 2].max()) + 1 if index.numel() else 0
        needed[etype[end]] = max(needed.get(etype[end], 0), largest)
    for ntype, number in needed.items():
        if counts.get(ntype, number) < number:
            raise DGLError(
                f"num_nodes of {ntype!r} must be at least {number} for its ids, got {counts[ntype]}"
            )
    return needed | counts


def graphs_of(
    edges: Mapping[EdgeType, Tensor], num_src: Mapping[str, int], num_dst: Mapping[str, int]
) -> dict[EdgeType, Graph]:
    """The edges [2, E] of every relation, sorted."""
    return {
        etype: Graph.from_edge_index(index, (num_src[etype[0]], num_dst[etype[2]]))
        for etype, index in edges.items()
    }


def graph(
    data: Any, *, num_nodes: int | None = None, idtype: Any = None, device: Any = None
) -> DGLGraph:
    """A graph of one node type and one relation, sorted once.

    Args:
        data: (sources [E], destinations [E]) as tensors, arrays or lists of ids; a list of pairs;
            or a SciPy matrix with a row per source, whose values are ignored.
        num_nodes: Number of nodes; by default one more than the largest id.
        idtype: Accepted and ignored: ids are int64 outside and as narrow as they can be inside.
        device: Where the graph is to lie; by default where the ids do.

    Raises:
        DGLError: `data` is something else, or an id is beyond `num_nodes`.
        ValueError: an id is negative.
    """
    edges = {(_NODE, _EDGE, _NODE): _edge_index(data, device)}
    ends = [_sizes(edges, end, {} if num_nodes is None else {_NODE: num_nodes}) for end in (0, 2)]
    count = {_NODE: max(sizes[_NODE] for sizes in ends)}
    return DGLGraph(graphs_of(edges, count, count), count, count)


def heterograph(
    data_dict: Mapping[EdgeType, Any],
    num_nodes_dict: Mapping[str, int] | None = None,
    *,
    idtype: Any = None,
    device: Any = None,
) -> DGLGraph:
    """A graph of several relations.

    Args:
        data_dict: By (source type, relation, destination type) edges, as `graph` takes them.
        num_nodes_dict: Number of nodes by type; by default one more than the largest id.
        idtype: Accepted and ignored.
        device: Where the graph is to lie; by default where the ids do.

    Types and relations are in alphabetical order, as in DGL.

    Raises:
        DGLError: edges are something else, a type is missing or an id is beyond its number.
        ValueError: an id is negative.
    """
    edges = {etype: _edge_index(data_dict[etype], device) for etype in sorted(data_dict)}
    given = dict(num_nodes_dict or {})
    ends = [_sizes(edges, end, given) for end in (0, 2)]
    if num_nodes_dict is not None and (unknown := (ends[0].keys() | ends[1].keys()) - given.keys()):
        raise DGLError(f"num_nodes_dict must have every node type, lacks {sorted(unknown)}")
    ntypes = sorted(ends[0].keys() | ends[1].keys())
    count = {ntype: max(sizes.get(ntype, 0) for sizes in ends) for ntype in ntypes}
    return DGLGraph(graphs_of(edges, count, count), count, count)


def create_block(
    data_dict: Any,
    num_src_nodes: int | Mapping[str, int] | None = None,
    num_dst_nodes: int | Mapping[str, int] | None = None,
    *,
    idtype: Any = None,
    device: Any = None,
) -> DGLGraph:
    """A graph whose sources and destinations are apart, even of one type: a step of a mini-batch.

    Args:
        data_dict: Edges as `graph` takes them, or a dict of these as `heterograph` takes it.
        num_src_nodes: Number of sources, or by type; by default one more than the largest id.
        num_dst_nodes: Number of destinations, likewise.
        idtype: Accepted and ignored.
        device: Where the graph is to lie; by default where the ids do.

    Raises:
        DGLError: edges are something else, or an id is beyond its number.
        ValueError: an id is negative.
    """
    if not isinstance(data_dict, Mapping):
        data_dict = {(_NODE, _EDGE, _NODE): data_dict}
    edges = {etype: _edge_index(data_dict[etype], device) for etype in sorted(data_dict)}
    num_src, num_dst = (
        _sizes(edges, end, {_NODE: given} if isinstance(given, int) else dict(given or {}))
        for end, given in ((0, num_src_nodes), (2, num_dst_nodes))
    )
    return DGLGraph(graphs_of(edges, num_src, num_dst), num_src, num_dst, is_block=True)


# -- graphs from graphs ----------------------------------------------------------------------------


def _replaced(
    g: DGLGraph, etype: EdgeType, index: Tensor, features: Mapping[str, Tensor]
) -> DGLGraph:
    """The graph with other edges in one relation, and their features; the rest is shared."""
    new = Graph.from_edge_index(index, (g._num_src[etype[0]], g._num_dst[etype[2]]))
    frames = g._frames.mapped(Frame.copied)
    frames.edge[etype] = Frame(new.num_edges, frames.edge[etype].what, features)
    made = g._with(frames, g._relations | {etype: new})
    made._batch_nodes = made._batch_edges = None
    return made


def add_self_loop(
    g: DGLGraph,
    edge_feat_names: Sequence[str] | None = None,
    fill_data: float = 1.0,
    etype: str | EdgeType | None = None,
) -> DGLGraph:
    """The graph with one more edge from every node to itself, behind the others.

    Args:
        g: The graph; loops that it has are kept beside the new ones.
        edge_feat_names: Fields that loops get `fill_data` in, otherwise 0; None: all.
        fill_data: Value of the features of new edges.
        etype: The relation; None: the only one.
    """
    full = g.to_canonical_etype(etype)
    if full[0] != full[2] or g.is_block:
        raise DGLError(f"add_self_loop: {full} must lead from a type to itself")
    nodes = torch.arange(g.num_nodes(full[0]), device=g.device)
    features = {}
    for name, value in g._frames.edge[full].items():
        filled = edge_feat_names is None or name in edge_feat_names
        loops = value.new_full((len(nodes), *value.shape[1:]), fill_data if filled else 0)
        features[name] = torch.cat((value, loops))
    index = torch.cat((g.relation(full).edge_index, nodes.expand(2, -1)), 1)
    return _replaced(g, full, index, features)


def remove_self_loop(g: DGLGraph, etype: str | EdgeType | None = None) -> DGLGraph:
    """The graph without edges from a node to itself; the others keep their order."""
    full = g.to_canonical_etype(etype)
    src, dst = g.relation(full).edge_index
    kept = (src != dst).nonzero().squeeze(1)
    features = {name: value[kept] for name, value in g._frames.edge[full].items()}
    return _replaced(g, full, torch.stack((src[kept], dst[kept])), features)


def reverse(g: DGLGraph, copy_ndata: bool = True, copy_edata: bool = False) -> DGLGraph:
    """The graph with every edge turned round, in the same order; nothing is sorted twice.

    Args:
        g: The graph; no block.
        copy_ndata: Whether nodes keep their features.
        copy_edata: Whether edges do.
    """
    if g.is_block:
        raise DGLError("reverse: a block has no reverse")
    turned = {(etype[2], etype[1], etype[0]): etype for etype in g.canonical_etypes}
    relations = {new: g.relation(old).reverse for new, old in turned.items()}
    made = DGLGraph(relations, g._num_src, g._num_dst)
    if copy_ndata:
        for ntype, frame in g._frames.src.items():
            made._frames.src[ntype].update(frame)
    if copy_edata:
        for new, old in turned.items():
            made._frames.edge[new].update(g._frames.edge[old])
    made._batch_nodes = g._batch_nodes
    if g._batch_edges is not None:
        made._batch_edges = {new: g._batch_edges[old] for new, old in turned.items()}
    return made
