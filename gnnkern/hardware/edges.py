"""What the cost of an op depends on in a graph: sizes, degrees, how often which row is read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gnnkern.graph import Graph

__all__ = ["Edges", "Reads"]


@dataclass(frozen=True)
class Reads:
    """How the reads of a table are spread over its rows.

    Attributes:
        rows: Rows of the table.
        distinct: Rows that are read at all.
        count: Reads in all.
        hottest: hottest[k] is the part of the reads that goes to the 2**k rows read most often;
            the last is 1.
    """

    rows: int
    distinct: int
    count: int
    hottest: tuple[float, ...]

    @classmethod
    def of_degrees(cls, degree: Tensor) -> Reads:
        """Every row is read as often as its degree [rows] says."""
        count = int(degree.sum())
        distinct = int((degree > 0).sum())
        if count == 0:
            return cls(degree.shape[0], 0, 0, (1.0,))
        total = degree.long().sort(descending=True).values.cumsum(0)  # [rows]
        last = (distinct - 1).bit_length()
        places = torch.tensor([min(2**k, distinct) - 1 for k in range(last + 1)])
        hottest = (total[places.to(total.device)].double() / count).tolist()
        return cls(degree.shape[0], distinct, count, tuple(hottest))

    @classmethod
    def evenly(cls, rows: int, count: int) -> Reads:
        """Every row is read equally often, or once where there are more rows than reads."""
        distinct = min(rows, count)
        if distinct == 0:
            return cls(rows, 0, 0, (1.0,))
        last = (distinct - 1).bit_length()
        hottest = tuple(min(2**k, distinct) / distinct for k in range(last + 1))
        return cls(rows, distinct, count, hottest)


@dataclass(frozen=True, eq=False)
class Edges:
    """The structure that an op walks: a graph, or segments, which have no sources.

    Attributes:
        num_src: Rows at the sources' end; of segments and groups, the rows that are reduced.
        num_dst: Rows at the destinations' end; segments or groups.
        num_edges: E.
        max_degree: The largest number of edges into one destination.
        in_order: Whether edge tensors lie in the order of the walk, so that no map of the order is
            read.
        index_bytes: Bytes of an index.
        graph: The graph, where there is one.
    """

    num_src: int
    num_dst: int
    num_edges: int
    max_degree: int
    in_order: bool
    index_bytes: int
    graph: Graph | None = None

    @classmethod
    def of(cls, g: Graph | Edges) -> Edges:
        """The structure of a graph; a structure is returned as it is."""
        if isinstance(g, Edges):
            return g
        if not isinstance(g, Graph):
            raise TypeError(f"cost: g must be a gnnkern.Graph or Edges, got {type(g).__name__}")
        cached: Edges | None = g._cache.get("edges")
        if cached is None:
            # Kept on the graph, with what is counted below: the degrees are sorted once.
            cached = cls(
                g.num_src,
                g.num_dst,
                g.num_edges,
                g.max_degree,
                g.edge_id is None,
                g.index_dtype.itemsize,
                g,
            )
            g._cache["edges"] = cached
        return cached

    @classmethod
    def segments(
        cls, num_segments: int, num_rows: int, *, max_degree: int = 0, index_bytes: int = 8
    ) -> Edges:
        """Rows in segments or groups, of which no more than the largest size is known."""
        return cls(num_rows, num_segments, num_rows, max_degree, True, index_bytes)

    @cached_property
    def sources(self) -> Reads:
        """How often each source is read by an op that gathers rows of sources."""
        if self.graph is None:
            return Reads.evenly(self.num_src, self.num_edges)
        if self.graph._reverse is not None:
            return Reads.of_degrees(self.graph.reverse.in_degree)
        return Reads.of_degrees(torch.bincount(self.graph.indices, minlength=self.num_src))

    @cached_property
    def targets(self) -> Reads:
        """How often each destination is read over the reversed graph."""
        if self.graph is None:
            return Reads.evenly(self.num_dst, self.num_edges)
        return Reads.of_degrees(self.graph.in_degree)

    @property
    def structure_bytes(self) -> int:
        """Indices and row boundaries."""
        return (self.num_edges + self.num_dst + 1) * self.index_bytes

    @property
    def reverse_bytes(self) -> int:
        """The same of the reversed graph."""
        return (self.num_edges + self.num_src + 1) * self.index_bytes

    @property
    def boundary_bytes(self) -> int:
        """Row boundaries alone."""
        return (self.num_dst + 1) * self.index_bytes

    @property
    def order_bytes(self) -> int:
        """The map to the caller's edge order, where the walk needs it."""
        return 0 if self.in_order else self.num_edges * self.index_bytes

    @property
    def reverse_order_bytes(self) -> int:
        """The map that a walk over the reversed graph needs."""
        return self.num_edges * self.index_bytes
