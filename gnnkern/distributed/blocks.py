"""`Blocks`: S on this process: whole, by an exchange, or without one inside diagonal blocks."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from gnnkern.distributed.graph import PartitionedGraph
from gnnkern.distributed.partition import Partition
from gnnkern.distributed.propagator import Propagator, columns_graph
from gnnkern.distributed.quality import halo_pairs
from gnnkern.graph import Graph
from gnnkern.ops.spmm import spmm

__all__ = ["Blocks", "Counts"]


class Counts:
    """What crossed between processes.

    Attributes:
        exchanges: Exchanges of halo rows.
        bytes: Sent in them by this process; by all parts together where they are emulated.
        reductions: Sums over all processes of a few numbers per column.
    """

    def __init__(self) -> None:
        self.exchanges = self.bytes = self.reductions = 0

    def copy(self) -> Counts:
        """As they are now."""
        return copy.copy(self)

    def since(self, before: Counts) -> Counts:
        """What was added."""
        added = Counts()
        for name, value in self.__dict__.items():
            setattr(added, name, value - getattr(before, name))
        return added


class Blocks:
    """The rows of this process, in blocks that work without each other between exchanges.

    On a rank of a `PartitionedGraph` there is one block, its rows. On a `Graph` there are those of
    `partition`, or one: the same computation, in one process. Counts are the same either way.

    Nothing here has a gradient.

    Args:
        propagator: S.
        partition: Of a `Graph`.

    Attributes:
        block: int64 [n] the block of each row, counted over all processes.
        num_blocks: P, of all processes.
        first_block: The first of this process; `local_blocks` follow each other from there.
        local_blocks: How many are here.
        own: The edges inside blocks.
        counts: What has crossed.
    """

    def __init__(self, propagator: Propagator, partition: Partition | None = None) -> None:
        graph = propagator.graph
        self.propagator = propagator
        self.counts = Counts()
        self.is_transposed = False
        self.first_block = 0
        self._halo_rows = 0
        if isinstance(graph, PartitionedGraph):
            if partition is not None:
                raise ValueError("Blocks: partition is for a Graph; a PartitionedGraph has its own")
            plan = graph.exact.plan
            self.num_blocks, self.local_blocks = plan.hierarchy.size, 1
            self.first_block = plan.rank
            self.block = torch.full((graph.num_dst,), plan.rank, device=graph.device)
        else:
            self.block = torch.zeros(graph.num_dst, dtype=torch.int64, device=graph.device)
            self.num_blocks = self.local_blocks = 1
        if partition is not None:
            if partition.num_nodes != graph.num_dst:
                raise ValueError(
                    f"Blocks: partition must be of {graph.num_dst} nodes, got one of "
                    f"{partition.num_nodes}"
                )
            self.num_blocks = self.local_blocks = partition.num_parts
            self.block = partition.part.to(graph.device)
            self._halo_rows = len(halo_pairs(graph, self.block, self.num_blocks)[0])
        self.own, kept = self._own_edges(graph, partition)
        weight = propagator.weight
        self._own_weight = weight if weight is None or kept is None else weight[kept]

    def _own_edges(self, graph: Graph, partition: Partition | None) -> tuple[Graph, Tensor | None]:
        """The edges inside blocks, and the places of their weights; None: all, in their order."""
        if not isinstance(graph, PartitionedGraph) and partition is None:
            return graph, None
        cached: Any = graph._cache.get("own_edges")
        if cached is not None and cached[2] is partition:
            return cached[0], cached[1]
        num_rows, columns = graph.num_dst, columns_graph(graph)
        if partition is None:
            inside = columns.indices < num_rows
        else:
            row = torch.repeat_interleave(columns.in_degree.long())
            inside = self.block[columns.indices.long()] == self.block[row]
        kept = inside.nonzero().squeeze(1)
        before = torch.nn.functional.pad(inside.cumsum(0), (1, 0))
        indptr = before[columns.indptr.long()].to(graph.index_dtype)
        own = Graph(indptr, columns.indices[kept], None, num_rows)
        if graph.edge_id is not None:
            kept = graph.edge_id[kept].long()
        graph._cache["own_edges"] = (own, kept, partition)
        return own, kept

    def transposed(self) -> Blocks:
        """The same of S^T; counts are shared."""
        other = copy.copy(self)
        other.is_transposed = not self.is_transposed
        return other

    @property
    def left(self) -> Tensor:  # [n]
        """L of S = L W R, or of its transpose."""
        return self.propagator.right if self.is_transposed else self.propagator.left

    @property
    def right(self) -> Tensor:  # [n]
        """R, likewise."""
        return self.propagator.left if self.is_transposed else self.propagator.right

    def propagate(self, x: Tensor) -> Tensor:  # [n, F] -> [n, F]
        """S x: an exchange."""
        graph = self.propagator.graph
        self.counts.exchanges += 1
        traffic = graph.traffic if isinstance(graph, PartitionedGraph) else None
        before = sum(traffic.bytes.values()) if traffic is not None else 0
        out = self.propagator.transposed(x) if self.is_transposed else self.propagator(x)
        if traffic is None:
            self.counts.bytes += self._halo_rows * x.shape[1] * x.element_size()
        else:
            self.counts.bytes += sum(traffic.bytes.values()) - before
        return out

    def within(self, x: Tensor) -> Tensor:  # [n, F] -> [n, F]
        """The part of S x that comes from the own block, without an exchange."""
        graph = self.own.reverse if self.is_transposed else self.own
        return self.left.unsqueeze(1) * spmm(graph, self.right.unsqueeze(1) * x, self._own_weight)

    def sum(self, x: Tensor) -> Tensor:
        """A tensor's sum over all processes; it is overwritten."""
        self.counts.reductions += 1
        graph = self.propagator.graph
        return graph.sum_over_ranks(x) if isinstance(graph, PartitionedGraph) else x

    def is_symmetric(self) -> bool:
        """Whether the weighted edges W are a symmetric matrix, over all processes.

        By a product with random vectors on both sides, u W v = v W u, which fails for all other
        matrices but with probability zero; within rounding. Cost: an exchange of width 2.
        """
        generator = torch.Generator().manual_seed(1 + self.first_block)
        rows = torch.randn(len(self.block), 2, generator=generator, dtype=torch.float64)
        rows = rows.to(self.block.device)
        weight = self.propagator.weight
        plain = Propagator(self.propagator.graph, weight, "none", dtype=torch.float64)
        other = copy.copy(self)
        other.propagator, other.is_transposed = plain, False
        image = other.propagate(rows)
        there, back = rows[:, 0] * image[:, 1], rows[:, 1] * image[:, 0]
        sums = torch.stack([(there - back).sum(), there.square().sum(), back.square().sum()])
        difference, *squares = self.sum(sums).tolist()
        # Weights that were computed in their dtype are symmetric up to rounding, of random signs.
        rounding = torch.finfo(torch.float64 if weight is None else weight.dtype).eps
        return bool(abs(difference) <= 100 * rounding * max(squares) ** 0.5)
