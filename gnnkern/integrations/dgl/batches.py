"""What user-defined functions see: batches of edges, and of nodes with their messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from gnnkern.backends import FLOAT_DTYPES
from gnnkern.graph import Graph
from gnnkern.integrations.dgl.errors import DGLError
from gnnkern.integrations.dgl.frames import Frame, Gathered
from gnnkern.integrations.dgl.ops import gsddmm
from gnnkern.integrations.dgl.structure import EdgeType

__all__ = ["EdgeBatch", "NodeBatch", "edge_batch", "reduce_by_degree"]


class EdgeBatch:
    """Edges with their features and those of their ends, gathered when they are asked for.

    Attributes:
        src: By field [K, ...] features of the sources.
        dst: By field [K, ...] features of the destinations.
        data: By field [K, ...] features of the edges.
        canonical_etype: (source type, relation, destination type).
    """

    def __init__(
        self,
        etype: EdgeType,
        edges: tuple[Tensor, Tensor, Tensor],
        src: Mapping[str, Tensor],
        dst: Mapping[str, Tensor],
        data: Mapping[str, Tensor],
    ) -> None:
        self.canonical_etype = etype
        self.src = src
        self.dst = dst
        self.data = data
        self._edges = edges

    def edges(self) -> tuple[Tensor, Tensor, Tensor]:
        """Sources, destinations and ids [K] of the edges."""
        return self._edges

    def batch_size(self) -> int:
        """Number of edges, K."""
        return self._edges[2].shape[0]

    __len__ = batch_size


class NodeBatch:
    """Nodes with their features, and in a reduction with their messages.

    Attributes:
        data: By field [K, ...] features of the nodes.
        mailbox: By message [K, D, ...]: nodes of one batch have the same number of edges, D, and
            their messages are in the caller's edge order. None where nothing is reduced.
        ntype: The node type.
    """

    def __init__(
        self,
        ntype: str,
        nodes: Tensor,
        data: Mapping[str, Tensor],
        mailbox: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.ntype = ntype
        self.data = data
        self.mailbox = mailbox
        self._nodes = nodes

    def nodes(self) -> Tensor:
        """Ids [K] of the nodes."""
        return self._nodes

    def batch_size(self) -> int:
        """Number of nodes, K."""
        return self._nodes.shape[0]

    __len__ = batch_size


def checked(what: str, result: Any) -> dict[str, Tensor]:
    """What a user-defined function returned: a dict of features."""
    if not isinstance(result, Mapping):
        raise DGLError(
            f"{what} must return a dict of tensors by field, got {type(result).__name__}"
        )
    return dict(result)


def edge_batch(
    g: Graph, etype: EdgeType, src: Frame, dst: Frame, data: Frame, eid: Tensor | None
) -> EdgeBatch:
    """All edges of a relation, or those with the ids [K]."""
    u, v = g.edge_index
    if eid is not None:
        u, v = u[eid], v[eid]

    def at(end: str, node: Tensor) -> Callable[[Tensor], Tensor]:
        def gather(x: Tensor) -> Tensor:
            # The gradient of this op is a sum in a fixed order.
            if eid is None and x.dtype in FLOAT_DTYPES:
                return gsddmm(g, "copy_lhs", x, None, end)
            return x.index_select(0, node)

        return gather

    rows = Gathered(data, lambda x: x if eid is None else x.index_select(0, eid))
    ids = torch.arange(g.num_edges, device=g.device) if eid is None else eid
    ends = Gathered(src, at("u", u)), Gathered(dst, at("v", v))
    return EdgeBatch(etype, (u, v, ids), *ends, rows)


def reduce_by_degree(
    g: Graph,
    ntype: str,
    dst: Frame,
    messages: Mapping[str, Tensor],  # [E, ...]
    function: Callable[[NodeBatch], Any],
) -> dict[str, Tensor]:
    """Call `function` once for all nodes of each degree; nodes without edges get 0.

    Copies the messages once, and calls as often as there are degrees.
    """
    degree = g.in_degree.long()
    results: list[dict[str, Tensor]] = []
    buckets: list[Tensor] = []
    for count in degree.unique().tolist():
        if count == 0:
            continue
        nodes = (degree == count).nonzero().squeeze(1)
        position = g.indptr[nodes].long()[:, None] + torch.arange(count, device=g.device)  # [K, D]
        eid = position if g.edge_id is None else g.edge_id[position].long()

        def mail(x: Tensor, eid: Tensor = eid) -> Tensor:
            return x.index_select(0, eid.flatten()).view(*eid.shape, *x.shape[1:])

        def rows(x: Tensor, nodes: Tensor = nodes) -> Tensor:
            return x.index_select(0, nodes)

        batch = NodeBatch(ntype, nodes, Gathered(dst, rows), Gathered(messages, mail))
        results.append(checked("a reduce function", function(batch)))
        buckets.append(nodes)
    if not results:
        return {}
    out = Frame(g.num_dst, dst.what)
    rows_of = torch.cat(buckets)
    out.set_rows(rows_of, {name: torch.cat([r[name] for r in results]) for name in results[0]})
    return dict(out)
