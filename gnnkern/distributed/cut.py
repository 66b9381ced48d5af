"""`LocalPart`: what one rank holds of a partitioned graph, and cutting it out of the whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gnnkern.distributed.adjacency import row_positions
from gnnkern.distributed.hierarchy import Hierarchy
from gnnkern.distributed.partition import Partition
from gnnkern.distributed.quality import halo_pairs
from gnnkern.graph import Graph

__all__ = ["Edges", "LocalPart", "cut", "narrow"]


@dataclass(frozen=True, eq=False)
class Edges:
    """The edges of the owned rows in one direction, and the rows that they need of other ranks.

    Columns below n are owned nodes, those from n on are ghosts. The columns of a row stand in the
    order that they have in the whole graph. What has a number per edge, and `indptr`, is int32
    where the numbers fit.

    Attributes:
        indptr: [n + 1] where each row begins.
        indices: [E_local] column of each edge.
        edge_id: [E_local] the edge's position in the whole graph's caller order.
        ghosts: [g] global ids of the columns behind the owned ones, by owner, then ascending.
        ghost_splits: [P] how many ghosts each rank owns.
        send_rows: [s] owned rows that others need, by receiver, then by global id.
        send_splits: [P] how many rows go to each rank.
        interior: The range of rows without a ghost.
    """

    indptr: Tensor
    indices: Tensor
    edge_id: Tensor
    ghosts: Tensor
    ghost_splits: Tensor
    send_rows: Tensor
    send_splits: Tensor
    interior: tuple[int, int]


@dataclass(frozen=True, eq=False)
class LocalPart:
    """What one rank holds.

    Owned nodes stand in four groups, each by ascending id: rows that others need but that need
    nobody, rows without either, rows that need others alone, and both. So the rows without a ghost
    are one range, in either direction.

    Attributes:
        rank: Whose part.
        hierarchy: Of all ranks.
        num_nodes: N of the whole graph.
        fingerprint: That of the partition.
        owned: int64 [n] global ids of the rows.
        forward: In-edges of the owned nodes.
        backward: Their out-edges, where the graph can be walked in reverse; else None.
    """

    rank: int
    hierarchy: Hierarchy
    num_nodes: int
    fingerprint: int
    owned: Tensor
    forward: Edges
    backward: Edges | None = None


class _Pairs:
    """The rows that an exchange moves, (receiver, node), read by receiver and by sender."""

    def __init__(self, graph: Graph, partition: Partition) -> None:
        self._part = partition.part
        self._receiver, self._node = halo_pairs(graph, self._part, partition.num_parts)
        self._owner = self._part[self._node]
        self._num_parts = partition.num_parts

    def ghosts(self, rank: int) -> tuple[Tensor, Tensor]:  # [g], [P]
        """Nodes that a rank needs, by owner, and how many each owner has."""
        mine = self._receiver == rank
        node, owner = self._node[mine], self._owner[mine]
        order = torch.sort(owner, stable=True).indices
        return node[order], torch.bincount(owner, minlength=self._num_parts)

    def sent(self, rank: int) -> tuple[Tensor, Tensor]:  # [s], [P]
        """Nodes that others need of a rank, by receiver, and how many each receives."""
        mine = self._owner == rank
        return self._node[mine], torch.bincount(self._receiver[mine], minlength=self._num_parts)


def cut(
    graph: Graph, partition: Partition, *, reverse: bool = False, ranks: range | None = None
) -> Iterator[LocalPart]:
    """Yield the parts of a graph, one at a time.

    Args:
        graph: The whole graph.
        partition: Whose part each node is.
        reverse: Whether to keep the out-edges as well.
        ranks: Whose parts; by default everybody's.

    Raises:
        ValueError: the partition is of another number of nodes, or the graph is bipartite.
    """
    if graph.num_src != graph.num_dst or partition.num_nodes != graph.num_dst:
        raise ValueError(
            f"cut: the partition has {partition.num_nodes} nodes, the graph {graph.num_src} "
            f"sources and {graph.num_dst} destinations"
        )
    graph = graph.to("cpu")
    pairs = _Pairs(graph, partition)
    back = _Pairs(graph.reverse, partition) if reverse else None
    fingerprint = partition.fingerprint
    for rank in ranks or range(partition.num_parts):
        ghosts, sent = pairs.ghosts(rank)[0], pairs.sent(rank)[0]
        owned, group_sizes = _ordered(graph, partition.part, rank, ghosts, sent)
        first, second, third, _ = group_sizes
        interior = (0, first + second)
        # Out-edges turn the two properties round: who is sent needs others, and the reverse.
        rev_interior = (first, first + second + third)
        number = torch.full((graph.num_dst,), -1, dtype=torch.int64)
        number[owned] = torch.arange(len(owned))
        yield LocalPart(
            rank,
            partition.hierarchy,
            graph.num_dst,
            fingerprint,
            owned,
            _edges(graph, owned, number, pairs, rank, interior),
            None
            if back is None
            else _edges(graph.reverse, owned, number, back, rank, rev_interior),
        )


def _ordered(
    graph: Graph, part: Tensor, rank: int, ghosts: Tensor, sent: Tensor
) -> tuple[Tensor, list[int]]:
    """The owned nodes by group, and the sizes of the groups."""
    owned = (part == rank).nonzero().squeeze(1)
    is_ghost = torch.zeros(graph.num_dst, dtype=torch.bool)
    is_ghost[ghosts] = True
    indptr, position = row_positions(graph.indptr, owned)
    hit = torch.nn.functional.pad(is_ghost[graph.indices[position].long()].cumsum(0), (1, 0))
    needs = hit[indptr[1:]] > hit[indptr[:-1]]
    is_sent = torch.zeros(graph.num_dst, dtype=torch.bool)
    is_sent[sent] = True
    is_sent = is_sent[owned]
    # 0: sent alone, 1: neither, 2: needs alone, 3: both.
    group = torch.where(needs, 2 + is_sent.long(), 1 - is_sent.long())
    order = torch.sort(group, stable=True).indices
    return owned[order], torch.bincount(group, minlength=4).tolist()


def _edges(
    graph: Graph,
    owned: Tensor,
    number: Tensor,  # [N], local numbers of the owned; written for the ghosts, and left clean
    pairs: _Pairs,
    rank: int,
    interior: tuple[int, int],
) -> Edges:
    ghosts, ghost_splits = pairs.ghosts(rank)
    sent, send_splits = pairs.sent(rank)
    number[ghosts] = len(owned) + torch.arange(len(ghosts))
    indptr, position = row_positions(graph.indptr, owned)
    indices = number[graph.indices[position].long()]
    send_rows = number[sent]
    number[ghosts] = -1
    edge_id = position if graph.edge_id is None else graph.edge_id[position]
    return Edges(
        narrow(indptr, len(position)),
        narrow(indices, len(owned) + len(ghosts)),
        narrow(edge_id, graph.num_edges),
        ghosts,
        ghost_splits,
        send_rows,
        send_splits,
        interior,
    )


def narrow(tensor: Tensor, most: int) -> Tensor:
    """The same numbers, none above `most`, in int32 where that holds them, else in int64."""
    return tensor.to(torch.int32 if most < 2**31 - 1 else torch.int64).contiguous()
