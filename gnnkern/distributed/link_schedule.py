"""`LinkSchedule`: ordinary layers over steps of which each kind of link exchanges at some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from gnnkern.distributed.adaptive import Adaptive
from gnnkern.distributed.exchange import Arriving, HaloExchange
from gnnkern.distributed.graph import PartitionedGraph
from gnnkern.distributed.hierarchy import LEVELS, Hierarchy
from gnnkern.distributed.links import divided, joined
from gnnkern.distributed.policies import Exact, Periodic, Policy
from gnnkern.distributed.record import StepRecord
from gnnkern.distributed.schedule import Schedule
from gnnkern.distributed.window import Period, check_period
from gnnkern.distributed.wire import Wire

__all__ = ["LinkSchedule", "by_link", "parse_period", "schedule_for"]


def parse_period(text: str) -> Period:
    """The periods of "4", for all links, or of "host:2,network:8"."""
    period: Period
    try:
        if ":" in text:
            pairs = [part.split(":") for part in text.split(",")]
            period = {level.strip(): int(steps) for level, steps in pairs}
            if len(period) != len(pairs):
                raise ValueError
        else:
            period = int(text)
    except ValueError:
        raise ValueError(
            f"period: must be like 4 or host:2,network:8, each kind of link once, got {text!r}"
        ) from None
    # What holds of any ranks.
    check_period(period, Hierarchy(1, 1))
    return period


def by_link(policy: Policy, period: Period, hierarchy: Hierarchy) -> dict[str, Policy]:
    """A policy for every kind of link, of one for all and a period.

    Args:
        policy: For all links. `Exact()` leaves the word to the periods: each kind of link is held
            for its own. Of any other a link takes the periods, but none that is longer than its
            own: Anneal(8, 4, 2, 1) with {"host": 2} is Anneal(2, 2, 2, 1) inside a host. Of an
            `Adaptive` one each kind of link gets one of its own, with its longest period.
        period: Steps from one exchange to the next, for all links or by kind. Kinds left out
            follow the policy.
        hierarchy: Of the ranks; kinds of links that it does not have are passed over.

    Raises:
        TypeError: a period is no int.
        ValueError: a period is below 1, there is no such kind of link, or the policy is none of
            periods.
    """
    if not isinstance(policy, Periodic | Adaptive):
        raise ValueError(
            f"period: only exact, hold, anneal and a tolerance take periods by link, got {policy}"
        )
    limits = check_period(period, hierarchy)
    given = set(period) if isinstance(period, Mapping) else set(LEVELS)
    policies: dict[str, Policy] = {}
    for level, limit in limits.items():
        if isinstance(policy, Adaptive):
            # One for each, since it remembers.
            policies[level] = policy.limited(limit if level in given else policy.most)
        elif level not in given:
            policies[level] = policy
        elif policy == Exact():
            policies[level] = Periodic((limit,))
        else:
            policies[level] = Periodic(tuple(min(each, limit) for each in policy.periods))
    return policies


class LinkSchedule:
    """A `Schedule` for each kind of link: at a step the ghosts of those that are due travel.

    The others keep the rows that they have, as constants: the gradient that would go to their
    owners is left out. Everything else is as in `Schedule`, whose place it takes.

    Making one compares the ranks' plans: every rank makes it.

    Cost: an exchange for each policy that is due, in place of one for all. A rank takes part in
    every one of them, if only with empty messages to ranks behind other links.

    Args:
        graph: The graph.
        policies: By kind of link ("device", "host", "network"); kinds left out exchange at every
            step.
        steps: Of the training, for policies that change in its course.
        warmup: Steps at the beginning at which all links exchange, without rounding.
        wire: What rows are rounded to between ranks, as in `Schedule`.
        measure: Whether `record` has the drift, as in `Schedule`.

    Raises:
        ValueError: there is no such kind of link.
        PlanMismatch: the ranks' plans are not those of one partition.
    """

    def __init__(
        self,
        graph: PartitionedGraph,
        policies: Mapping[str, Policy],
        *,
        steps: int,
        warmup: int = 0,
        wire: Wire | str | None = None,
        measure: bool = False,
    ) -> None:
        unknown = sorted(set(policies) - set(LEVELS))
        if unknown:
            raise ValueError(
                f"LinkSchedule: kinds of links are {', '.join(LEVELS)}, got {unknown[0]!r}"
            )
        graph.exact.before_first(graph.device)
        present = graph.exact.plan.hierarchy.levels
        self.policies = {level: policies.get(level, Exact()) for level in present}
        links = self._links(graph.exact)
        options: dict[str, Any] = {"steps": steps, "warmup": warmup, "wire": wire}
        self._schedules = [
            Schedule(graph, policy, measure=measure, links=exchange, **options)
            for policy, exchange, _ in links
        ]
        # What each schedule follows in place of its own exchange, and the places of its ghosts; by
        # the exchange that a site has of its own.
        self._divided: dict[
            HaloExchange | None, list[tuple[HaloExchange | None, Tensor | None]]
        ] = {None: [(None, places) for _, _, places in links]}
        self._view = graph.with_exchange(self)

    def _links(self, exchange: HaloExchange) -> list[tuple[Policy, HaloExchange, Tensor | None]]:
        """An exchange for the links of each policy, and the places of its ghosts among all."""
        return divided(exchange, self.policies) or [(Exact(), exchange, None)]

    def begin(self, step: int) -> PartitionedGraph:
        """The graph for a step, numbered from 0."""
        for schedule in self._schedules:
            schedule.begin(step)
        return self._view

    @property
    def is_fresh(self) -> bool:
        """Whether any link exchanges in the current step."""
        return any(schedule.is_fresh for schedule in self._schedules)

    def window(self, step: int) -> int:
        """The number of the window of a step, of the longest that a link's policy has."""
        return step // max((policy.window for policy in self.policies.values()), default=1)

    def record(self) -> StepRecord:
        """What this rank exchanged in the current step over all links."""
        first, *others = [schedule.record() for schedule in self._schedules]
        return sum(others, first)

    def end(self) -> StepRecord:
        """Close the current step for all links, as `Schedule.end` does."""
        first, *others = [schedule.end() for schedule in self._schedules]
        return sum(others, first)

    def settle(self) -> None:
        """Wait for what is under way, after the last step."""
        for schedule in self._schedules:
            schedule.settle()

    def start(self, rows: Sequence[Tensor], *, carrier: HaloExchange | None = None) -> Arriving:
        """Exchange over the links that are due; what ops call."""
        if carrier is not None and carrier not in self._divided:
            carrier.before_first(rows[0].device)
            self._divided[carrier] = [(part, places) for _, part, places in self._links(carrier)]
        parts, places = zip(*self._divided[carrier], strict=True)
        arriving = [
            schedule.start(rows, carrier=part)
            for schedule, part in zip(self._schedules, parts, strict=True)
        ]
        return _Joined(arriving, places)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs of every kind of link."""
        return {"links": [schedule.state_dict() for schedule in self._schedules]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken, with the same parts and policies."""
        for schedule, of_links in zip(self._schedules, state["links"], strict=True):
            schedule.load_state_dict(of_links)


class _Joined:
    """Ghosts of several kinds of links, on their way or here."""

    def __init__(self, arriving: Sequence[Arriving], places: Sequence[Tensor | None]) -> None:
        self._arriving, self._places = arriving, places

    def finish(self) -> list[Tensor]:
        return joined([each.finish() for each in self._arriving], self._places)


def schedule_for(
    graph: PartitionedGraph, policy: Policy | Mapping[str, Policy], **options: Any
) -> Schedule | LinkSchedule:
    """The schedule of a policy for all links, or of one for each kind, with the options of both."""
    if isinstance(policy, Mapping):
        return LinkSchedule(graph, policy, **options)
    return Schedule(graph, policy, **options)
