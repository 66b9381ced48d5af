"""Where a number that is not finite came from: exchanges spread it to other ranks in one step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from gnnkern.distributed.exchange import Arriving, HaloExchange
from gnnkern.distributed.graph import PartitionedGraph
from gnnkern.distributed.waiting import all_reduce

__all__ = ["origin_of"]


class _Probe:
    """An exact exchange that notes the first one whose rows here are not finite."""

    def __init__(self, graph: PartitionedGraph) -> None:
        self._exact = graph.exact
        self.calls = 0
        self.first: int | None = None

    def start(self, rows: Sequence[Tensor], *, carrier: HaloExchange | None = None) -> Arriving:
        """Look at the rows, then exchange them."""
        self.calls += 1
        if self.first is None and not all(_finite(x) for x in rows):
            self.first = self.calls
        return self._exact.start(rows, carrier=carrier)


@torch.no_grad()
def origin_of(
    graph: PartitionedGraph, x: Tensor, forward: Callable[[PartitionedGraph], Tensor]
) -> str | None:
    """Say which rank made the first number that is not finite, by one more forward on all ranks.

    Before an exchange a rank's rows follow from what earlier ones brought. So the first exchange to
    which any rank brings such a row tells whose it is, and not who was infected.

    Args:
        graph: The graph; the forward exchanges exactly.
        x: [n, F] what this rank's forward begins with.
        forward: From a graph to this rank's share of the loss.

    Returns:
        The same on every rank; None where the forward is finite on all of them.
    """
    probe = _Probe(graph)
    loss = forward(graph.with_exchange(probe))
    place = probe.first
    if not _finite(x):
        place = 0
    elif place is None and not _finite(loss):
        place = probe.calls + 1
    rank, world = graph.exact.plan.rank, graph.exact.plan.hierarchy.size
    last = (probe.calls + 2) * world
    first = torch.tensor([last if place is None else place * world + rank])
    if not graph.exact.is_alone:
        all_reduce(first, graph.exact.group, dist.ReduceOp.MIN)
    if int(first) == last:
        return None
    place, rank = divmod(int(first), world)
    if place == 0:
        return f"the features of rank {rank} are not finite"
    if place == probe.calls + 1:
        return f"the loss of rank {rank} is not finite, though all rows that it received were"
    return f"the rows of rank {rank} are not finite at exchange {place}, before others' were"


def _finite(x: Tensor) -> bool:
    return bool(torch.isfinite(x).all())
