"""Rows in groups, as aggregations see them: messages into nodes, segments, an index of groups.

    Messages(graph, x, edge)   x[u] op edge[e] of every edge e = (u, v), not made; groups are nodes
    Segments(x, ptr)           consecutive rows of x
    Scattered(x, index)        rows of x in the group that an index names

A layer says by `Messages` what it sends along the edges, and one op reduces it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gnnkern.graph import Graph
from gnnkern.ops.edge_softmax import edge_softmax
from gnnkern.ops.multi_reduce import multi_reduce
from gnnkern.ops.scatter_logsumexp import scatter_logsumexp
from gnnkern.ops.scatter_reduce import scatter_reduce
from gnnkern.ops.sddmm import sddmm
from gnnkern.ops.segment_reduce import segment_reduce
from gnnkern.ops.segment_softmax import segment_softmax
from gnnkern.ops.spmm import spmm

__all__ = ["Messages", "Rows", "Scattered", "Segments"]


class Rows(ABC):
    """M rows in N groups."""

    @abstractmethod
    def made(self) -> Tensor:  # [M, ...]
        """Return the rows themselves."""

    @abstractmethod
    def reduce(self, reduce: str) -> Tensor:  # [N, ...]
        """Return the "sum", "mean", "max", "min" or "mul" of each group; 0, or 1, of none."""

    def reduce_all(self, reduces: Sequence[str]) -> list[Tensor]:  # R of [N, ...]
        """Return several of "sum", "mean", "max", "min" and "var" (the population's)."""
        if "var" in reduces:
            return self.on_graph().reduce_all(reduces)
        return [self.reduce(reduce) for reduce in reduces]

    @abstractmethod
    def softmax(self, score: Tensor) -> Tensor:  # [M, ...] -> [M, ...]
        """Return the softmax of a score per row, over its group."""

    @abstractmethod
    def on_graph(self) -> Messages:
        """Return the same rows as messages into nodes."""

    @abstractmethod
    def degree(self) -> Tensor:  # [N]
        """Return how many rows each group has."""

    def weighted_sum(self, weight: Tensor) -> Tensor:  # [M, ...] -> [N, ...]
        """Return the sum of each group's rows times their weights."""
        return self.with_rows(weight * self.made()).reduce("sum")

    @abstractmethod
    def with_rows(self, rows: Tensor) -> Rows:  # [M, ...]
        """Return other rows in the same groups."""


@dataclass(frozen=True, eq=False)
class Messages(Rows):
    """`own[v] + x[u] op edge[e]` of every edge e = (u, v), not made.

    Only what is asked for is computed, in one walk over the edges wherever there is an op for it:
    a sum, mean, max or min always; several at once, and variances, where there is no `edge`. `own`
    is the same for all messages into a node and is added to what they reduce to.

    Args:
        graph: The graph along whose edges the messages go.
        x: Features of the sources, [num_src, ...]; None: the messages are the rows of `edge`.
        edge: [E] or [E, ...], which broadcasts with x, in the caller's edge order; None: no edge
            tensor.
        op: How they are combined: "mul", "add", "sub" (x - edge) or "div" (x / edge).
        own: Features of the destinations that every message into them has as a summand.
    """

    graph: Graph
    x: Tensor | None
    edge: Tensor | None = None
    op: str = "mul"
    own: Tensor | None = None

    def reduce(self, reduce: str) -> Tensor:
        """Return one reduction, without making the messages unless it is "mul"."""
        if reduce == "mul":
            destinations, size = self.graph.edge_index[1], self.graph.num_dst
            return scatter_reduce(self.made(), destinations, num_segments=size, reduce="mul")
        return self._with_own(
            spmm(self.graph, self.x, self.edge, op=self.op, reduce=reduce), reduce
        )

    def reduce_all(self, reduces: Sequence[str]) -> list[Tensor]:
        """Return several reductions, in one walk over the edges if possible."""
        if len(reduces) == 1 and reduces[0] != "var":
            return [self.reduce(reduces[0])]
        graph, x = self.graph, self.x
        if self.edge is not None:
            # No op has the squares of messages with two operands; and made once, they have one
            # gradient instead of one for each reduction.
            graph, x = graph.by_edge, self._without_own()
        assert x is not None
        out = multi_reduce(graph, x.flatten(1), reduces=tuple(reduces))  # [num_dst, R, F]
        outs = out.unflatten(2, x.shape[1:]).unbind(1)
        return [self._with_own(one, reduce) for one, reduce in zip(outs, reduces, strict=True)]

    def _with_own(self, reduced: Tensor, reduce: str) -> Tensor:
        if self.own is None or reduce == "var":
            return reduced
        degree = self.graph.in_degree.view(-1, *[1] * (reduced.dim() - 1))
        if reduce == "sum":
            return reduced + degree.to(reduced.dtype) * self.own
        return torch.where(degree > 0, reduced + self.own, 0)

    def made(self) -> Tensor:  # [E, ...]
        """Return the messages."""
        if self.own is None:
            return self._without_own()
        if self.edge is None:
            return sddmm(self.graph, self.own, self.x, op="add")
        rows = self._without_own()
        return sddmm(self.graph, self.own, rows, op="add", targets=("dst", "edge"))

    def _without_own(self) -> Tensor:
        if self.edge is None:
            return sddmm(self.graph, None, self.x, op="copy_rhs")
        if self.x is None:
            return self.edge
        edge = self.edge
        if edge.dim() < self.x.dim():
            edge = edge.reshape(*edge.shape, *[1] * (self.x.dim() - edge.dim()))
        return sddmm(self.graph, self.x, edge, op=self.op, targets=("src", "edge"))

    def softmax(self, score: Tensor) -> Tensor:
        """Return the softmax over the edges into each node."""
        return edge_softmax(self.graph, score.flatten(1)).view_as(score)

    def weighted_sum(self, weight: Tensor) -> Tensor:
        """Return the sum of the messages into each node times their weights."""
        if self.edge is None and self.own is None:
            return spmm(self.graph, self.x, weight)
        return super().weighted_sum(weight)

    def degree(self) -> Tensor:
        """Return the number of edges into each node."""
        return self.graph.in_degree

    def with_rows(self, rows: Tensor) -> Messages:
        """Return messages that are the rows of an edge tensor."""
        return Messages(self.graph, None, rows)

    def on_graph(self) -> Messages:
        """Return themselves."""
        return self

    def padded(self) -> Tensor:  # [num_dst, L, ...]
        """Return the messages into each node in their order, with rows of 0 behind.

        L is the largest number of edges into one node, and at least 1.
        """
        graph, rows = self.graph, self.made()
        length = max(graph.max_degree, 1)
        if graph.edge_id is not None:
            rows = rows.index_select(0, graph.edge_id)
        degree = graph.in_degree.long()
        # Row v begins at slot v * length instead of at indptr[v].
        skipped = torch.arange(graph.num_dst, device=graph.device) * length - graph.indptr[:-1]
        slot = torch.repeat_interleave(skipped, degree, output_size=graph.num_edges)
        slot = slot + torch.arange(graph.num_edges, device=graph.device)
        dense = rows.new_zeros(graph.num_dst * length, *rows.shape[1:]).index_copy(0, slot, rows)
        return dense.view(graph.num_dst, length, *rows.shape[1:])


@dataclass(frozen=True, eq=False)
class Segments(Rows):
    """Rows `ptr[i]` to `ptr[i + 1]` of x, for every group i.

    Args:
        x: The rows, [M, ...].
        ptr: Where each group begins, [N + 1].
    """

    x: Tensor
    ptr: Tensor

    def made(self) -> Tensor:
        """Return x."""
        return self.x

    def reduce(self, reduce: str) -> Tensor:
        """Return one reduction."""
        return segment_reduce(self.x, self.ptr, reduce=reduce)

    def softmax(self, score: Tensor) -> Tensor:
        """Return the softmax over each segment."""
        return segment_softmax(score, self.ptr)

    def degree(self) -> Tensor:
        """Return the length of each segment."""
        return self.ptr.diff()

    def with_rows(self, rows: Tensor) -> Segments:
        """Return other rows in the same segments."""
        return Segments(rows, self.ptr)

    def on_graph(self) -> Messages:
        """Return messages from each row to its segment."""
        rows = torch.arange(len(self.x), device=self.x.device)
        return Messages(Graph.from_csr(self.ptr, rows, num_src=len(self.x)), self.x)


@dataclass(frozen=True, eq=False)
class Scattered(Rows):
    """Rows e of x with `index[e] == i`, for every group i.

    Args:
        x: The rows, [M, ...].
        index: The group of each, [M].
        size: Number of groups, N; None: one more than the largest index.
    """

    x: Tensor
    index: Tensor
    size: int | None = None

    def made(self) -> Tensor:
        """Return x."""
        return self.x

    def reduce(self, reduce: str) -> Tensor:
        """Return one reduction."""
        return scatter_reduce(self.x, self.index, num_segments=self.size, reduce=reduce)

    def softmax(self, score: Tensor) -> Tensor:
        """Return the softmax over each group."""
        log_sum = scatter_logsumexp(score, self.index, num_segments=self.size)  # [N, ...]
        return (score - log_sum.index_select(0, self.index)).exp()

    def degree(self) -> Tensor:
        """Return how often the index names each group."""
        size = self.size
        return torch.bincount(self.index, minlength=0 if size is None else size)

    def with_rows(self, rows: Tensor) -> Scattered:
        """Return other rows in the same groups."""
        return Scattered(rows, self.index, self.size)

    def on_graph(self) -> Messages:
        """Return messages from each row to its group."""
        size = self.size
        if size is None:
            size = int(self.index.max()) + 1 if self.index.numel() else 0
        rows = torch.arange(len(self.x), device=self.x.device, dtype=self.index.dtype)
        edges = torch.stack([rows, self.index])
        return Messages(Graph.from_edge_index(edges, (len(self.x), size)), self.x)
