"""`DGLGraph`: message passing over a graph with features, by DGL's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gnnkern.graph import Graph
from gnnkern.integrations.dgl.batches import NodeBatch, checked, edge_batch, reduce_by_degree
from gnnkern.integrations.dgl.errors import DGLError
from gnnkern.integrations.dgl.features import FeatureGraph
from gnnkern.integrations.dgl.frames import Frame, Gathered
from gnnkern.integrations.dgl.function import Message, Reduce
from gnnkern.integrations.dgl.messages import message_on_edges, reduce_message
from gnnkern.integrations.dgl.ops import LOSER, isolated, reduced, without_infinities
from gnnkern.integrations.dgl.structure import ALL, EdgeType, ids_on, is_all

__all__ = ["DGLGraph"]

Etype = str | EdgeType | None
# Message, reduce and node functions: built-in, or of the user.
MessageFunction = Message | Callable[..., Any]
ReduceFunction = Reduce | Callable[..., Any]
NodeFunction = Callable[[NodeBatch], Any]


class DGLGraph(FeatureGraph):
    """A graph with features, of one or several relations, that answers as DGL's does.

    Made by `gnnkern.integrations.dgl.graph`, `heterograph`, `create_block`, `batch` or `from_dgl`.
    What is not here are changes of the structure in place and passing messages along some edges
    alone (`send_and_recv`, `push`, `pull`).
    """

    def _fields(self, etype: EdgeType) -> Callable[[str, str], Tensor]:
        src, dst, edge = self._ends(etype)
        frames = {"u": src, "v": dst, "e": edge}
        return lambda end, field: frames[end][field]

    def _ends(self, etype: EdgeType) -> tuple[Frame, Frame, Frame]:
        frames = self._frames
        return frames.src[etype[0]], frames.dst[etype[2]], frames.edge[etype]

    def apply_nodes(self, func: NodeFunction, v: Any = ALL, ntype: str | None = None) -> None:
        """Set fields of all nodes of a type, or of some, to what `func` returns."""
        kind = self._node_type(ntype, self._num_src)
        frame = self._frames.src[kind]
        if is_all(v):
            frame.update(self._on_nodes(func, kind, frame, frame.num_rows))
            return
        nodes = ids_on(self.device, v)
        some = Gathered(frame, lambda x: x.index_select(0, nodes))
        frame.set_rows(nodes, checked("a node function", func(NodeBatch(kind, nodes, some))))

    def _on_nodes(
        self, func: NodeFunction, ntype: str, data: Mapping[str, Tensor], count: int
    ) -> dict[str, Tensor]:
        """What a function makes of all nodes of a type."""
        ids = torch.arange(count, device=self.device)
        return checked("a node function", func(NodeBatch(ntype, ids, data)))

    def apply_edges(self, func: MessageFunction, edges: Any = ALL, etype: Etype = None) -> None:
        """Set fields of the edges to a built-in message, or to what `func(edge_batch)` returns.

        Args:
            func: A message of `gnnkern.integrations.dgl.function`, or a function of an `EdgeBatch`.
            edges: Ids of the edges to do this for; other edges keep their values, 0 at first.
            etype: The relation. None: the only one, or for a built-in message every relation.
        """
        if etype is None and len(self._relations) > 1 and isinstance(func, Message):
            for each in self.canonical_etypes:
                self.apply_edges(func, edges, each)
            return
        full = self.to_canonical_etype(etype)
        frame = self._frames.edge[full]
        eid = None if is_all(edges) else ids_on(self.device, edges)
        values = self._on_edges(func, full, eid)
        frame.set_rows(eid, values)

    def _on_edges(
        self, func: MessageFunction, etype: EdgeType, eid: Tensor | None
    ) -> dict[str, Tensor]:
        graph = self._relations[etype]
        if not isinstance(func, Message):
            batch = edge_batch(graph, etype, *self._ends(etype), eid)
            return checked("a message function", func(batch))
        fields = self._fields(etype)
        if eid is None:
            return {func.out: message_on_edges(graph, func, fields)}
        sizes = (graph.num_src, graph.num_dst)
        some = Graph.from_edge_index(graph.edge_index[:, eid], sizes)

        def of_some(end: str, field: str) -> Tensor:
            x = fields(end, field)
            return x.index_select(0, eid) if end == "e" else x

        return {func.out: message_on_edges(some, func, of_some)}

    def update_all(
        self,
        message_func: MessageFunction,
        reduce_func: ReduceFunction,
        apply_node_func: NodeFunction | None = None,
        etype: Etype = None,
    ) -> None:
        """Send a message along every edge, reduce those into each node, and set the result there.

        Args:
            message_func: A message of `gnnkern.integrations.dgl.function`, or a function of an
                `EdgeBatch` that returns messages by name.
            reduce_func: A reduction from there, or a function of a `NodeBatch` with a `mailbox`,
                which is called for all nodes of each degree.
            apply_node_func: A function of a `NodeBatch` that changes the result, or None.
            etype: The relation. None: the only one, or all of them at once, for built-in functions
                other than the mean: every node reduces all messages into it.

        A node without edges gets 0, and under "max" and "min" every infinity becomes 0, as in DGL.

        Cost: a built-in pair is one `gnnkern.spmm` (two for a maximum of products with `v`), and
        nothing of size edges x width is made. A message function of the user makes its messages, a
        reduce function copies them once.

        Raises:
            KeyError: a field is not there.
            DGLError: a shape or a type is wrong, or the functions do not fit to each other.
        """
        if etype is None and len(self._relations) > 1:
            results = self._update_jointly(message_func, reduce_func)
            for ntype, result in results.items():
                self._set(ntype, result, apply_node_func)
            return
        full = self.to_canonical_etype(etype)
        self._set(full[2], self._update(full, message_func, reduce_func), apply_node_func)

    def _update(
        self,
        etype: EdgeType,
        message: MessageFunction,
        reduce: ReduceFunction,
    ) -> dict[str, Tensor]:
        """The new fields of the destinations."""
        graph = self._relations[etype]
        if not isinstance(reduce, Reduce):
            messages = self._on_edges(message, etype, None)
            return reduce_by_degree(graph, etype[2], self._frames.dst[etype[2]], messages, reduce)
        if isinstance(message, Message):
            _check_pair(message, reduce)
            out = reduce_message(graph, message, reduce.op, self._fields(etype))
        else:
            messages = self._on_edges(message, etype, None)
            if reduce.message not in messages:
                raise KeyError(f"{reduce.message!r} is none of the messages {list(messages)}")
            out = reduced(graph, "copy_rhs", reduce.op, None, messages[reduce.message])
        return {reduce.out: without_infinities(out) if reduce.op in LOSER else out}

    def _update_jointly(
        self, message: MessageFunction, reduce: ReduceFunction
    ) -> dict[str, dict[str, Tensor]]:
        """All relations at once: by type of destination its new field."""
        if not isinstance(message, Message) or not isinstance(reduce, Reduce):
            raise DGLError(
                "update_all: functions of the user need an edge type, or multi_update_all, where a "
                f"graph has several: {self.canonical_etypes}"
            )
        if reduce.op == "mean":
            raise NotImplementedError(
                "update_all: no mean over several relations at once; use multi_update_all"
            )
        _check_pair(message, reduce)
        joint: dict[str, Tensor] = {}
        for etype, graph in self._relations.items():
            part = reduce_message(graph, message, reduce.op, self._fields(etype))
            if reduce.op in LOSER:
                part = part.masked_fill(isolated(graph, part), LOSER[reduce.op])
            before = joint.get(etype[2])
            joint[etype[2]] = part if before is None else _JOIN[reduce.op](before, part)
        if reduce.op in LOSER:
            joint = {ntype: without_infinities(out) for ntype, out in joint.items()}
        return {ntype: {reduce.out: out} for ntype, out in joint.items()}

    def multi_update_all(
        self,
        etype_dict: Mapping[Any, Sequence[Any]],
        cross_reducer: str | Callable[[list[Tensor]], Tensor],
        apply_node_func: NodeFunction | None = None,
    ) -> None:
        """`update_all` for several relations, whose results for a node type are then combined.

        Args:
            etype_dict: By edge type (message_func, reduce_func) or with an apply_node_func.
            cross_reducer: How the results [num_dst, ...] of one field and node type are combined:
                "sum", "mean", "max", "min", "stack" (as [num_dst, relations, ...], in the order of
                `canonical_etypes`) or a function of their list, in the order of `etype_dict`.
            apply_node_func: A function of a `NodeBatch` that changes the result, or None.

        A node that a relation does not reach takes part with 0.

        Raises:
            DGLError: as `update_all`, or cross_reducer is unknown.
        """
        combine = cross_reducer
        if not callable(combine):
            if combine not in _CROSS:
                raise DGLError(
                    f"multi_update_all: cross_reducer must be a function or one of {list(_CROSS)}, "
                    f"got {cross_reducer!r}"
                )
            combine = _CROSS[combine]
        results: dict[str, dict[str, list[Tensor]]] = {}
        named = {self.to_canonical_etype(etype): each for etype, each in etype_dict.items()}
        order = self.canonical_etypes.index
        for full in named if callable(cross_reducer) else sorted(named, key=order):
            functions = named[full]
            result = self._update(full, *functions[:2])
            if len(functions) > 2:
                result = self._applied(full[2], result, functions[2])
            of_type = results.setdefault(full[2], {})
            for field, value in result.items():
                of_type.setdefault(field, []).append(value)
        for ntype, fields in results.items():
            joint = {field: combine(values) for field, values in fields.items()}
            self._set(ntype, joint, apply_node_func)

    def _applied(
        self, ntype: str, result: Mapping[str, Tensor], func: NodeFunction
    ) -> dict[str, Tensor]:
        frame = self._frames.dst[ntype]
        return self._on_nodes(func, ntype, {**frame, **result}, frame.num_rows)

    def _set(
        self,
        ntype: str,
        result: Mapping[str, Tensor],
        func: NodeFunction | None,
    ) -> None:
        self._frames.dst[ntype].update(
            result if func is None else self._applied(ntype, result, func)
        )


_JOIN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": torch.add,
    "max": torch.maximum,
    "min": torch.minimum,
}

_CROSS: dict[str, Callable[[list[Tensor]], Tensor]] = {
    "sum": lambda parts: torch.stack(parts).sum(0),
    "mean": lambda parts: torch.stack(parts).mean(0),
    "max": lambda parts: torch.stack(parts).amax(0),
    "min": lambda parts: torch.stack(parts).amin(0),
    "stack": lambda parts: torch.stack(parts, 1),
}


def _check_pair(message: Message, reduce: Reduce) -> None:
    if message.out != reduce.message:
        raise DGLError(
            f"update_all: the message of {message.name} must be what {reduce.name} reduces, "
            f"{reduce.message!r}, got {message.out!r}"
        )
