"""`Adaptive`: a period that follows from how long ranks wait and from how far rows move."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gnnkern.distributed.policies import Policy

__all__ = ["Adaptive", "Decision", "Recorded", "Seen", "next_period"]

# Changes of the period by less than this share of it are not made: measured times vary by as much
# from one exchange to the next on a shared machine.
_HYSTERESIS = 0.25


class Seen(NamedTuple):
    """What an exchange showed: the largest of each over the ranks.

    Attributes:
        steps: From the exchange before to this one.
        drift: How far rows had moved from what their receivers held, relative to their norm.
        waited_s: Seconds that the step waited for rows and gradients; what was hidden is not in.
        step_s: Seconds of a step, without waiting.
    """

    steps: int
    drift: float
    waited_s: float
    step_s: float


class Decision(NamedTuple):
    """The period from an exchange on, and why."""

    step: int
    period: int
    reason: str
    seen: Seen


def next_period(
    period: int, seen: Seen, *, tolerance: float, waiting: float = 0.1, most: int = 64
) -> tuple[int, str]:
    """The period that follows on one, and why.

    The smallest that makes waiting, over the steps of a window, at most the share `waiting` of
    computing; but none in which rows would drift by more than the tolerance, drift being taken to
    grow with the number of steps. It is at most doubled or halved, and kept where it would change
    by less than a quarter, unless rows drift too far at present.

    Returns:
        The period, and what it goes towards: "hidden", "tolerance" or "most"; or that it is "kept".
    """
    hides = _whole(seen.waited_s / max(waiting * seen.step_s, 1e-300), math.ceil)
    # What is no number has drifted too far.
    allowed = seen.steps * tolerance / seen.drift if seen.drift > 0.0 else math.inf
    keeps = 1 if math.isnan(seen.drift) else _whole(allowed, math.floor)
    target = min(hides, keeps, most)
    reason = "hidden" if hides == target else "tolerance" if keeps == target else "most"
    bounded = max(math.ceil(period / 2), min(target, 2 * period))
    if bounded == period or (period <= keeps and abs(bounded - period) < _HYSTERESIS * period):
        return period, "kept"
    return bounded, reason


def _whole(value: float, rounded: Callable[[float], int]) -> int:
    """A period from a quotient: at least 1, and a number where that is infinite."""
    return max(1, rounded(min(value, 1e9) if not math.isnan(value) else 1.0))


class Adaptive(Policy):
    """Exchange every few steps, as many as hide communication within a tolerance.

    At the end of each step that exchanged, all ranks reduce three numbers to their maxima, and
    every rank derives the same next period (`next_period`). Begins with period 1, and learns from
    the steps of the warm-up as well. Of one training: it remembers.

    Times are measured, so another run decides otherwise: `frozen()` repeats the decisions of this
    one. If the tolerance is what sets the period, fewer bytes help and fewer exchanges do not.

    The loop calls `Schedule.end` behind every step; without it the period stays 1.

    Args:
        tolerance: By how much rows may have moved at an exchange, relative to their norm, 0 or
            more; with 0 every step exchanges where rows move at all.
        waiting: Share of computing that waiting may take.
        most: The longest period.

    Attributes:
        period: Steps to the next exchange.
        decisions: All of them, from the first exchange on.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, tolerance: float, waiting: float = 0.1, most: int = 64) -> None:
        for name, value, least in (
            ("tolerance", tolerance, 0.0),
            ("waiting", waiting, math.ulp(0.0)),
            ("most", most, 1),
        ):
            if not least <= value < math.inf:
                raise ValueError(f"Adaptive: {name} is out of range, got {value}")
        self.tolerance, self.waiting, self.most = tolerance, waiting, most
        self.period = 1
        self.decisions: list[Decision] = []
        self._last: int | None = None
        self._seconds: list[float] = []

    def __repr__(self) -> str:
        """As it was made."""
        return f"Adaptive({self.tolerance}, waiting={self.waiting}, most={self.most})"

    def limited(self, most: int) -> Adaptive:
        """A new one of the same numbers, with a longest period of at most `most`."""
        return Adaptive(self.tolerance, self.waiting, min(self.most, most))

    @property
    def keeps(self) -> bool:
        """True: the drift is measured."""
        return True

    def exchanges(self, step: int, steps: int, last: int) -> bool:
        """Once the period is over."""
        return step >= last + self.period

    def learn(
        self,
        step: int,
        drift: float | None,
        waited_s: float,
        seconds: float,
        largest: Callable[[Sequence[float]], list[float]] | None,
    ) -> None:
        """Decide, behind a step that exchanged."""
        self._seconds.append(seconds - waited_s)
        if largest is None:
            return
        elapsed = 0 if self._last is None else step - self._last
        self._last = step
        step_s = sum(self._seconds) / len(self._seconds)
        self._seconds.clear()
        # Some ranks have nothing to send, and so no drift; infinity is a maximum, NaN is not.
        moved = math.inf if drift is not None and math.isnan(drift) else drift or 0.0
        seen = Seen(elapsed, *largest([moved, waited_s, step_s]))
        # Rows of the first exchange are compared with nothing.
        if elapsed == 0:
            return
        options: dict[str, Any] = {"waiting": self.waiting, "most": self.most}
        self.period, reason = next_period(self.period, seen, tolerance=self.tolerance, **options)
        self.decisions.append(Decision(step, self.period, reason, seen))

    def frozen(self) -> Recorded:
        """The policy that exchanges at the steps at which this one did."""
        return Recorded(tuple((each.step, each.period) for each in self.decisions))

    def log(self) -> list[dict[str, Any]]:
        """The decisions, ready for JSON."""
        return [
            {"step": each.step, "period": each.period, "reason": each.reason} | each.seen._asdict()
            for each in self.decisions
        ]

    def state_dict(self) -> dict[str, Any]:
        """Period and decisions."""
        return {
            "period": self.period,
            "last": self._last,
            "decisions": [[*each[:3], [*each.seen]] for each in self.decisions],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.period, self._last = state["period"], state["last"]
        self.decisions = [
            Decision(step, period, reason, Seen(*seen))
            for step, period, reason, seen in state["decisions"]
        ]
        self._seconds.clear()


@dataclass(frozen=True)
class Recorded(Policy):
    """Exchange at the steps at which a run did that decided by its own measurements.

    Attributes:
        decisions: (step, period from there on), by step; before the first the period is 1.
    """

    decisions: tuple[tuple[int, int], ...]

    @classmethod
    def from_log(cls, log: Iterable[dict[str, Any]]) -> Recorded:
        """Of what `Adaptive.log` wrote.

        Raises:
            ValueError: it is no such log.
        """
        try:
            decisions = tuple((int(each["step"]), int(each["period"])) for each in log)
        except (KeyError, TypeError, ValueError):
            raise ValueError("Recorded: expected decisions with a step and a period each") from None
        return cls(decisions)

    def __post_init__(self) -> None:
        """Check the decisions."""
        steps = [step for step, _ in self.decisions]
        if steps != sorted(set(steps)) or any(period < 1 for _, period in self.decisions):
            raise ValueError(f"Recorded: steps must rise and periods be >= 1, got {self.decisions}")

    def exchanges(self, step: int, steps: int, last: int) -> bool:
        """Once the period that was decided last is over."""
        period = max((each for each in self.decisions if each[0] <= last), default=(0, 1))[1]
        return step >= last + period
