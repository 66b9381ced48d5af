"""Neighbours of neighbours, sampled for all nodes of a hop at once.

A sample begins with seeds. Every hop draws some of the edges at each node that the hop before found
(at the seeds first), for every relation, and numbers the nodes at their other ends in the order in
which they are found. So an edge of the sample leads from a node of a later or the same hop to one
that was expanded. Random numbers are of torch's generator.

Disjoint samples have a tree for each seed: a node is found once for each of them. With times, an
edge or a node later than the seed is not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gnnkern.compat._draws import all_items, draw, draw_weighted

__all__ = ["Relation", "Sample", "induce", "sample"]

# Where the number of its tree stands in the key of a node.
_TREE_BITS, _NODE_BITS = 22, 40


@dataclass(frozen=True, eq=False)
class Relation:
    """Edges from nodes of one type to nodes of another, by the node that is expanded."""

    expanded: str  # type of the nodes that have the edges
    found: str  # type of the nodes at the other ends
    indptr: Tensor  # [N + 1]
    indices: Tensor  # [E]
    fan_out: Sequence[int]  # for every hop, negative: all
    time: Tensor | None = None  # [E]
    weight: Tensor | None = None  # [E]


@dataclass(eq=False)
class _Nodes:
    """The nodes of a type that were found, in their order, and where each key stands."""

    node: Tensor
    tree: Tensor | None
    keys: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    places: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    begin: int = 0  # the first node that the last hop found
    per_hop: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.per_hop.append(self.node.shape[0])
        keys, inverse = torch.unique(_key(self.node, self.tree), return_inverse=True)
        self.keys, self.places = keys, _first(inverse, keys.shape[0])

    def place(self, keys: Tensor) -> Tensor:
        """Where each key stands; -1 for those that were not found."""
        if self.keys.numel() == 0:
            return torch.full_like(keys, -1)
        at = torch.searchsorted(self.keys, keys).clamp(max=self.keys.shape[0] - 1)
        return torch.where(self.keys[at] == keys, self.places[at], -1)

    def add(self, node: Tensor, tree: Tensor | None) -> Tensor:
        """Where each of these stands, those not found before behind all others."""
        keys, inverse = torch.unique(_key(node, tree), return_inverse=True)
        place = self.place(keys)
        first = _first(inverse, keys.shape[0])
        new = (place < 0).nonzero().squeeze(1)
        new = new[first[new].argsort()]
        place[new] = self.node.shape[0] + torch.arange(new.shape[0])
        self.node = torch.cat([self.node, node[first[new]]])
        if tree is not None and self.tree is not None:
            self.tree = torch.cat([self.tree, tree[first[new]]])
        keys, order = torch.cat([self.keys, keys[new]]).sort()
        self.keys, self.places = keys, torch.cat([self.places, place[new]])[order]
        return place[inverse]


def _key(node: Tensor, tree: Tensor | None) -> Tensor:
    return node if tree is None else (tree << _NODE_BITS) + node


def _first(inverse: Tensor, count: int) -> Tensor:
    """Where each of the values that `inverse` names is first."""
    at = torch.arange(inverse.shape[0])
    return at.new_full((count,), inverse.shape[0]).scatter_reduce(0, inverse, at, "amin")


@dataclass(frozen=True, eq=False)
class Sample:
    """Nodes by type; edges by relation, from `found` to `expanded`, both numbered in the sample."""

    node: dict[str, Tensor]
    tree: dict[str, Tensor]  # of disjoint samples
    found: dict[str, Tensor]
    expanded: dict[str, Tensor]
    edge: dict[str, Tensor]  # positions in `indices`
    nodes_per_hop: dict[str, list[int]]
    edges_per_hop: dict[str, list[int]]


def sample(
    who: str,
    node_types: Sequence[str],
    relations: Mapping[str, Relation],
    seeds: Mapping[str, Tensor],
    *,
    replace: bool = False,
    disjoint: bool = False,
    node_time: Mapping[str, Tensor] | None = None,
    seed_time: Mapping[str, Tensor] | None = None,
    latest: bool = False,
) -> Sample:
    """Sample as the module says.

    Args:
        who: The function that errors are of.
        node_types: All types of nodes.
        relations: All relations by name.
        seeds: Nodes to begin with, by type; a node that is given twice is there twice.
        replace: Whether an edge may be drawn again.
        disjoint: Whether every seed has a sample of its own.
        node_time: Times of nodes by type; those later than the seed are not found.
        seed_time: Times of the seeds, by type; by default those of the nodes.
        latest: Draw the last edges of each node, of those that are not too late, in their order.

    Raises:
        ValueError: a size does not fit, a seed does not exist, or times come without `disjoint`.
    """
    times = _times(who, relations, seeds, node_time, seed_time, disjoint)
    nodes, number = {}, 0
    for kind in node_types:
        seed = seeds[kind].long() if kind in seeds else torch.empty(0, dtype=torch.int64)
        _check_seed(who, kind, seed, relations)
        tree = torch.arange(number, number + seed.shape[0]) if disjoint else None
        number += seed.shape[0] if disjoint else 0
        nodes[kind] = _Nodes(seed, tree)
    if number >= 1 << _TREE_BITS:
        raise ValueError(f"{who}: seeds of a disjoint sample must be below 2^{_TREE_BITS}")
    pieces: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {name: [] for name in relations}
    num_hops = max((len(relation.fan_out) for relation in relations.values()), default=0)
    for hop in range(num_hops):
        ends = {kind: found.node.shape[0] for kind, found in nodes.items()}
        for name, relation in relations.items():
            begin, end = nodes[relation.expanded].begin, ends[relation.expanded]
            fan_out = relation.fan_out[hop] if hop < len(relation.fan_out) else 0
            frontier = torch.arange(begin, end)
            time = None if node_time is None else node_time.get(relation.found)
            pieces[name].append(
                _expand(relation, nodes, frontier, fan_out, replace, time, times, latest)
            )
        for kind, found in nodes.items():
            found.begin = ends[kind]
            found.per_hop.append(found.node.shape[0] - ends[kind])
    empty = torch.empty(0, dtype=torch.int64)
    joined = {
        name: [torch.cat(column) for column in zip(*of_hops, strict=True)] or [empty] * 3
        for name, of_hops in pieces.items()
    }
    return Sample(
        node={kind: found.node for kind, found in nodes.items()},
        tree={kind: found.tree for kind, found in nodes.items() if found.tree is not None},
        found={name: columns[0] for name, columns in joined.items()},
        expanded={name: columns[1] for name, columns in joined.items()},
        edge={name: columns[2] for name, columns in joined.items()},
        nodes_per_hop={kind: found.per_hop for kind, found in nodes.items()},
        edges_per_hop={name: [p[2].shape[0] for p in hops] for name, hops in pieces.items()},
    )


def _expand(
    relation: Relation,
    nodes: dict[str, _Nodes],
    frontier: Tensor,  # [G] places of nodes to expand
    fan_out: int,
    replace: bool,
    node_time: Tensor | None,
    times: Tensor | None,  # [trees]
    latest: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The places of both ends of the edges that are drawn, and the edges."""
    here = nodes[relation.expanded]
    node = here.node[frontier]
    first = relation.indptr[node].long()
    counts = relation.indptr[node + 1].long() - first
    tree = None if here.tree is None else here.tree[frontier]
    is_timed = times is not None and (node_time is not None or relation.time is not None)
    if is_timed or relation.weight is not None:
        group, position = all_items(counts)
        edge = first[group] + position
        if is_timed:
            assert times is not None and tree is not None
            bound = times[tree[group]]
            at = relation.time[edge] if relation.time is not None else None
            if at is None:
                assert node_time is not None
                at = node_time[relation.indices[edge].long()]
            kept = at <= bound
            group, edge = group[kept], edge[kept]
            counts = torch.bincount(group, minlength=counts.shape[0])
        start = counts.cumsum(0) - counts
        if latest and is_timed:
            owner, within = all_items(counts if fan_out < 0 else counts.clamp(max=fan_out))
            within = counts[owner] - 1 - within
        elif relation.weight is not None:
            owner, within = draw_weighted(counts, relation.weight[edge], fan_out, replace)
        else:
            owner, within = draw(counts, fan_out, replace)
        edge = edge[start[owner] + within]
    else:
        owner, within = draw(counts, fan_out, replace)
        edge = first[owner] + within
    other = relation.indices[edge].long()
    found = nodes[relation.found].add(other, None if tree is None else tree[owner])
    return found, frontier[owner], edge


def induce(relation: Relation, node: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """All edges of a relation between these nodes: the places of both ends, and the edges."""
    expanded, found = node[relation.expanded], _Nodes(node[relation.found], None)
    first = relation.indptr[expanded].long()
    owner, within = all_items(relation.indptr[expanded + 1].long() - first)
    edge = first[owner] + within
    place = found.place(relation.indices[edge].long())
    kept = place >= 0
    return place[kept], owner[kept], edge[kept]


def _times(
    who: str,
    relations: Mapping[str, Relation],
    seeds: Mapping[str, Tensor],
    node_time: Mapping[str, Tensor] | None,
    seed_time: Mapping[str, Tensor] | None,
    disjoint: bool,
) -> Tensor | None:
    """The time of every tree; None without times."""
    if node_time is None and all(relation.time is None for relation in relations.values()):
        return None
    if not disjoint:
        raise ValueError(f"{who}: times need disjoint=True, a sample for each seed")
    found = []
    for kind, seed in seeds.items():
        time = None if seed_time is None else seed_time.get(kind)
        if time is None and node_time is not None and kind in node_time:
            time = node_time[kind][seed.long()]
        if time is None or time.shape != seed.shape:
            raise ValueError(
                f"{who}: seed_time must have a time for each of the {seed.shape[0]} seeds of "
                f"{kind!r}, got {None if time is None else list(time.shape)}"
            )
        found.append(time)
    return torch.cat(found) if found else None


def _check_seed(who: str, kind: str, seed: Tensor, relations: Mapping[str, Relation]) -> None:
    if seed.dim() != 1:
        raise ValueError(f"{who}: seed must have shape [N], got {list(seed.shape)}")
    sizes = [r.indptr.shape[0] - 1 for r in relations.values() if r.expanded == kind]
    if seed.numel() and sizes and not 0 <= int(seed.min()) <= int(seed.max()) < min(sizes):
        raise ValueError(
            f"{who}: seed must be in [0, {min(sizes)}), got {int(seed.min())} to {int(seed.max())}"
        )
