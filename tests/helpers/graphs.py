"""Named awkward graphs, each a few lines from its definition."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from gnnkern import Graph

from .placement import place


class EdgeList(NamedTuple):
    """A graph as its caller has it."""

    edge_index: Tensor  # [2, E] int64, row 0 source, row 1 destination
    num_src: int
    num_dst: int


def _edges(pairs: list[tuple[int, int]]) -> Tensor:  # [2, E]
    return torch.tensor(pairs, dtype=torch.int64).view(-1, 2).t().contiguous()


def _shuffled(edge_index: Tensor, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return edge_index[:, torch.randperm(edge_index.shape[1], generator=generator)]


def _sorted(edge_index: Tensor) -> Tensor:
    return edge_index[:, edge_index[1].argsort(stable=True)]


def _random(num_src: int, num_dst: int, num_edges: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(num_src, (num_edges,), generator=generator)
    destination = torch.randint(num_dst, (num_edges,), generator=generator)
    return torch.stack([source, destination])


def _empty() -> EdgeList:
    return EdgeList(_edges([]), 0, 0)


def _no_edges() -> EdgeList:
    return EdgeList(_edges([]), 5, 5)


def _one_node() -> EdgeList:
    return EdgeList(_edges([(0, 0)]), 1, 1)


def _self_loops() -> EdgeList:
    pairs = [(i, i) for i in range(7)] + [(i, (i + 1) % 7) for i in range(7)]
    return EdgeList(_shuffled(_edges(pairs)), 7, 7)


def _multi_edges() -> EdgeList:
    return EdgeList(_shuffled(_random(5, 5, 6, seed=1).repeat(1, 4)), 5, 5)


def _isolated_ends() -> EdgeList:
    # The first two and the last two nodes have no edge at all.
    return EdgeList(_sorted(_random(6, 6, 20, seed=2) + 2), 10, 10)


def _star_in() -> EdgeList:
    return EdgeList(_shuffled(_edges([(i, 0) for i in range(1, 301)])), 301, 301)


def _star_out() -> EdgeList:
    return EdgeList(_shuffled(_edges([(0, i) for i in range(1, 301)])), 301, 301)


def _chain() -> EdgeList:
    return EdgeList(_edges([(i, i + 1) for i in range(49)]), 50, 50)


def _bipartite() -> EdgeList:
    return EdgeList(_random(13, 29, 90, seed=3), 13, 29)


def _power_law() -> EdgeList:
    generator = torch.Generator().manual_seed(4)
    uniform = torch.rand(2, 1500, generator=generator)
    return EdgeList((uniform**3 * 200).long(), 200, 200)


def _dense_small() -> EdgeList:
    return EdgeList(_edges([(u, v) for v in range(12) for u in range(12)]), 12, 12)


def _long_rows() -> EdgeList:
    # In-degrees around the length beyond which a row is split, one far beyond it; every other edge
    # leaves source 3, so that the reversed graph has a long row too.
    in_degree = torch.tensor([0, 2047, 2048, 2049, 0, 5000, 1, 300, 0])
    destination = torch.repeat_interleave(in_degree)  # [E]
    generator = torch.Generator().manual_seed(5)
    source = torch.randint(97, destination.shape, generator=generator)
    source[::2] = 3
    return EdgeList(_shuffled(torch.stack([source, destination])), 97, 9)


EDGE_LISTS: dict[str, Callable[[], EdgeList]] = {
    "empty": _empty,
    "no_edges": _no_edges,
    "one_node": _one_node,
    "self_loops": _self_loops,
    "multi_edges": _multi_edges,
    "isolated_ends": _isolated_ends,
    "star_in": _star_in,
    "star_out": _star_out,
    "chain": _chain,
    "bipartite": _bipartite,
    "power_law": _power_law,
    "dense_small": _dense_small,
    "long_rows": _long_rows,
}
GRAPHS = tuple(EDGE_LISTS)


def fresh_graph(name: str, index_dtype: torch.dtype = torch.int64) -> Graph:
    """Return the named graph, just built: nothing on it is cached yet."""
    edges = EDGE_LISTS[name]()
    num_nodes = (edges.num_src, edges.num_dst)
    return Graph.from_edge_index(place(edges.edge_index.to(index_dtype)), num_nodes=num_nodes)


@lru_cache
def graph(name: str, index_dtype: torch.dtype = torch.int64) -> Graph:
    """Return the named graph, prepared and shared by all tests."""
    return fresh_graph(name, index_dtype).prepare(backward=True)


@lru_cache
def segments(name: str, index_dtype: torch.dtype = torch.int64) -> Tensor:  # [N + 1]
    """Return the boundaries of segments as long as the named graph's in-degrees."""
    edges = EDGE_LISTS[name]()
    degree = torch.bincount(edges.edge_index[1], minlength=edges.num_dst)
    return place(torch.nn.functional.pad(degree.cumsum(0), (1, 0)).to(index_dtype))


@lru_cache
def scatter_index(name: str, index_dtype: torch.dtype = torch.int64) -> tuple[Tensor, int]:
    """Return the destination of each of the named graph's edges, [E], and their number."""
    edges = EDGE_LISTS[name]()
    return place(edges.edge_index[1].to(index_dtype)), edges.num_dst
