"""The graphs that are measured: named, seeded, built once per process."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from gnnkern import Graph
from gnnkern.data import power_law

SORTED = "edges sorted by destination, as generated"
UNSORTED = "edges in random order"


@dataclass(frozen=True)
class _Recipe:
    num_nodes: int
    num_edges: int
    max_degree: int
    unsorted: bool = False


RECIPES = {
    "tiny": _Recipe(200, 1_500, 100),
    "tiny_unsorted": _Recipe(200, 1_500, 100, unsorted=True),
    # About the size and the largest in-degree of ogbn-arxiv.
    "powerlaw_1m": _Recipe(170_000, 1_200_000, 13_000),
    "powerlaw_1m_unsorted": _Recipe(170_000, 1_200_000, 13_000, unsorted=True),
    # Dense: 200 edges per node, the features of all nodes near the size of a last-level cache.
    "powerlaw_10m": _Recipe(50_000, 10_000_000, 23_000),
    "powerlaw_10m_unsorted": _Recipe(50_000, 10_000_000, 23_000, unsorted=True),
}


@dataclass(frozen=True, eq=False)
class BenchGraph:
    """A graph, ready for gnnkern and in the forms that peers take, all computed once."""

    name: str
    edge_index: Tensor  # [2, E] int64, in the caller's order
    order: str  # what the caller's order is
    graph: Graph = field(repr=False)

    @property
    def num_nodes(self) -> int:
        return self.graph.num_dst

    @property
    def num_edges(self) -> int:
        return self.graph.num_edges

    @property
    def src(self) -> Tensor:  # [E], in the caller's order
        return self.edge_index[0]

    @property
    def dst(self) -> Tensor:  # [E], in the caller's order
        return self.edge_index[1]

    @cached_property
    def indptr(self) -> Tensor:  # [N + 1] int64
        return self.graph.indptr.long()

    @cached_property
    def sorted_src(self) -> Tensor:  # [E] int64, sorted by destination
        return self.graph.indices.long()

    @cached_property
    def sorted_dst(self) -> Tensor:  # [E] int64
        return self.by_row(self.dst)

    @cached_property
    def edge_id(self) -> Tensor | None:  # [E] int64
        return None if self.graph.edge_id is None else self.graph.edge_id.long()

    def by_row(self, values: Tensor) -> Tensor:  # [E, ...] -> [E, ...]
        """Return an edge tensor sorted by destination."""
        return values if self.edge_id is None else values.index_select(0, self.edge_id)

    def by_caller(self, values: Tensor) -> Tensor:  # [E, ...] -> [E, ...]
        """Return an edge tensor that is sorted by destination in the caller's order."""
        if self.edge_id is None:
            return values
        return torch.empty_like(values).index_copy_(0, self.edge_id, values)

    @cached_property
    def with_loops(self) -> BenchGraph:
        """The graph with one self loop per node, as attention layers make it."""
        looped: Graph = self.graph.add_self_loops()
        looped.prepare()
        return BenchGraph(f"{self.name} + loops", looped.edge_index, "loops last", looped)

    @property
    def description(self) -> str:
        """One line for the header of a report."""
        g = self.graph
        return (
            f"{self.name}: {g.num_dst:,} nodes, {g.num_edges:,} edges, largest in-degree "
            f"{g.max_degree:,}, largest out-degree {g.reverse.max_degree:,}; caller's order: "
            f"{self.order}"
        )


@lru_cache
def bench_graph(name: str) -> BenchGraph:
    """Build the named graph, with its reverse: nothing is sorted later."""
    if name not in RECIPES:
        raise ValueError(f"bench graph must be one of {', '.join(RECIPES)}, got {name!r}")
    recipe = RECIPES[name]
    data = power_law(recipe.num_nodes, recipe.num_edges, recipe.max_degree, seed=0)
    edge_index = data.edge_index
    if recipe.unsorted:
        generator = torch.Generator().manual_seed(0)
        edge_index = edge_index[:, torch.randperm(recipe.num_edges, generator=generator)]
    graph = Graph.from_edge_index(edge_index, recipe.num_nodes).prepare(backward=True)
    return BenchGraph(name, edge_index, UNSORTED if recipe.unsorted else SORTED, graph)
