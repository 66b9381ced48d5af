"""What a call must cost: bytes and operations of an op, the times they take, a prediction.

    compulsory   every byte once, at the rate of copies
    gather       every gathered row from memory, at the rate of copies
    cache        every gathered row from the caches that still have it, at the measured rates of
                 random rows
    compute      every operation at the rate of torch's matrix products

The floor is the largest of compulsory, cache and compute; a good kernel lies between it and gather.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gnnkern._native import accumulate_dtype
from gnnkern.graph import Graph
from gnnkern.hardware.edges import Edges, Reads
from gnnkern.hardware.efficiency import efficiency_of
from gnnkern.hardware.machine import Machine
from gnnkern.hardware.op_traffic import INPUTS, TRAFFIC
from gnnkern.hardware.traffic import Call, Cost, Gather

__all__ = ["Cost", "Edges", "Gather", "Reads", "Times", "cost", "predict", "times"]

# Numbers of reads between two of the same row that are told apart, in its mean: the part below the
# first and beyond the last is less than a hundredth and a billionth.
_FIRST, _LAST = 0.01, 20.0


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
        edge_rows: Of gatv2_attention and dot_attention: whether edge_x is given. Of spmm: whether
            the weight has a row per edge, which is all there is where it is not `weighted`. Of
            sddmm: whether one operand lies on the edges.
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
            weights=_weights(op, weighted, heads, width, edge_rows),
            backward=frozenset(backward),
            out_width=out_width,
            edge_rows=edge_rows,
            edge_op=edge_op,
        )
    )


def _weights(op: str, weighted: bool, heads: int, width: int, edge_rows: bool) -> int:
    if not weighted:
        return 0
    return width if op == "spmm" and edge_rows else heads


def times(cost: Cost, machine: Machine, *, dtype: torch.dtype = torch.float32) -> Times:
    """The times of a cost on a machine.

    Copies and gathers run at the rates measured for their sizes: what fits into a cache is timed at
    that cache's rate, as it is found there when a call is repeated. Gathers are taken to read rows
    as often as the graph's degrees say, but in random order: one with neighbours close together can
    come below the floor.
    """
    compute = cost.flops / matmul_rate(machine, dtype) if cost.flops else 0.0
    return Times(
        compulsory_s=cost.compulsory_bytes / machine.copy_bandwidth(cost.compulsory_bytes),
        gather_s=cost.moved_bytes / machine.copy_bandwidth(),
        cache_s=sum(_gather_seconds(gather, machine) for gather in cost.gathers),
        compute_s=compute,
    )


def predict(
    op: str,
    g: Graph | Edges,
    *,
    machine: Machine,
    width: int = 1,
    dtype: torch.dtype = torch.float32,
    reduce: str | Sequence[str] = "sum",
    backward: Collection[str] = (),
    **options: Any,
) -> dict[str, float]:
    """Seconds of a call by backend, of those that were measured: "cpu" and "reference".

    The kernels take the floor by the efficiency in `gnnkern.hardware.efficiency`, forward and
    backward each; the reference takes the time of copying its tensors of E rows. An empty call is
    added to both. Expect a factor of two, and an order that holds.

    Args:
        op: An op's name.
        g: The graph, or what `cost` takes in its place.
        machine: What the probe measured.
        width: As `cost` takes it, like dtype, reduce, backward and the options.
        dtype: See `cost`.
        reduce: See `cost`.
        backward: See `cost`.
        options: See `cost`.

    Raises:
        ValueError: there is no such op, or it has no such input.
    """
    options = {"width": width, "dtype": dtype, "reduce": reduce, **options}
    forward_floor = times(cost(op, g, **options), machine, dtype=dtype).floor_s
    floor = times(cost(op, g, backward=backward, **options), machine, dtype=dtype).floor_s
    known = efficiency_of(op, (reduce,) if isinstance(reduce, str) else tuple(reduce))
    edge_bytes = Edges.of(g).num_edges * width * accumulate_dtype(dtype).itemsize
    one_pass = edge_bytes / machine.copy_bandwidth()
    calls = 2 if backward else 1
    passes = known.reference_forward + (known.reference_backward if backward else 0.0)
    return {
        "cpu": forward_floor / known.forward
        + max(floor - forward_floor, 0.0) / known.backward
        + calls * machine.op_call_s,
        "reference": passes * one_pass
        + calls * (machine.op_call_s + known.reference_calls * machine.torch_call_s),
    }


def matmul_rate(machine: Machine, dtype: torch.dtype) -> float:
    """Operations per second of matrix products: halves as bfloat16, double at half of single."""
    rates = machine.matmul_flops_per_s
    if dtype == torch.float64:
        return rates["float32"] / 2
    return max(rates.values()) if dtype.itemsize == 2 else rates["float32"]


def _gather_seconds(gather: Gather, machine: Machine) -> float:
    """Seconds of a gather, by how much else is read before a row is read again.

    Where that is d bytes, a cache of more than d still has the row. From tables of s bytes that are
    read evenly a byte takes t(s) seconds, the mean over all d up to s; so at distance d it takes
    the derivative of s t(s) there. The distances follow from how often each row is read, in an
    order that is random: a row of share f is away for more than n reads with probability
    exp(-f n), and meanwhile the rows that are not come by.

    Source: the distances as in Che, Tung and Wang, "Hierarchical web caching systems", 2002.
    """
    reads = gather.reads
    if reads.count == 0 or gather.row_bytes == 0:
        return 0.0
    groups = _groups(reads)
    seconds = per_byte = area = distance = 0.0
    away = 1.0
    for number in _steps(_FIRST / max(f for _, f in groups), _LAST / min(f for _, f in groups)):
        still = [rows * math.exp(-f * number) for rows, f in groups]
        still_away = sum(rows * f for rows, (_, f) in zip(still, groups, strict=True))
        between = (reads.distinct - sum(still)) * gather.row_bytes
        if between <= distance:
            continue
        # A larger table is never faster, whatever the noise of the probe says.
        per_byte = max(per_byte, 1 / machine.gather_bandwidth(gather.row_bytes, between))
        here = (between * per_byte - area) / (between - distance)
        seconds += (away - still_away) * gather.bytes * here
        area, distance, away = between * per_byte, between, still_away
    return seconds


def _groups(reads: Reads) -> list[tuple[int, float]]:
    """Rows that are read about equally often: their number, and the share of one of them."""
    groups = []
    rows_before, share_before = 0, 0.0
    for step, share in enumerate(reads.hottest):
        rows = min(2**step, reads.distinct)
        groups.append((rows - rows_before, (share - share_before) / (rows - rows_before)))
        rows_before, share_before = rows, share
    return groups


def _steps(first: float, last: float) -> list[float]:
    """From first to last, each half as large again as the one before."""
    count = math.ceil(math.log(last / first) / math.log(1.5))
    return [first * 1.5**step for step in range(count + 1)]
