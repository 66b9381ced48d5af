"""What a call moves and computes, and what that depends on."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gnnkern._native import accumulate_dtype, argument_dtype
from gnnkern.hardware.edges import Edges, Reads

__all__ = ["Call", "Cost", "Gather"]

_SELECTS = ("max", "min")


@dataclass(frozen=True)
class Gather:
    """Rows read in the order in which the edges name them."""

    row_bytes: int
    reads: Reads

    @property
    def bytes(self) -> int:
        """What moves when no row is found in a cache."""
        return self.row_bytes * self.reads.count

    @property
    def table_bytes(self) -> int:
        """The rows that are read at all."""
        return self.row_bytes * self.reads.distinct


@dataclass(frozen=True)
class Cost:
    """What a call moves and computes.

    Attributes:
        compulsory_bytes: Every byte once: input rows that are read, output rows, indices.
        index_bytes: The part of these that is structure.
        flops: Floating-point operations.
        gathers: The gathers of rows, each of one row per edge.
    """

    compulsory_bytes: int = 0
    index_bytes: int = 0
    flops: int = 0
    gathers: tuple[Gather, ...] = ()

    @property
    def gathered_bytes(self) -> int:
        """What moves when no gathered row is found in a cache; 0 for an op that streams."""
        return sum(gather.bytes for gather in self.gathers)

    @property
    def moved_bytes(self) -> int:
        """What an achieved bandwidth is quoted against: every gathered row, or every byte once."""
        return max(self.gathered_bytes, self.compulsory_bytes)

    def __add__(self, other: Cost) -> Cost:
        """Of two calls, one after the other."""
        return Cost(
            self.compulsory_bytes + other.compulsory_bytes,
            self.index_bytes + other.index_bytes,
            self.flops + other.flops,
            self.gathers + other.gathers,
        )


@dataclass(frozen=True)
class Call:
    """An op's call, as far as its cost depends on it; the fields are those of `cost`."""

    edges: Edges
    width: int
    dtype: torch.dtype
    heads: int
    reduces: tuple[str, ...]
    weights: int  # scalars per edge: edge weights, scores or biases
    backward: frozenset[str]
    out_width: int
    edge_rows: bool
    edge_op: str

    @property
    def item(self) -> int:
        """Bytes of an element."""
        return self.dtype.itemsize

    @property
    def wide(self) -> int:
        """Bytes of an element as it is accumulated."""
        return accumulate_dtype(self.dtype).itemsize

    @property
    def row(self) -> int:
        """Bytes of a row of features."""
        return self.width * self.item

    @property
    def edge_scalars(self) -> int:
        """Bytes of the weights, scores or biases of all edges."""
        return self.edges.num_edges * self.weights * self.item

    @property
    def order(self) -> int:
        """Bytes of the map to the caller's edge order, where an edge tensor is read by it."""
        return self.edges.order_bytes if self.weights or self.edge_rows else 0

    @property
    def selects(self) -> int:
        """How many of the reductions pick one row."""
        return sum(reduce in _SELECTS for reduce in self.reduces)

    @property
    def argument(self) -> int:
        """Bytes that say who won, per selecting reduction."""
        positions = argument_dtype(self.edges.max_degree).itemsize
        return self.edges.num_dst * self.width * positions

    @property
    def from_src(self) -> Gather:
        """One gather of rows of sources."""
        return Gather(self.row, self.edges.sources)

    @property
    def from_dst(self) -> Gather:
        """One gather of rows of destinations, over the reversed graph."""
        return Gather(self.row, self.edges.targets)
