"""`Relations`: the edges of a graph by node and type, for layers that treat every type alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gnnkern.graph import Graph
from gnnkern.ops._groups import order_by_group

__all__ = ["Relations"]


@dataclass(frozen=True, eq=False)
class Relations:
    """The edges of a graph, grouped by pairs of their relation and destination that occur.

    The P pairs are in the order of their relations, and of their destinations within one. What
    `gather` reduces to pairs is multiplied by the matrix of each segment's relation, and `merge`
    sums the pairs of each destination.

    Grouping is a few passes over the edges at every call of a layer: make it once where graph and
    types stay the same, and give the layer this instead of the two.

    Attributes:
        graph: All edges, [num_src] to [num_dst].
        edge_type: [E] relation of each edge, in the caller's edge order.
        num_relations: Number of relations, R.
        gather: The same edges, from sources to the P pairs.
        merge: One edge from every pair to its destination.
        indptr: [R + 1] int64 where the pairs of each relation begin.
    """

    graph: Graph
    edge_type: Tensor
    num_relations: int
    gather: Graph
    merge: Graph
    indptr: Tensor

    @classmethod
    def of(cls, graph: Graph, edge_type: Tensor, num_relations: int) -> Relations:
        """Group the edges of a graph.

        Args:
            graph: The graph.
            edge_type: [E] int32 or int64 relation of each edge, in the caller's edge order.
            num_relations: Number of relations.

        Raises:
            TypeError: edge_type is no integer tensor.
            ValueError: its shape or device is wrong, or a relation is out of range.
        """
        who = "Relations.of"
        if not isinstance(edge_type, Tensor) or edge_type.dtype not in (torch.int32, torch.int64):
            got = edge_type.dtype if isinstance(edge_type, Tensor) else type(edge_type).__name__
            raise TypeError(f"{who}: edge_type must be an int32 or int64 tensor, got {got}")
        if edge_type.shape != (graph.num_edges,) or edge_type.device != graph.device:
            raise ValueError(
                f"{who}: edge_type must have shape [E={graph.num_edges}] on {graph.device}, got "
                f"{list(edge_type.shape)} on {edge_type.device}"
            )
        # By destination, then by type: a stable sort keeps the caller's order within a pair.
        edges = graph.edge_id
        if edges is None:
            edges = torch.arange(graph.num_edges, device=graph.device)
        types = edge_type.index_select(0, edges)
        begins, order = order_by_group(who, types, num_relations, ("edge_type", "num_relations"))
        edges = edges.index_select(0, order)
        destinations = graph.edge_index[1].index_select(0, edges)
        types = types.index_select(0, order)

        is_first = torch.ones(graph.num_edges + 1, dtype=torch.bool, device=graph.device)
        is_first[1:-1] = (types[1:] != types[:-1]) | (destinations[1:] != destinations[:-1])
        pair_begins = is_first.nonzero().squeeze(1)  # [P + 1]
        sources = graph.indices.index_select(0, order)
        dtype = graph.index_dtype
        gather = graph.into_rows(pair_begins.to(dtype), sources, edges.to(dtype))
        ends = destinations.index_select(0, pair_begins[:-1])  # [P]
        pairs = torch.stack([torch.arange(len(ends), device=graph.device), ends])
        merge = Graph.from_edge_index(pairs, (len(ends), graph.num_dst))
        # A relation's edges begin where its pairs do.
        indptr = torch.searchsorted(pair_begins, begins)
        return cls(graph, edge_type, num_relations, gather, merge, indptr)

    @property
    def num_pairs(self) -> int:
        """Number of pairs of a relation and a destination that occur, P."""
        return self.merge.num_edges

    @cached_property
    def pair_type(self) -> Tensor:  # int64 [P]
        """The relation of each pair."""
        types = torch.arange(self.num_relations, device=self.indptr.device)
        return torch.repeat_interleave(types, self.indptr.diff(), output_size=self.num_pairs)

    @cached_property
    def by_source(self) -> Relations:
        """The same of the reversed graph, whose pairs are of a relation and a source."""
        return Relations.of(self.graph.reverse, self.edge_type, self.num_relations)

    @cached_property
    def share(self) -> Tensor:  # float64 [E]
        """One over the number of edges in the pair of each edge, in the caller's edge order."""
        degree = self.gather.in_degree.long()
        share = torch.repeat_interleave(
            degree.double().reciprocal(), degree, output_size=self.graph.num_edges
        )
        edges = self.gather.edge_id
        assert edges is not None
        return torch.empty_like(share).index_copy(0, edges.long(), share)

    def __repr__(self) -> str:
        """The counts."""
        return (
            f"Relations(num_relations={self.num_relations}, num_pairs={self.num_pairs:,}, "
            f"{self.graph})"
        )
