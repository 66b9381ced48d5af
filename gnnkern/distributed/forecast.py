"""`Forecast`: the time of a training step on ranks, by a model of links and of computing.

Each layer maps its rows, exchanges the mapped rows and sums over neighbours. While rows travel the
interior is computed; the rest follows when they have arrived, and the backward goes the same way
back. A message costs a latency, and a link its bytes by its rate; links of different kinds work at
the same time. Ranks wait for the slowest at every exchange, and at the sum of the gradients.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from gnnkern.distributed.hierarchy import LEVELS
from gnnkern.distributed.loads import Loads
from gnnkern.graph import Graph
from gnnkern.hardware import Machine
from gnnkern.hardware.cost import matmul_rate, predict

__all__ = ["Compute", "Forecast", "LinkSpeeds", "Workload"]

# Of the rows of a layer, read and written: dropout, activation and bias, forward and backward.
_ELEMENTWISE_PASSES = 6
# Of every weight: itself, its gradient, and the two moments of Adam.
_COPIES_OF_WEIGHTS = 4
# Of every local edge: its column, its number, and the same of the reversed rows; and their order.
_BYTES_PER_EDGE = 20


@dataclass(frozen=True)
class LinkSpeeds:
    """What links do; the defaults are of 10 Gbit Ethernet between hosts, of memory within.

    Attributes:
        latency_s: Seconds per message, by kind of link.
        bytes_per_s: Bytes per second in each direction: of a rank for "device" and "host", of a
            host, whose ranks share it, for "network".

    Raises:
        ValueError: there is no such kind of link, or a number is not positive and finite
            (latencies may be 0).
    """

    latency_s: Mapping[str, float] = field(
        default_factory=lambda: {"device": 5e-6, "host": 1e-5, "network": 5e-5}
    )
    bytes_per_s: Mapping[str, float] = field(
        default_factory=lambda: {"device": 2e10, "host": 1e10, "network": 1.25e9}
    )

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, least in (("latency_s", 0.0), ("bytes_per_s", math.ulp(0.0))):
            values = getattr(self, name)
            if set(values) != set(LEVELS):
                raise ValueError(
                    f"LinkSpeeds: {name} must have {', '.join(LEVELS)}, got {', '.join(values)}"
                )
            for level, value in values.items():
                if not least <= value < math.inf:
                    raise ValueError(
                        f"LinkSpeeds: {name} of {level} must be positive and finite, got {value}"
                    )

    def updated(
        self, latency_s: Mapping[str, float], bytes_per_s: Mapping[str, float]
    ) -> LinkSpeeds:
        """The same with other numbers for some kinds of links."""
        return LinkSpeeds({**self.latency_s, **latency_s}, {**self.bytes_per_s, **bytes_per_s})


@dataclass(frozen=True)
class Workload:
    """A network whose layers map rows and then sum over neighbours, as GCN's do.

    Attributes:
        in_width: Elements of an input row.
        widths: Of the rows that each layer exchanges and returns.
        dtype: Of rows and weights.
        wire_bytes: Bytes of an element on a link; by default those of the dtype.

    Raises:
        ValueError: a width or wire_bytes is below 1, or there is no layer.
    """

    in_width: int
    widths: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    wire_bytes: int | None = None

    def __post_init__(self) -> None:
        """Check the widths."""
        if not self.widths or min(self.in_width, *self.widths) < 1:
            raise ValueError(
                f"Workload: widths must be at least one and >= 1, got {self.in_width} and "
                f"{self.widths}"
            )
        if self.wire_bytes is not None and self.wire_bytes < 1:
            raise ValueError(f"Workload: wire_bytes must be >= 1, got {self.wire_bytes}")

    @property
    def wire(self) -> int:
        """Bytes of an element on a link."""
        return self.dtype.itemsize if self.wire_bytes is None else self.wire_bytes

    @property
    def layers(self) -> list[tuple[int, int]]:
        """(width before, width behind) of each layer."""
        return list(itertools.pairwise((self.in_width, *self.widths)))

    @property
    def weights(self) -> int:
        """Elements of all weights and biases."""
        return sum(before * behind + behind for before, behind in self.layers)


@dataclass(frozen=True)
class Compute:
    """Seconds of computing on one rank's device.

    Attributes:
        forward_s: Of the sum over neighbours, per edge, by layer.
        backward_s: Of its gradient, likewise.
        node_s: Of everything else in a step, per node: dense maps, elementwise work.
    """

    forward_s: tuple[float, ...]
    backward_s: tuple[float, ...]
    node_s: float

    @classmethod
    def modelled(cls, graph: Graph, workload: Workload, machine: Machine) -> Compute:
        """By the cost model, from the degrees of a graph of about the size of a part.

        Expect a factor of two; `scaled` takes a measurement in.
        """
        forward, backward = [], []
        for width in workload.widths:
            call = partial(predict, "spmm", graph, machine=machine, width=width, weighted=True)
            once = call(dtype=workload.dtype)["cpu"]
            both = call(dtype=workload.dtype, backward=("x",))["cpu"]
            forward.append(once / max(graph.num_edges, 1))
            backward.append((both - once) / max(graph.num_edges, 1))
        flops = moved = 0
        for number, (before, behind) in enumerate(workload.layers):
            # Forward, the weight's gradient, and the rows' where the layer is not the first.
            flops += (4 if number == 0 else 6) * before * behind
            moved += 2 * _ELEMENTWISE_PASSES * behind * workload.dtype.itemsize
        seconds = flops / matmul_rate(machine, workload.dtype) + moved / machine.copy_bandwidth()
        return cls(tuple(forward), tuple(backward), seconds)

    def whole_s(self, nodes: int, edges: int) -> float:
        """A step of one process on so many nodes and edges."""
        return nodes * self.node_s + edges * (sum(self.forward_s) + sum(self.backward_s))

    def scaled(self, seconds: float, nodes: int, edges: int) -> Compute:
        """The same shares of a step that was measured on so many nodes and edges.

        Raises:
            ValueError: seconds are not positive and finite.
        """
        if not 0 < seconds < math.inf:
            raise ValueError(f"Compute: seconds must be positive and finite, got {seconds}")
        factor = seconds / self.whole_s(nodes, edges)
        return replace(
            self,
            forward_s=tuple(factor * each for each in self.forward_s),
            backward_s=tuple(factor * each for each in self.backward_s),
            node_s=factor * self.node_s,
        )


@dataclass(frozen=True)
class Forecast:
    """Times, bytes and memory of a training on ranks.

    Attributes:
        loads: What ranks hold and exchange.
        workload: The network.
        compute: Of one rank.
        speeds: Of the links.
    """

    loads: Loads
    workload: Workload
    compute: Compute
    speeds: LinkSpeeds

    def bytes_sent(self, level: str, width: int) -> Tensor:  # int64 [P]
        """Bytes that each rank sends over one kind of link in an exchange of rows of a width."""
        return self.loads.sent(level) * (width * self.workload.wire)

    def exchange_s(self, width: int, levels: Collection[str]) -> Tensor:  # float64 [P]
        """Seconds of an exchange over some kinds of links; a gradient's takes as long."""
        loads, longest = self.loads, torch.zeros(self.loads.hierarchy.size, dtype=torch.float64)
        for level in levels:
            sent, received = loads.sent(level), loads.received(level)
            if level == "network":
                sent, received = (_by_host(each, loads) for each in (sent, received))
            moved = torch.maximum(sent, received) * (width * self.workload.wire)
            seconds = (
                loads.partners(level).double() * self.speeds.latency_s[level]
                + moved.double() / self.speeds.bytes_per_s[level]
            )
            longest = torch.maximum(longest, seconds)
        return longest

    def gradients_s(self) -> float:
        """Seconds of the sum of all weights' gradients: a tree's latency, the bytes of a ring."""
        size, levels = self.loads.hierarchy.size, self.loads.hierarchy.levels
        if size == 1:
            return 0.0
        moved = 2 * (size - 1) / size * self.workload.weights * self.workload.dtype.itemsize
        latency = max(self.speeds.latency_s[level] for level in levels)
        rate = min(self.speeds.bytes_per_s[level] for level in levels)
        return 2 * math.ceil(math.log2(size)) * latency + moved / rate

    def step_s(self, due: Collection[str] = LEVELS) -> float:
        """Seconds of a step at which some kinds of links exchange; by default all."""
        loads, compute = self.loads, self.compute
        due = [level for level in due if level in loads.hierarchy.levels]
        own = loads.nodes.double() * compute.node_s
        if not due:
            edge_s = sum(compute.forward_s) + sum(compute.backward_s)
            return float((own + loads.edges.double() * edge_s).max()) + self.gradients_s()
        total = float(own.max()) + self.gradients_s()
        interior_edges = loads.interior_edges.double()
        boundary_edges = loads.edges.double() - interior_edges
        for width, *passes in zip(
            self.workload.widths, compute.forward_s, compute.backward_s, strict=True
        ):
            travelling = self.exchange_s(width, due)
            for edge_s in passes:
                hidden = torch.maximum(interior_edges * edge_s, travelling)
                total += float((hidden + boundary_edges * edge_s).max())
        return total

    @property
    def compute_s(self) -> float:
        """Seconds of a step without an exchange."""
        return self.step_s(())

    def mean_step_s(self, period: Mapping[str, int]) -> float:
        """Seconds of a step, on average, where each kind of link has a period; 1 where left out."""
        levels = self.loads.hierarchy.levels
        return math.fsum(
            _share_of_steps({level: period.get(level, 1) for level in levels}, due)
            * self.step_s(due)
            for due in _subsets(levels)
        )

    def balancing_period(self, level: str) -> int:
        """The smallest period at which waiting for a kind of link takes no longer than computing.

        From there on communication is not the bottleneck any more.
        """
        waiting = self.step_s((level,)) - self.compute_s
        # Times differ from the exact quotient in their last bits.
        return max(1, math.ceil(waiting / max(self.compute_s, 1e-300) - 1e-9))

    def memory_bytes(self) -> Tensor:  # int64 [P]
        """Bytes that each rank holds in a step: a lower bound of its peak (docs/planning.md).

        The graph, its inputs, the weights; of every layer the mapped rows, those with the ghosts
        behind them and the result; of the widest layer as much again for the gradients, and what
        is sent and received.
        """
        loads, workload, item = self.loads, self.workload, self.workload.dtype.itemsize
        owned, ghosts = loads.nodes, loads.ghosts
        rows = 3 * owned + ghosts
        widest = max(workload.widths)
        return (
            _BYTES_PER_EDGE * loads.edges
            + owned * workload.in_width * item
            + rows * (sum(workload.widths) + widest) * item
            + (loads.rows.sum(1) + ghosts) * widest * workload.wire
            + _COPIES_OF_WEIGHTS * workload.weights * item
        )


def _by_host(count: Tensor, loads: Loads) -> Tensor:  # [P] -> [P]
    """The sum over the ranks of a host, for each of them."""
    sums = count.view(loads.hierarchy.hosts, -1).sum(1, keepdim=True)
    return sums.expand(-1, loads.hierarchy.size // loads.hierarchy.hosts).reshape(-1)


def _subsets(levels: Sequence[str]) -> list[tuple[str, ...]]:
    return [
        due for count in range(len(levels) + 1) for due in itertools.combinations(levels, count)
    ]


def _share_of_steps(period: Mapping[str, int], due: Collection[str]) -> float:
    """The share of steps at which just the links `due` exchange, by inclusion and exclusion."""
    others = [level for level in period if level not in due]
    return math.fsum(
        (-1.0) ** len(more) / math.lcm(*(period[level] for level in (*due, *more)))
        for more in _subsets(others)
    )
