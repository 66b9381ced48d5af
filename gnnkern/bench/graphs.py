"""The graphs that are measured: recipes by name, generated graphs, files."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from gnnkern import Graph
from gnnkern.bench.device_graphs import load_on

SORTED = "edges sorted by destination"
UNSORTED = "edges in random order"
AS_IT_COMES = "edges as they come"

# Graphs kept in memory: one under measurement, and small ones that are asked about in between.
_KEPT = 4


@dataclass(frozen=True)
class _Recipe:
    source: str  # what `gnnkern.data.load` takes
    unsorted: bool = False


RECIPES = {
    "tiny": _Recipe("powerlaw:200,1_500,100"),
    "tiny_unsorted": _Recipe("powerlaw:200,1_500,100", unsorted=True),
    # About the size and the largest in-degree of ogbn-arxiv.
    "powerlaw_1m": _Recipe("powerlaw:170_000,1_200_000,13_000"),
    "powerlaw_1m_unsorted": _Recipe("powerlaw:170_000,1_200_000,13_000", unsorted=True),
    # Dense: 200 edges per node, the features of all nodes near the size of a last-level cache.
    "powerlaw_10m": _Recipe("powerlaw:50_000,10_000_000,23_000"),
    "powerlaw_10m_unsorted": _Recipe("powerlaw:50_000,10_000_000,23_000", unsorted=True),
    # No hubs and no locality: every gather of a row from beyond the caches.
    "uniform_12m": _Recipe("uniform:500_000,12_000_000"),
    # Nodes, directed edges and about the largest degree of the graphs they are called after.
    "arxiv_like": _Recipe("powerlaw:169_343,1_166_243,13_161"),
    "products_like": _Recipe("powerlaw:2_449_029,123_718_280,17_481"),
    "reddit_like": _Recipe("powerlaw:232_965,114_615_892,21_657"),
    "proteins_like": _Recipe("powerlaw:132_534,79_122_504,7_750"),
    # A quarter of the nodes and edges, where messages of every edge have to fit.
    "products_quarter": _Recipe("powerlaw:612_257,30_929_570,17_481"),
    # As many edges, in one row of a hundred thousand times the average or evenly.
    "hub": _Recipe("hub:200_000,4_000_000,228_990"),
    "hub_even": _Recipe("hub:200_000,4_000_000,20"),
    "tiny_hub": _Recipe("hub:40,800,300"),
    "tiny_even": _Recipe("hub:40,800,20"),
}


@dataclass(frozen=True, eq=False)
class BenchGraph:
    """A graph, ready for gnnkern and in the forms that peers take, all computed once."""

    name: str
    edge_index: Tensor  # [2, E] int64, in the caller's order
    order: str  # what the caller's order is
    graph: Graph = field(repr=False)

    @property
    def device(self) -> torch.device:
        return self.graph.device

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
    def facts(self) -> dict[str, int | str]:
        """What a file of results says of it."""
        g = self.graph
        return {
            "num_nodes": g.num_dst,
            "num_edges": g.num_edges,
            "max_in_degree": g.max_degree,
            "max_out_degree": g.reverse.max_degree,
            "order": self.order,
        }

    @property
    def description(self) -> str:
        """One line for the header of a report."""
        g = self.graph
        return (
            f"{self.name}: {g.num_dst:,} nodes, {g.num_edges:,} edges, largest in-degree "
            f"{g.max_degree:,}, largest out-degree {g.reverse.max_degree:,}; caller's order: "
            f"{self.order}"
        )


def bench_graph(name: str, device: torch.device | str = "cpu") -> BenchGraph:
    """Build a graph with its reverse, so that nothing is sorted later.

    Args:
        name: A recipe, or what `gnnkern.data.load` takes: `uniform:1000,8000`, a path to a file.
            Undirected files have every edge in both directions.
        device: Where it lies, and everything that is measured on it.

    Raises:
        FileNotFoundError: It is none of these.
        ValueError: The graph is malformed or bipartite.
    """
    return _built(name, str(device))


def forget_graphs() -> None:
    """Free the memory of all graphs that were built."""
    _built.cache_clear()


@lru_cache(_KEPT)
def _built(name: str, device: str) -> BenchGraph:
    recipe = RECIPES.get(name, _Recipe(name))
    try:
        data = load_on(recipe.source, torch.device(device))
    except FileNotFoundError as error:
        known = ", ".join(RECIPES)
        raise FileNotFoundError(f"bench: no graph {name!r}: not one of {known}; {error}") from None
    if data.is_bipartite:
        raise ValueError(
            f"bench: graph {name!r} must have as many sources as destinations, got "
            f"{data.num_nodes} and {data.num_dst}"
        )
    edge_index, order = data.edge_index, SORTED
    if recipe.unsorted:
        generator = torch.Generator(edge_index.device).manual_seed(0)
        order_of = torch.randperm(data.num_edges, generator=generator, device=edge_index.device)
        edge_index = edge_index[:, order_of]
        order = UNSORTED
    elif (edge_index[1].diff() < 0).any():
        order = AS_IT_COMES
    graph = Graph.from_edge_index(edge_index, data.num_nodes).prepare(backward=True)
    return BenchGraph(_title(name, data.name), edge_index, order, graph)


def _title(name: str, data_name: str) -> str:
    """A recipe and a generated graph are called as they were asked for, a file by its stem."""
    generated = name.partition(":")[0].isidentifier()
    return name if generated else data_name
