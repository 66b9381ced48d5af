"""Readouts: what the nodes or the edges of each graph of a batch come to.

`sum_nodes(g, field)`, `mean_nodes`, `max_nodes`, `min_nodes` and the same for edges give
[batch_size, ...]; `softmax_nodes` and `softmax_edges` the softmax within each graph; and
`broadcast_nodes`, `broadcast_edges` a row of each graph for all of its nodes or edges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gnnkern.integrations.dgl.dgl_graph import DGLGraph
from gnnkern.integrations.dgl.errors import DGLError
from gnnkern.integrations.dgl.function import REDUCES
from gnnkern.integrations.dgl.ops import align, segment_reduce, segment_softmax
from gnnkern.integrations.dgl.structure import EdgeType
from gnnkern.ops.segment_gather import segment_gather

__all__ = [
    "broadcast_edges",
    "broadcast_nodes",
    "readout_edges",
    "readout_nodes",
    "softmax_edges",
    "softmax_nodes",
]


def _nodes(g: DGLGraph, ntype: str | None) -> tuple[Any, Tensor]:
    """The features of nodes, and how many each graph has."""
    kind = g._node_type(ntype, g._num_src)
    return g._frames.src[kind], g.batch_num_nodes(kind)


def _edges(g: DGLGraph, etype: str | EdgeType | None) -> tuple[Any, Tensor]:
    """The features of edges, and how many each graph has."""
    kind = g.to_canonical_etype(etype)
    return g._frames.edge[kind], g.batch_num_edges(kind)


def _readout(of: tuple[Any, Tensor], feat: str, weight: str | None, op: str) -> Tensor:
    frame, counts = of
    x = frame[feat]
    if weight is not None:
        x, factor = align(x, frame[weight])
        x = x * factor
    return segment_reduce(counts, x, op)


def readout_nodes(
    graph: DGLGraph,
    feat: str,
    weight: str | None = None,
    *,
    op: str = "sum",
    ntype: str | None = None,
) -> Tensor:  # [batch_size, ...]
    """Reduce a field over the nodes of each graph.

    Args:
        graph: The graph or batch.
        feat: The field.
        weight: A field to multiply it with first, or None. A mean is divided by the number of
            nodes and not by the sum of weights.
        op: "sum", "mean", "max" or "min".
        ntype: The node type; None: the only one.

    Returns:
        [batch_size, ...]; 0 for a graph without nodes. Cost: that of `segment_reduce`.
    """
    return _readout(_nodes(graph, ntype), feat, weight, op)


def readout_edges(
    graph: DGLGraph,
    feat: str,
    weight: str | None = None,
    *,
    op: str = "sum",
    etype: str | EdgeType | None = None,
) -> Tensor:  # [batch_size, ...]
    """Reduce a field over the edges of each graph; as `readout_nodes`."""
    return _readout(_edges(graph, etype), feat, weight, op)


def softmax_nodes(graph: DGLGraph, feat: str, *, ntype: str | None = None) -> Tensor:  # [N, ...]
    """Softmax of a field over the nodes of each graph, for every trailing column by itself."""
    frame, counts = _nodes(graph, ntype)
    return segment_softmax(counts, frame[feat])


def softmax_edges(
    graph: DGLGraph, feat: str, *, etype: str | EdgeType | None = None
) -> Tensor:  # [E, ...]
    """Softmax of a field over the edges of each graph, for every trailing column by itself."""
    frame, counts = _edges(graph, etype)
    return segment_softmax(counts, frame[feat])


def _broadcast(counts: Tensor, rows: Tensor) -> Tensor:
    if rows.shape[:1] != counts.shape:
        raise DGLError(
            f"broadcast: graph_feat must have shape [batch_size={len(counts)}, ...], got "
            f"{list(rows.shape)}"
        )
    return segment_gather(rows, torch.nn.functional.pad(counts.cumsum(0), (1, 0)))


def broadcast_nodes(
    graph: DGLGraph, graph_feat: Tensor, *, ntype: str | None = None
) -> Tensor:  # [N, ...]
    """Row i of `graph_feat` [batch_size, ...] at every node of graph i."""
    return _broadcast(_nodes(graph, ntype)[1], graph_feat)


def broadcast_edges(
    graph: DGLGraph, graph_feat: Tensor, *, etype: str | EdgeType | None = None
) -> Tensor:  # [E, ...]
    """Row i of `graph_feat` [batch_size, ...] at every edge of graph i."""
    return _broadcast(_edges(graph, etype)[1], graph_feat)


def _named(op: str, what: str, readout: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def function(graph: DGLGraph, feat: str, weight: str | None = None, **of_type: Any) -> Tensor:
        return readout(graph, feat, weight, op=op, **of_type)

    function.__name__ = function.__qualname__ = f"{op}_{what}"
    function.__doc__ = f"The {op} of a field over the {what} of each graph; see `readout_{what}`."
    return function


_MADE = [
    _named(op, what, readout)
    for what, readout in (("nodes", readout_nodes), ("edges", readout_edges))
    for op in REDUCES
]
globals().update({function.__name__: function for function in _MADE})
__all__ += [function.__name__ for function in _MADE]

if TYPE_CHECKING:

    def __getattr__(name: str) -> Callable[..., Tensor]: ...
