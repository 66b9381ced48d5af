"""Seeded synthetic graphs of any size: power law, R-MAT, uniform, hub, grid, star.

The same arguments give the same graph. Edges may repeat and may be self loops, as drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from gnnkern.data._files import IntArray
from gnnkern.data.graph_data import GraphData

# Edges drawn at a time: temporaries stay in the cache, and memory stays near that of the output.
_CHUNK = 1 << 17


def power_law(
    num_nodes: int,
    num_edges: int,
    max_degree: int,
    community_fraction: float = 0.0,
    num_communities: int | None = None,
    shuffle: bool = False,
    seed: int = 0,
) -> GraphData:
    """Return a graph with exactly this many edges whose largest in-degree is exactly `max_degree`.

    The in-degree of the node of rank r = 1, 2, ... is `max_degree * r**-s`, rounded, with the `s`
    that gives `num_edges` in all; degrees so distributed follow a truncated power law of exponent
    `1 + 1 / s` (Newman, "Power laws, Pareto distributions and Zipf's law", 2005). Sources are drawn
    with probabilities that fall with the same power of another ranking (at most 1).

    With communities, nodes are divided into blocks of successive ids, and of every node's incoming
    edges that fraction comes from its own block, all others from outside; within a block too,
    sources follow the power law. A hub larger than its block therefore has repeated edges.

    Args:
        num_nodes: number of nodes N.
        num_edges: number of edges E, at most `N * max_degree`.
        max_degree: largest in-degree.
        community_fraction: this share of the edges, to half an edge, stays in its community; 0
            means that there are no communities.
        num_communities: number of blocks, of N / num_communities nodes each; by default sqrt(N).
        shuffle: relabel the nodes at random, which takes the locality of the ids away.
        seed: seed of everything drawn.

    Returns:
        Edges sorted by destination (by destination before relabelling, with `shuffle`).

    Raises:
        ValueError: sizes that no graph has.

    Cost: about 0.1 microseconds per edge; memory of the output and a few arrays by node.
    """
    _check_counts("power_law", num_nodes=num_nodes, num_edges=num_edges, max_degree=max_degree)
    if not max_degree <= num_edges <= num_nodes * max_degree:
        raise ValueError(
            f"power_law: num_edges must be from max_degree={max_degree} to "
            f"num_nodes * max_degree={num_nodes * max_degree}, got {num_edges}"
        )
    if not 0.0 <= community_fraction <= 1.0:
        raise ValueError(
            f"power_law: community_fraction must be from 0 to 1, got {community_fraction}"
        )
    if num_communities is None:
        num_communities = min(num_nodes, max(2, math.isqrt(num_nodes)))
    if community_fraction > 0 and num_edges > 0:
        least = 1 if community_fraction == 1.0 else 2
        if not least <= num_communities <= num_nodes:
            raise ValueError(
                f"power_law: num_communities must be from {least} to num_nodes={num_nodes}, "
                f"got {num_communities}"
            )

    rng = np.random.default_rng(seed)
    degree = zipf_degrees(num_nodes, num_edges, max_degree)
    edge_index = np.empty((2, num_edges), dtype=np.int64)
    edge_index[1] = np.repeat(np.arange(num_nodes), rng.permutation(degree))
    by_rank = rng.permutation(num_nodes)  # [N] the node of each rank as a source
    skew = source_skew(num_nodes, num_edges, max_degree)
    if community_fraction == 0.0 or num_edges == 0:
        for chunk in _chunks(num_edges):
            ranks = _draw_ranks(rng.random(chunk.stop - chunk.start), num_nodes, skew)
            edge_index[0, chunk] = by_rank[ranks]
    else:
        _draw_in_communities(edge_index, by_rank, skew, community_fraction, num_communities, rng)
    if shuffle:
        edge_index = rng.permutation(num_nodes)[edge_index]
    return _graph(f"powerlaw-{num_nodes}-{num_edges}-{max_degree}", edge_index, num_nodes)


def _draw_in_communities(
    edge_index: IntArray,  # [2, E], destinations given, sources to be written
    by_rank: IntArray,  # [N]
    skew: float,
    fraction: float,
    num_communities: int,
    rng: np.random.Generator,
) -> None:
    num_nodes, num_edges = len(by_rank), edge_index.shape[1]
    starts = np.arange(num_communities + 1) * num_nodes // num_communities  # [C + 1]
    sizes = np.diff(starts)  # [C]
    block_of = np.repeat(np.arange(num_communities), sizes)  # [N]
    # The ranking within each block is that of the whole graph.
    local = by_rank[np.argsort(block_of[by_rank], kind="stable")]  # [N]
    for chunk in _chunks(num_edges):
        block = block_of[edge_index[1, chunk]]  # [chunk]
        # Every edge at which the running share passes a whole number stays inside.
        passed = np.floor(np.arange(chunk.start, chunk.stop + 1) * fraction + 0.5)
        inside = np.diff(passed) > 0  # [chunk]
        src = np.empty(len(block), dtype=np.int64)
        home = block[inside]
        src[inside] = local[starts[home] + _draw_ranks(rng.random(len(home)), sizes[home], skew)]
        pending = np.flatnonzero(~inside)
        while len(pending):
            drawn = by_rank[_draw_ranks(rng.random(len(pending)), num_nodes, skew)]
            src[pending] = drawn
            pending = pending[block_of[drawn] == block[pending]]
        edge_index[0, chunk] = src


def _rank_exponent(num_nodes: int, num_edges: int, max_degree: int) -> float:
    """Return the s at which `max_degree * r**-s` over all ranks adds up to the number of edges."""
    head = np.arange(1, min(num_nodes, 1024) + 1, dtype=np.float64)
    low, high = 0.0, 64.0
    for _ in range(80):
        s = (low + high) / 2
        total = float((head**-s).sum())
        if num_nodes > len(head):
            # Past the head the sum is its integral between half ranks, to a relative 1e-7.
            first, last = len(head) + 0.5, num_nodes + 0.5
            power = 1 - s
            total += (
                math.log(last / first)
                if abs(power) < 1e-9
                else (last**power - first**power) / power
            )
        low, high = (s, high) if max_degree * total > num_edges else (low, s)
    return high


def source_skew(num_nodes: int, num_edges: int, max_degree: int) -> float:
    """Return the power with which the shares of `power_law`'s sources fall by rank."""
    return min(_rank_exponent(num_nodes, num_edges, max_degree), 1.0)


def zipf_degrees(num_nodes: int, num_edges: int, max_degree: int) -> IntArray:
    """Return degrees by falling rank, [N]: the first is `max_degree`, the sum is `num_edges`."""
    if num_nodes == 0:
        return np.empty(0, dtype=np.int64)
    exponent = _rank_exponent(num_nodes, num_edges, max_degree)
    exact = max_degree * np.arange(1, num_nodes + 1, dtype=np.float64) ** -exponent
    degree = exact.astype(np.int64)
    degree[0] = max_degree
    missing = num_edges - int(degree.sum())
    # The largest remainders are rounded up; a round of that is nearly always all there is to do.
    order = np.argsort(degree - exact, kind="stable")
    while missing:
        step = 1 if missing > 0 else -1
        room = degree[order] < max_degree if step > 0 else degree[order] > 0
        room &= order > 0
        chosen = order[room][: abs(missing)]
        degree[chosen] += step
        missing -= step * len(chosen)
    return degree


def _draw_ranks(
    uniform: npt.NDArray[np.float64],  # [E] in [0, 1)
    count: int | IntArray,  # how many ranks, for all or for each
    skew: float,
) -> IntArray:
    """Return ranks from 0 to `count - 1` with probabilities that fall as `(rank + 1)**-skew`."""
    power = max(1.0 - skew, 1e-6)
    # The inverse of the continuous distribution over [1, count + 1).
    top = (np.asarray(count, dtype=np.float64) + 1.0) ** power - 1.0
    ranks: IntArray = ((1.0 + uniform * top) ** (1.0 / power)).astype(np.int64) - 1
    np.minimum(ranks, np.asarray(count) - 1, out=ranks)
    return ranks


def rmat(
    num_nodes: int,
    num_edges: int,
    a: float = 0.57,
    b: float = 0.19,
    c: float = 0.19,
    shuffle: bool = False,
    seed: int = 0,
) -> GraphData:
    """Return an R-MAT graph: every edge picks a quadrant of the adjacency matrix, again and again.

    The quadrants are a (both ids in the lower half), b (only the destination in the upper half),
    c (only the source) and d = 1 - a - b - c; the default values are those of Graph500. Ids need
    not fill a power of two: edges that fall outside are drawn again. Low ids have the highest
    degrees.

    Source: Chakrabarti, Zhan, Faloutsos, "R-MAT: a recursive model for graph mining", SDM 2004.

    Args:
        num_nodes: number of nodes N.
        num_edges: number of edges E.
        a: probability of the first quadrant, above 0.
        b: probability of the second.
        c: probability of the third.
        shuffle: relabel the nodes at random.
        seed: seed of everything drawn.

    Raises:
        ValueError: no nodes for the edges, or probabilities that are negative or exceed 1 in sum.

    Cost: log2(N) random numbers per edge, about 10 nanoseconds each; memory of the output.
    """
    _check_counts("rmat", num_nodes=num_nodes, num_edges=num_edges)
    _check_ends("rmat", num_nodes, num_nodes, num_edges)
    if a <= 0 or b < 0 or c < 0 or a + b + c > 1 + 1e-9:
        raise ValueError(
            f"rmat: a must be above 0, b and c at least 0, and a + b + c at most 1, "
            f"got a={a}, b={b}, c={c}"
        )
    levels = max(num_nodes - 1, 0).bit_length()
    rng = np.random.default_rng(seed)
    edge_index = np.empty((2, num_edges), dtype=np.int64)
    for chunk in _chunks(num_edges):
        pending = np.arange(chunk.start, chunk.stop)
        while len(pending):
            src = np.zeros(len(pending), dtype=np.int64)
            dst = np.zeros(len(pending), dtype=np.int64)
            for _ in range(levels):
                u = rng.random(len(pending), dtype=np.float32)
                upper_src = u >= a + b
                upper_dst = (u >= a) ^ upper_src | (u >= a + b + c)
                src = 2 * src + upper_src
                dst = 2 * dst + upper_dst
            edge_index[0, pending], edge_index[1, pending] = src, dst
            pending = pending[(src >= num_nodes) | (dst >= num_nodes)]
    if shuffle:
        edge_index = rng.permutation(num_nodes)[edge_index]
    return _graph(f"rmat-{num_nodes}-{num_edges}", edge_index, num_nodes)


def uniform(num_nodes: int | tuple[int, int], num_edges: int, seed: int = 0) -> GraphData:
    """Return a graph whose every edge has both ends drawn uniformly and independently.

    Source: the G(n, m) model of Erdos and Renyi, "On random graphs I", 1959, with repetition.

    Args:
        num_nodes: number of nodes, or (sources, destinations) for a bipartite graph.
        num_edges: number of edges E.
        seed: seed of everything drawn.

    Raises:
        ValueError: a negative size, or no nodes for the edges.

    Cost: about 10 nanoseconds per edge; memory of the output.
    """
    num_src, num_dst = num_nodes if isinstance(num_nodes, tuple) else (num_nodes, num_nodes)
    _check_counts("uniform", num_src=num_src, num_dst=num_dst, num_edges=num_edges)
    _check_ends("uniform", num_src, num_dst, num_edges)
    rng = np.random.default_rng(seed)
    edge_index = np.empty((2, num_edges), dtype=np.int64)
    if num_edges:
        edge_index[0] = rng.integers(num_src, size=num_edges)
        edge_index[1] = rng.integers(num_dst, size=num_edges)
    return _graph(f"uniform-{num_src}-{num_edges}", edge_index, num_src, num_dst)


def hub(num_nodes: int, num_edges: int, hub_degree: int, seed: int = 0) -> GraphData:
    """Return a graph in which one node has `hub_degree` incoming edges, all others the same.

    The hub is the node in the middle; the other rows differ by one edge at most. With
    `hub_degree = num_edges // num_nodes` the graph is even: the twin that a hub is compared with.

    Args:
        num_nodes: number of nodes N.
        num_edges: number of edges E.
        hub_degree: incoming edges of the hub, at most E, and E where there is no other node.
        seed: seed of the sources, which are drawn uniformly.

    Returns:
        Edges sorted by destination.

    Raises:
        ValueError: sizes that no graph has.

    Cost: about 10 nanoseconds per edge; memory of the output.
    """
    _check_counts("hub", num_nodes=num_nodes, num_edges=num_edges, hub_degree=hub_degree)
    _check_ends("hub", num_nodes, num_nodes, num_edges)
    others = num_nodes - 1
    if hub_degree > num_edges or (others <= 0 and hub_degree < num_edges):
        raise ValueError(
            f"hub: hub_degree must be at most num_edges={num_edges}, and equal where there is one "
            f"node, got {hub_degree} of {num_nodes} nodes"
        )
    degree = np.zeros(num_nodes, dtype=np.int64)
    if num_nodes:
        each, more = divmod(num_edges - hub_degree, max(others, 1))
        rest = np.full(others, each) + (np.arange(others) < more)
        degree[:] = np.insert(rest, others // 2, hub_degree)
    rng = np.random.default_rng(seed)
    destination = np.repeat(np.arange(num_nodes), degree)
    source = rng.integers(max(num_nodes, 1), size=num_edges)
    edge_index = np.stack([source, destination])
    return _graph(f"hub-{num_nodes}-{num_edges}-{hub_degree}", edge_index, num_nodes)


def grid(rows: int, cols: int) -> GraphData:
    """Return a grid, numbered along its rows, with every node joined to its 4 neighbours.

    Both directions are stored, sorted by destination and then source.

    Args:
        rows: number of rows.
        cols: number of columns.

    Raises:
        ValueError: a negative size.

    Cost: a few passes over the edges; memory about three times the output.
    """
    _check_counts("grid", rows=rows, cols=cols)
    node = np.arange(rows * cols, dtype=np.int64)
    row, col = np.divmod(node, max(cols, 1))
    # Above, left, right, below: sources in increasing order for every destination.
    near = node[:, None] + np.array([-cols, -1, 1, cols])  # [N, 4]
    there = np.stack([row > 0, col > 0, col < cols - 1, row < rows - 1], axis=1)  # [N, 4]
    edge_index = np.stack([near[there], np.repeat(node, there.sum(axis=1))])
    return _graph(f"grid-{rows}-{cols}", edge_index, rows * cols)


def star(num_leaves: int, direction: str = "in") -> GraphData:
    """Return a star: node 0 is the centre, nodes 1 to `num_leaves` the leaves.

    Args:
        num_leaves: number of leaves, and of edges.
        direction: "in": every edge points to the centre; "out": every edge leaves it.

    Raises:
        ValueError: a negative size, or another direction.

    Cost: one pass over the edges.
    """
    _check_counts("star", num_leaves=num_leaves)
    if direction not in ("in", "out"):
        raise ValueError(f"star: direction must be 'in' or 'out', got {direction!r}")
    edge_index = np.zeros((2, num_leaves), dtype=np.int64)
    edge_index[0 if direction == "in" else 1] = np.arange(1, num_leaves + 1)
    return _graph(f"star-{direction}-{num_leaves}", edge_index, num_leaves + 1)


def _graph(
    name: str, edge_index: IntArray, num_nodes: int, num_dst: int | None = None
) -> GraphData:
    return GraphData(name, torch.from_numpy(edge_index), num_nodes, num_dst=num_dst)


def _chunks(num_edges: int) -> Iterator[slice]:
    for start in range(0, num_edges, _CHUNK):
        yield slice(start, min(start + _CHUNK, num_edges))


def _check_counts(function: str, **counts: int) -> None:
    for field, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int):
            raise TypeError(f"{function}: {field} must be an int, got {type(count).__name__}")
        if count < 0:
            raise ValueError(f"{function}: {field} must be at least 0, got {count}")


def _check_ends(function: str, num_src: int, num_dst: int, num_edges: int) -> None:
    if num_edges and not (num_src and num_dst):
        raise ValueError(f"{function}: {num_edges} edges need at least one node at each end")
