"""`WindowedExchange`: ghosts' rows every few steps, and predictions of them between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from gnnkern.distributed.exchange import HaloExchange, Pending
from gnnkern.distributed.hierarchy import LEVELS, Hierarchy
from gnnkern.distributed.links import divided, joined
from gnnkern.distributed.wire import WireMemory

__all__ = ["PREDICTORS", "Period", "WindowedExchange", "check_period"]

PREDICTORS = ("hold", "linear")

# Steps from one exchange to the next, for all links or by their kind.
Period = int | Mapping[str, int]


class Known(NamedTuple):
    """Rows as they were last exchanged and the time before: at the receiver, or at the sender."""

    time: float
    rows: list[Tensor]
    time_before: float | None = None
    rows_before: list[Tensor] | None = None

    def then(self, time: float, rows: list[Tensor]) -> Known:
        """What is known after another exchange."""
        return Known(time, rows, self.time, self.rows)

    def predicted(self, predictor: str, time: float) -> list[Tensor]:
        """The rows at another time; differentiable in those that were exchanged."""
        if predictor == "hold" or self.rows_before is None or time == self.time:
            return self.rows
        assert self.time_before is not None
        share = (time - self.time) / (self.time - self.time_before)
        return [
            torch.lerp(before, last, 1.0 + share)
            for before, last in zip(self.rows_before, self.rows, strict=True)
        ]


@dataclass(eq=False)
class _Links:
    """Links that are exchanged together."""

    period: int
    exchange: HaloExchange
    # Of the ghosts among all; None: they are all.
    places: Tensor | None
    received: Known | None = None
    sent: Known | None = None
    # What rounding on the wire has left out, and what came of the rows that were sent last.
    memory: WireMemory | None = None
    drift: list[float] = field(default_factory=list)

    def is_due(self, time: float) -> bool:
        # Times of stages are sums of fractions.
        return self.received is None or time >= self.received.time + self.period - 1e-9


class WindowedExchange:
    """Stands in for a `HaloExchange` at one call site, where the same op runs step after step.

    The first exchange is exact. Each call is a step; a link is exchanged every `period` steps, and
    between these its ghosts are predicted from what was exchanged: `hold`, the last rows, or
    `linear`, the line through the last two. Sender and receiver hold the same rows, so the sender
    knows what its receivers believe.

    The gradient is that of what ran: autograd sums what the steps of a window want of the rows that
    were exchanged, with the predictor's coefficients, and one reverse exchange at the mirrored
    point brings it to the owners. Reverse exchanges are as many as forward ones.

    Args:
        exchange: What the rows are exchanged with, in its wire type; what rounding leaves out is
            added to the next exchange.
        period: Steps between exchanges: for all links, or by kind ("device", "host", "network");
            kinds left out are exchanged at every step.
        predictor: "hold" or "linear".
        measure: Whether to keep, for each step, how far this rank's rows are from what its
            receivers believe of them (`drift`).

    Raises:
        ValueError: a period or the predictor is wrong.
    """

    def __init__(
        self,
        exchange: HaloExchange,
        period: Period = 1,
        predictor: str = "hold",
        *,
        measure: bool = False,
    ) -> None:
        if predictor not in PREDICTORS:
            raise ValueError(
                f"WindowedExchange: predictor must be one of {', '.join(PREDICTORS)}, "
                f"got {predictor!r}"
            )
        self.exact = exchange
        self.predictor = predictor
        self.period = check_period(period, exchange.plan.hierarchy)
        self.measure = measure
        self.time = 0.0
        # Largest distance of a row sent from what is believed of it, by step; 0 where exchanged,
        # but for what a wire type rounds.
        self.drift: list[float] = []
        self._may_exchange = True
        self._links: list[_Links] | None = None

    def at(self, time: float, *, exchange: bool = True) -> WindowedExchange:
        """Set the time, in steps, of the next call: a stage of a Runge-Kutta step has its own.

        Args:
            time: Of the rows that the next call is given.
            exchange: False where these are provisional, and not to be exchanged.
        """
        self.time = time
        self._may_exchange = exchange
        return self

    def start(self, rows: Sequence[Tensor], *, carrier: HaloExchange | None = None) -> _Step:
        """Exchange the links that are due; the others' rows are known already."""
        if carrier is not None and self._links is None:
            self.exact = self.exact.following(carrier, rows[0].device)
        links = self._prepared(rows[0].device if rows else torch.device("cpu"))
        due = [part for part in links if part.received is None or self._is_due(part)]
        under_way = [(part, part.exchange.start(rows, part.memory)) for part in due]
        if self.measure:
            for part in due:
                _remember_sent(part, self.time, rows)
            self.drift.append(self._drift(links, due, rows))
        step = _Step(self, self.time, links, under_way)
        self.time += 1.0
        self._may_exchange = True
        return step

    def steps_until_due(self) -> int:
        """Steps from the current time that need no exchange."""
        if self._links is None:
            return 0
        waits = [
            part.received.time + part.period - self.time if part.received is not None else 0.0
            for part in self._links
        ]
        return max(0, int(min(waits, default=0.0) + 1e-9))

    def known(self) -> list[Known]:
        """What was received, by group of links."""
        return [part.received for part in self._links or [] if part.received is not None]

    def from_known(self, known: Sequence[Known], time: float) -> Ghosts:
        """Ghosts at a time by prediction alone: an exchange that does not communicate."""
        return Ghosts(self, list(known), time)

    def assemble(self, parts: Sequence[list[Tensor]]) -> list[Tensor]:
        """The ghosts of all links in order, of those of each group."""
        return joined(parts, [part.places for part in self._links or []])

    def _is_due(self, part: _Links) -> bool:
        return self._may_exchange and part.is_due(self.time)

    def _prepared(self, device: torch.device) -> list[_Links]:
        if self._links is None:
            self.exact.before_first(device)
            self._links = [
                _Links(period, exchange, places)
                for period, exchange, places in divided(self.exact, self.period)
            ] or [_Links(1, self.exact, None)]
            if self.exact.wire is not None:
                for part in self._links:
                    part.memory = WireMemory(self.exact.wire.feedback, believed=self.measure)
        return self._links

    def _drift(self, links: list[_Links], due: list[_Links], rows: Sequence[Tensor]) -> float:
        largest = 0.0
        for part in links:
            if part.sent is None or (part in due and part.memory is None):
                continue
            believed = part.sent.predicted(self.predictor, self.time)
            send_rows = part.exchange.plan.send_rows
            for x, guess in zip(rows, believed, strict=True):
                if len(send_rows):
                    gap = x.detach().index_select(0, send_rows) - guess
                    # What is not finite is infinitely far from everything, itself included.
                    gap = torch.nan_to_num(gap.abs(), nan=torch.inf, posinf=torch.inf)
                    largest = max(largest, float(gap.max()) if gap.numel() else 0.0)
        return largest


class _Step:
    """One step of a windowed exchange."""

    def __init__(
        self,
        exchange: WindowedExchange,
        time: float,
        links: list[_Links],
        under_way: list[tuple[_Links, Pending]],
    ) -> None:
        self._exchange, self._time = exchange, time
        self._links, self._under_way = links, under_way

    def finish(self) -> list[Tensor]:
        """The ghosts' rows, as they arrive or as predicted."""
        for part, pending in self._under_way:
            rows = pending.finish()
            known = part.received
            part.received = (
                Known(self._time, rows) if known is None else known.then(self._time, rows)
            )
        return Ghosts(self._exchange, self._exchange.known(), self._time).finish()


class Ghosts:
    """Ghosts by prediction from what is known: an exchange without communication."""

    def __init__(self, exchange: WindowedExchange, known: list[Known], time: float) -> None:
        self._exchange, self._known, self._time = exchange, known, time

    def start(self, rows: Sequence[Tensor], *, carrier: HaloExchange | None = None) -> Ghosts:
        """Nothing is sent."""
        return self

    def finish(self) -> list[Tensor]:
        """The predictions, [g, ...]."""
        predictor = self._exchange.predictor
        parts = [known.predicted(predictor, self._time) for known in self._known]
        return self._exchange.assemble(parts)


def _remember_sent(part: _Links, time: float, rows: Sequence[Tensor]) -> None:
    sent = [x.detach().index_select(0, part.exchange.plan.send_rows) for x in rows]
    if part.memory is not None:
        sent = part.memory.as_believed(sent)
    part.sent = Known(time, sent) if part.sent is None else part.sent.then(time, sent)


def check_period(period: Period, hierarchy: Hierarchy) -> dict[str, int]:
    """The period of every kind of link that the hierarchy has.

    Raises:
        TypeError: a period is no int.
        ValueError: a period is below 1, or there is no such kind of link.
    """
    by_level = dict(period) if isinstance(period, Mapping) else dict.fromkeys(LEVELS, period)
    for level, steps in by_level.items():
        if level not in LEVELS:
            raise ValueError(f"period: kinds of links are {', '.join(LEVELS)}, got {level!r}")
        if isinstance(steps, bool) or not isinstance(steps, int):
            raise TypeError(f"period: must be an int, got {steps!r} for {level}")
        if steps < 1:
            raise ValueError(f"period: must be >= 1, got {steps} for {level}")
    return {level: by_level.get(level, 1) for level in hierarchy.levels}
