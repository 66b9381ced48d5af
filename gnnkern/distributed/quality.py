"""`Quality`: what a partition costs: edges cut, rows to exchange, and how even the parts are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gnnkern.distributed.adjacency import edge_blocks
from gnnkern.distributed.hierarchy import LEVELS, Hierarchy
from gnnkern.graph import Graph

__all__ = ["Quality", "by_level", "halo_pairs", "measure"]


@dataclass(frozen=True)
class Quality:
    """Counts of a partition; lists are by part, dictionaries by the kind of link.

    Attributes:
        num_edges: Edges of the graph, each in the part of its destination.
        cut_edges: Edges whose source lies in another part, by the link between the two.
        ghosts: Rows that an exchange moves: pairs of a source and another part that needs it, by
            the link.
        nodes: Nodes of each part.
        edges: Edges of each part.
        part_ghosts: Rows that each part receives in an exchange.
        training: Training nodes of each part, or None.
        cover: Rows that an exchange of a linear op moves where a cover is asked for, by the link;
            None where nobody counted (`with_covered_rows`).
    """

    num_edges: int
    cut_edges: dict[str, int]
    ghosts: dict[str, int]
    nodes: list[int]
    edges: list[int]
    part_ghosts: list[int]
    training: list[int] | None = None
    cover: dict[str, int] | None = None

    @property
    def saved(self) -> float:
        """Share of the rows of an exchange that a cover saves; 0 where nobody counted."""
        rows = sum(self.ghosts.values())
        return 0.0 if self.cover is None else 1.0 - sum(self.cover.values()) / max(rows, 1)

    @property
    def cut(self) -> float:
        """Share of edges that are cut."""
        return sum(self.cut_edges.values()) / max(self.num_edges, 1)

    @property
    def replication(self) -> float:
        """Rows held by all parts together, ghosts included, per node."""
        nodes = sum(self.nodes)
        return (nodes + sum(self.ghosts.values())) / max(nodes, 1)

    def balance(self, what: str) -> float:
        """The largest part over the mean, of "nodes", "edges", "part_ghosts" or "training"."""
        counts: list[int] | None = getattr(self, what)
        if not counts or sum(counts) == 0:
            return 1.0
        return float(max(counts)) * len(counts) / sum(counts)

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        kinds = ("nodes", "edges", "part_ghosts", "training")
        balances = {kind: self.balance(kind) for kind in kinds if getattr(self, kind) is not None}
        return {
            **self.__dict__,
            "cut": self.cut,
            "saved": self.saved,
            "replication": self.replication,
            "balance": balances,
        }


def halo_pairs(
    graph: Graph,
    part: Tensor,  # [N]
    parts: int,
) -> tuple[Tensor, Tensor]:
    """Every row that an exchange moves, once: the part that needs it and the node, int64 [G] both.

    Sorted by part, then by node. Cost: reads the edges in blocks; memory of the cut edges' keys.
    """
    num_nodes = graph.num_dst
    keys = torch.empty(0, dtype=torch.int64, device=part.device)
    waiting: list[Tensor] = []
    held = 0
    for src, dst in edge_blocks(graph):
        receiver = part[dst].long()
        outside = receiver != part[src]
        waiting.append(torch.unique(receiver[outside] * num_nodes + src[outside]))
        held += len(waiting[-1])
        # Merged as they come to at least as many again, so that each key is sorted few times.
        if held > max(len(keys), 1 << 24):
            keys, waiting, held = torch.unique(torch.cat([keys, *waiting])), [], 0
    keys = torch.unique(torch.cat([keys, *waiting]))
    receiver = torch.div(keys, max(num_nodes, 1), rounding_mode="floor")
    return receiver, keys - receiver * num_nodes


def measure(
    graph: Graph,
    part: Tensor,  # [N]
    hierarchy: Hierarchy,
    train_mask: Tensor | None = None,  # [N]
) -> Quality:
    """Count what a partition of a graph costs; reads the edges twice."""
    parts = hierarchy.size
    level = torch.tensor([hierarchy.levels_from(rank) for rank in range(parts)])  # [P, P]
    cut = dict.fromkeys(LEVELS, 0)
    edges = torch.zeros(parts, dtype=torch.int64)
    part = part.cpu().long()
    for src, dst in edge_blocks(graph):
        here, there = part[dst.cpu()], part[src.cpu()]
        edges += torch.bincount(here, minlength=parts)
        for name, count in by_level(level[here, there]).items():
            cut[name] += count
    receiver, source = halo_pairs(graph, part.to(graph.device), parts)
    receiver, source = receiver.cpu(), source.cpu()
    training = None
    if train_mask is not None:
        training = torch.bincount(part[train_mask.cpu()], minlength=parts).tolist()
    return Quality(
        graph.num_edges,
        cut,
        by_level(level[receiver, part[source]]),
        torch.bincount(part, minlength=parts).tolist(),
        edges.tolist(),
        torch.bincount(receiver, minlength=parts).tolist(),
        training,
    )


def by_level(levels: Tensor) -> dict[str, int]:
    """How many of some levels are of each kind; -1 is none of them."""
    counts = torch.bincount(levels + 1, minlength=len(LEVELS) + 1)
    return dict(zip(LEVELS, counts[1:].tolist(), strict=True))
