"""What a call must cost: bytes and operations of an op, the times they take, a prediction.

    compulsory   every byte once, at the rate of copies
    gather       every gathered row from memory, at the rate of copies
    cache        every gathered row from where the table's hottest rows fit, at the measured rate
                 of random rows
    compute      every operation at the rate of torch's matrix products

The floor is the largest of compulsory, cache and compute; a good kernel lies between it and gather.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from gnnkern.graph import Graph
from gnnkern.hardware.edges import Edges, Reads
from gnnkern.hardware.machine import Machine
from gnnkern.hardware.op_traffic import INPUTS, TRAFFIC
from gnnkern.hardware.traffic import Call, Cost, Gather

__all__ = ["Cost", "Edges", "Gather", "Reads", "Times", "cost", "times"]


@dataclass(frozen=True)
class Times:
    """Seconds that a measured time stands between; see the top of this module."""

    compulsory_s: float
    gather_s: float
    cache_s: float
    compute_s: float

    @property
    def floor_s(self) -> float:
        """What no implementation that reads these rows in this order comes below."""
        return max(self.compulsory_s, self.cache_s, self.compute_s)


def cost(
    op: str,
    g: Graph | Edges,
    *,
    width: int = 1,
    dtype: torch.dtype = torch.float32,
    heads: int = 1,
    reduce: str | Sequence[str] = "sum",
    weighted: bool = False,
    backward: Collection[str] = (),
    out_width: int = 0,
    edge_rows: bool = False,
    edge_op: str = "dot",
) -> Cost:
    """The bytes and operations of a forward and of the gradients asked for.

    Args:
        op: An op's name.
        g: The graph; for ops on segments or groups also `Edges.segments(num_segments, num_rows)`.
        width: Elements of a row of features, all heads together; of the scores of an edge for
            edge_softmax.
        dtype: Of the tensors.
        heads: How many the width is divided into.
        reduce: The reduction; several for multi_reduce.
        weighted: Whether every edge has numbers of its own, one per head: the weight of spmm, the
            edge_score of gat_attention, the edge_bias of dot_attention; for segment_matmul and
            gather_matmul: whether there is a bias.
        backward: The inputs to differentiate by, by their names in the op's signature.
        out_width: Of segment_matmul and gather_matmul: the width of the result.
        edge_rows: Of gatv2_attention and dot_attention: whether edge_x is given.
        edge_op: Of sddmm: the op on both ends.

    Raises:
        TypeError: g is no graph.
        ValueError: there is no such op, or it has no such input.
    """
    if op not in TRAFFIC:
        raise ValueError(f"cost: op must be one of {', '.join(TRAFFIC)}, got {op!r}")
    unknown = sorted(set(backward) - set(INPUTS[op]))
    if unknown:
        raise ValueError(
            f"cost: backward of {op} must be some of {', '.join(INPUTS[op])}, got {unknown[0]!r}"
        )
    return TRAFFIC[op](
        Call(
            edges=Edges.of(g),
            width=width,
            dtype=dtype,
            heads=heads,
            reduces=(reduce,) if isinstance(reduce, str) else tuple(reduce),
            weights=heads if weighted else 0,
            backward=frozenset(backward),
            out_width=out_width,
            edge_rows=edge_rows,
            edge_op=edge_op,
        )
    )


def times(cost: Cost, machine: Machine, *, dtype: torch.dtype = torch.float32) -> Times:
    """The times of a cost on a machine.

    Copies and gathers run at the rates measured for their sizes: what fits into a cache is timed at
    that cache's rate, as it is found there when a call is repeated. Of a table beyond a cache, the
    rows that are read most often are taken to stay in it.
    """
    compute = cost.flops / matmul_rate(machine, dtype) if cost.flops else 0.0
    return Times(
        compulsory_s=cost.compulsory_bytes / machine.copy_bandwidth(cost.compulsory_bytes),
        gather_s=cost.moved_bytes / machine.copy_bandwidth(),
        cache_s=sum(_gather_seconds(gather, machine) for gather in cost.gathers),
        compute_s=compute,
    )


def matmul_rate(machine: Machine, dtype: torch.dtype) -> float:
    """Operations per second of matrix products: halves as bfloat16, double at half of single."""
    rates = machine.matmul_flops_per_s
    if dtype == torch.float64:
        return rates["float32"] / 2
    return max(rates.values()) if dtype.itemsize == 2 else rates["float32"]


def _gather_seconds(gather: Gather, machine: Machine) -> float:
    """Seconds of a gather whose hottest rows lie in the fastest memory.

    From tables of s bytes, read evenly, a byte takes t(s) seconds. That is the mean over the table
    of what a byte takes at place p in the order of heat, d(s t(s))/ds at p; reads by their place
    give the time of any distribution, and t(s) again where it is even.
    """
    reads = gather.reads
    if reads.count == 0 or gather.row_bytes == 0:
        return 0.0
    seconds = per_byte = area = before = share = 0.0
    for step, reached in enumerate(reads.hottest):
        table = min(2**step, reads.distinct) * gather.row_bytes
        # A larger table is never faster, whatever the noise of the probe says.
        per_byte = max(per_byte, 1 / machine.gather_bandwidth(gather.row_bytes, table))
        here = (table * per_byte - area) / (table - before)
        seconds += (reached - share) * gather.bytes * here
        area, before, share = table * per_byte, table, reached
    return seconds
