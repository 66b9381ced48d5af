"""`Loads`: what each rank holds and what an exchange moves between ranks, counted, not run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from gnnkern.distributed.adjacency import edge_blocks
from gnnkern.distributed.hierarchy import LEVELS, Hierarchy
from gnnkern.distributed.partition import Partition
from gnnkern.distributed.quality import halo_pairs
from gnnkern.graph import Graph

__all__ = ["Loads"]


@dataclass(frozen=True, eq=False)
class Loads:
    """Counts by rank, of a graph's in-edges.

    Attributes:
        hierarchy: Of the ranks.
        nodes: int64 [P] owned nodes.
        edges: int64 [P] in-edges of them.
        interior_edges: int64 [P] edges into nodes that need no other rank.
        rows: int64 [P, P] rows that an exchange moves from one rank (first) to another; the
            quotient graph.
    """

    hierarchy: Hierarchy
    nodes: Tensor
    edges: Tensor
    interior_edges: Tensor
    rows: Tensor

    @classmethod
    def of(cls, graph: Graph, partition: Partition) -> Loads:
        """Count; reads the edges twice.

        Raises:
            ValueError: the partition is of another number of nodes.
        """
        if partition.num_nodes != graph.num_dst:
            raise ValueError(
                f"Loads: the partition has {partition.num_nodes} nodes, the graph {graph.num_dst}"
            )
        graph, part, parts = graph.to("cpu"), partition.part, partition.num_parts
        receiver, node = halo_pairs(graph, part, parts)
        pairs = torch.bincount(part[node] * parts + receiver, minlength=parts * parts)
        needs = torch.zeros(graph.num_dst, dtype=torch.bool)
        for src, dst in edge_blocks(graph):
            needs[dst[part[src] != part[dst]]] = True
        degree = graph.in_degree.long()

        def by_part(count: Tensor) -> Tensor:  # [N] -> [P]
            return torch.zeros(parts, dtype=torch.int64).index_add(0, part, count)

        return cls(
            partition.hierarchy,
            torch.bincount(part, minlength=parts),
            by_part(degree),
            by_part(degree.masked_fill(needs, 0)),
            pairs.view(parts, parts),
        )

    def placed(self, order: Tensor, hierarchy: Hierarchy) -> Loads:
        """The same parts on other ranks: rank r holds part order[r], int64 [P]."""
        return replace(
            self,
            hierarchy=hierarchy,
            nodes=self.nodes[order],
            edges=self.edges[order],
            interior_edges=self.interior_edges[order],
            rows=self.rows[order][:, order],
        )

    @cached_property
    def _level(self) -> Tensor:  # int64 [P, P], -1 on the diagonal
        hierarchy, rank = self.hierarchy, torch.arange(self.hierarchy.size)
        level = torch.full((len(rank), len(rank)), 2)
        for number, size in ((1, hierarchy.devices * hierarchy.ranks), (0, hierarchy.ranks)):
            level[rank[:, None] // size == rank // size] = number
        return level.fill_diagonal_(-1)

    def over(self, level: str) -> Tensor:  # int64 [P, P]
        """The rows that go over one kind of link."""
        return self.rows * (self._level == LEVELS.index(level))

    def sent(self, level: str) -> Tensor:  # int64 [P]
        """Rows that each rank sends in an exchange."""
        return self.over(level).sum(1)

    def received(self, level: str) -> Tensor:  # int64 [P]
        """Rows that each rank receives in an exchange."""
        return self.over(level).sum(0)

    def partners(self, level: str) -> Tensor:  # int64 [P]
        """With how many ranks each exchanges rows, in the direction that has more."""
        some = self.over(level) > 0
        return torch.maximum(some.sum(0), some.sum(1))

    @property
    def ghosts(self) -> Tensor:  # int64 [P]
        """Rows that each rank receives over all links."""
        return self.rows.sum(0)

    @property
    def network_share(self) -> float:
        """Share of the rows that go from host to host."""
        return int(self.over("network").sum()) / max(int(self.rows.sum()), 1)
