"""`Schedule`: a graph for the steps of a training, whose ops ask a policy for others' rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from gnnkern.distributed.exchange import Arriving, HaloExchange
from gnnkern.distributed.graph import PartitionedGraph
from gnnkern.distributed.policies import Policy
from gnnkern.distributed.record import StepRecord
from gnnkern.distributed.site import Channel, Site
from gnnkern.distributed.wire import Wire, as_wire

__all__ = ["Schedule"]


class Schedule:
    """A graph for the steps of a training, where a policy says which rows travel at which step.

    Each op that a step calls is a site, told apart by their order: every step calls the same ops.
    Ghosts that a step does not exchange are those of an earlier one, as constants: the gradient
    that would go to other ranks is left out. Whatever the policy and the wire type, the first
    exchange of a site and the warm-up are exact, and rows that do not change, such as the first
    layer's input, are exchanged once.

    Evaluate on the graph itself, which is exact.

    Args:
        graph: The graph.
        policy: What travels when; see `gnnkern.distributed.policies`.
        steps: Of the training, for policies that change in its course.
        warmup: Steps at the beginning that are exact.
        wire: What rows are rounded to between ranks, but for those that are exact whatever the
            policy; what was left out of a row is added when its site sends it the next time.
        measure: Whether `record` has the drift: senders keep what their receivers hold, s rows per
            site, and compare at each exchange. `Drift` does so in any case.
        links: What rows are exchanged with; by default `graph.exact`, all links.
    """

    def __init__(
        self,
        graph: PartitionedGraph,
        policy: Policy,
        *,
        steps: int,
        warmup: int = 0,
        wire: Wire | str | None = None,
        measure: bool = False,
        links: HaloExchange | None = None,
    ) -> None:
        self.policy, self.steps, self.warmup = policy, steps, warmup
        exact = graph.exact if links is None else links
        self._channel = Channel(exact, measure or policy.keeps, as_wire(wire))
        self._sites: list[Site] = []
        self._next = 0
        self._fresh = True
        self._last_fresh: int | None = None
        self._graph = graph
        self._view = graph.with_exchange(self)
        self._began = time.perf_counter()

    def begin(self, step: int) -> PartitionedGraph:
        """The graph for a step, numbered from 0."""
        last = self._last_fresh
        self._fresh = (
            step < self.warmup or last is None or self.policy.exchanges(step, self.steps, last)
        )
        if self._fresh:
            self._last_fresh = step
        self._next = 0
        self._channel.begin(step)
        self._began = time.perf_counter()
        return self._view

    def end(self) -> StepRecord:
        """Close the current step, behind its backward: its record, from which policies learn."""
        channel, record = self._channel, self.record()
        self.policy.learn(
            channel.step,
            record.drift,
            channel.traffic.waited_s,
            time.perf_counter() - self._began,
            self._graph.largest_over_ranks if self._fresh else None,
        )
        return record

    @property
    def is_fresh(self) -> bool:
        """Whether the policy has the current step exchange."""
        return self._fresh

    def window(self, step: int) -> int:
        """The number of the window of a step: what `KeyedDropout.begin` takes."""
        return step // self.policy.window

    def record(self) -> StepRecord:
        """What this rank exchanged in the current step; complete once its backward has run."""
        return self._channel.record()

    def start(self, rows: Sequence[Tensor], *, carrier: HaloExchange | None = None) -> Arriving:
        """Bring the ghosts of the next site; what ops call."""
        self._channel.prepare(rows[0].device)
        if self._next == len(self._sites):
            self._sites.append(Site(self._next, self._channel))
        site = self._sites[self._next]
        self._next += 1
        site.carrier = carrier
        site.check(rows)
        if not site.ghosts:
            return site.whole(rows, exact=True)
        if site.has(rows) or not self._fresh:
            return site.held()
        step = self._channel.step
        if step < self.warmup:
            return site.whole(rows, exact=True)
        return self.policy.start(site, rows, step)

    def settle(self) -> None:
        """Wait for what is under way, after the last step."""
        for site in self._sites:
            site.settle()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs: what every site holds and has sent, and when."""
        return {
            "last": self._last_fresh,
            "policy": self.policy.state_dict(),
            "sites": [site.state_dict() for site in self._sites],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken, with the same parts.

        Raises:
            ValueError: the parts were others.
        """
        self._last_fresh = state["last"]
        self.policy.load_state_dict(state["policy"])
        self._sites = []
        for number, of_site in enumerate(state["sites"]):
            site = Site(number, self._channel)
            site.load_state_dict(of_site)
            self._sites.append(site)
