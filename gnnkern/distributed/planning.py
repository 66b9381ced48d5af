"""`prospects`: what a training on more and more ranks would cost, from real partitions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gnnkern.distributed.cut import cut
from gnnkern.distributed.forecast import Compute, Forecast, LinkSpeeds, Workload
from gnnkern.distributed.hierarchy import Hierarchy
from gnnkern.distributed.loads import Loads
from gnnkern.distributed.partition import Partition, partition
from gnnkern.distributed.placement import place
from gnnkern.distributed.window import Period, check_period
from gnnkern.graph import Graph
from gnnkern.hardware import Machine

__all__ = ["Prospect", "hierarchy_for", "prospects"]


@dataclass(frozen=True)
class Prospect:
    """A training on one number of ranks.

    Attributes:
        forecast: Its times, bytes and memory, the parts being placed.
        partition: The parts, before they were placed.
        network_share: Share of the rows of an exchange that go from host to host: where parts are
            placed "by_chance", on average; with part r on rank r ("as_numbered"); "placed".
        period: By kind of link, what the last of the times is of.
    """

    forecast: Forecast
    partition: Partition
    network_share: dict[str, float]
    period: dict[str, int]

    @property
    def hierarchy(self) -> Hierarchy:
        """Of the ranks."""
        return self.forecast.loads.hierarchy

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON: seconds, bytes, rows; largest and mean are over the ranks."""
        forecast, loads = self.forecast, self.forecast.loads
        widths = forecast.workload.widths
        links = {}
        for level in self.hierarchy.levels:
            links[level] = {
                "rows_per_exchange": _over_ranks(loads.sent(level)),
                "bytes_per_exchange": [
                    _over_ranks(forecast.bytes_sent(level, width)) for width in widths
                ],
                "partners": _over_ranks(loads.partners(level)),
                "exchange_s": [
                    float(forecast.exchange_s(width, (level,)).max()) for width in widths
                ],
                "balancing_period": forecast.balancing_period(level),
                "period": self.period[level],
            }
        quality = self.partition.quality
        return {
            "parts": self.hierarchy.size,
            "hierarchy": dict(self.hierarchy._asdict()),
            "method": self.partition.method,
            "cut": quality.cut,
            "replication": quality.replication,
            "balance": {kind: quality.balance(kind) for kind in ("nodes", "edges")},
            "interior_edges": int(loads.interior_edges.sum()) / max(int(loads.edges.sum()), 1),
            "links": links,
            "network_share": self.network_share,
            "memory_bytes": _over_ranks(forecast.memory_bytes()),
            "seconds": {
                "computing": forecast.compute_s,
                "gradients": forecast.gradients_s(),
                "exact": forecast.step_s(),
                "with_period": forecast.mean_step_s(self.period),
            },
        }


def _over_ranks(count: torch.Tensor) -> dict[str, float]:  # [P]
    return {"max": int(count.max()), "mean": float(count.double().mean())}


def hierarchy_for(parts: int, devices: int, ranks: int = 1) -> Hierarchy:
    """The hosts that `parts` ranks fill, of `devices` with `ranks` each; less than one is one.

    Raises:
        ValueError: a number is below 1, or the ranks do not fill their hosts.
    """
    if min(parts, devices, ranks) < 1:
        raise ValueError(
            f"plan: parts, devices and ranks must be >= 1, got {parts}, {devices} and {ranks}"
        )
    per_host = devices * ranks
    if parts <= per_host and parts % ranks == 0:
        return Hierarchy(1, parts // ranks, ranks)
    if parts % per_host:
        raise ValueError(
            f"plan: parts must fill hosts of {devices} devices with {ranks} ranks each, got {parts}"
        )
    return Hierarchy(parts // per_host, devices, ranks)


def prospects(
    graph: Graph,
    parts: Sequence[int],
    workload: Workload,
    compute: Compute | Machine,
    speeds: LinkSpeeds | None = None,
    *,
    method: str = "metis",
    devices: int = 8,
    ranks: int = 1,
    nested: bool = False,
    period: Period = 1,
    balance: str = "nodes+edges",
    seed: int = 0,
    report: Callable[[int, int, str], None] | None = None,
) -> list[Prospect]:
    """Divide a graph for each number of ranks, place the parts on hosts, and say what it costs.

    Args:
        graph: The graph.
        parts: Numbers of ranks.
        workload: The network.
        compute: Seconds per edge and node on the device of a rank; or a machine, for which the
            cost model says them for the largest part.
        speeds: Of the links.
        method: Of `partition`.
        devices: Per host.
        ranks: Per device.
        nested: Whether nodes are divided among the hosts first and then among their devices; by
            default among all ranks at once, and the parts are placed.
        period: Steps between exchanges, for all links or by kind: one of the times is of it.
        balance: What parts are even in.
        seed: Of partition and placement.
        report: Called with (numbers done, all numbers, what comes).

    Returns:
        For each number of ranks.

    Cost: a partition for each number; nothing is trained or sent.

    Raises:
        TypeError: the period is no int.
        ValueError: a number of ranks does not fill its hosts, or an option is out of range.
    """
    speeds = LinkSpeeds() if speeds is None else speeds
    hierarchies = [hierarchy_for(count, devices, ranks) for count in parts]
    periods = [check_period(period, hierarchy) for hierarchy in hierarchies]
    made = []
    for number, (hierarchy, of_links) in enumerate(zip(hierarchies, periods, strict=True)):
        if report is not None:
            report(number, len(parts), f"{hierarchy.size} parts")
        divided = partition(
            graph,
            hierarchy.size,
            method,
            hierarchy=hierarchy if nested else None,
            balance=balance,
            seed=seed,
        )
        numbered = Loads.of(graph, divided).placed(torch.arange(hierarchy.size), hierarchy)
        loads = numbered.placed(place(numbered.rows, hierarchy, seed), hierarchy)
        rates = compute
        if isinstance(rates, Machine):
            rates = Compute.modelled(_largest_part(graph, divided), workload, rates)
        # Of the other ranks, those on other hosts.
        abroad = hierarchy.size - hierarchy.size // hierarchy.hosts
        shares = {
            "by_chance": abroad / max(hierarchy.size - 1, 1),
            "as_numbered": numbered.network_share,
            "placed": loads.network_share,
        }
        forecast = Forecast(loads, workload, rates, speeds)
        made.append(Prospect(forecast, divided, shares, of_links))
    return made


def _largest_part(graph: Graph, partition: Partition) -> Graph:
    """What the rank with most edges walks: rows of its own over columns with ghosts."""
    rank = max(range(partition.num_parts), key=partition.quality.edges.__getitem__)
    (part,) = cut(graph, partition, ranks=range(rank, rank + 1))
    edges = part.forward
    return Graph(edges.indptr, edges.indices, None, len(part.owned) + len(edges.ghosts))
