"""Policies: what a step of a training does about the rows of other ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gnnkern.distributed.dropout import kept_places, mixed
from gnnkern.distributed.exchange import Arriving
from gnnkern.distributed.site import Site

__all__ = [
    "Anneal",
    "Drift",
    "Exact",
    "Hold",
    "Periodic",
    "Pipelined",
    "Policy",
    "Sampled",
    "parse_policy",
]


class Policy:
    """Exchange all rows at every step; what the others change of it.

    A policy decides which steps exchange (`exchanges`), and what a call of an op does at one that
    does (`start`), from what `Site` offers. Every rank must come to the same decisions. Warm-up,
    first exchanges and inputs that do not change never come here: see `Schedule`.
    """

    @property
    def keeps(self) -> bool:
        """Whether `start` reads what receivers hold (`Site.change`): s rows of memory per site."""
        return False

    @property
    def window(self) -> int:
        """Steps that share masks of dropout, for `KeyedDropout.begin(schedule.window(step))`."""
        return 1

    def exchanges(self, step: int, steps: int, last: int) -> bool:
        """Whether one of `steps` steps exchanges, where step `last` did so last."""
        return True

    def start(self, site: Site, rows: Sequence[Tensor], step: int) -> Arriving:
        """Bring the ghosts of a site up to date, at a step that exchanges."""
        return site.whole(rows)

    def learn(
        self,
        step: int,
        drift: float | None,
        waited_s: float,
        seconds: float,
        largest: Callable[[Sequence[float]], list[float]] | None,
    ) -> None:
        """Take in a step that has ended, on every rank; a policy that adapts does so here.

        Args:
            step: Its number.
            drift: Of the rows that were up for exchange (`StepRecord.drift`).
            waited_s: Seconds that this rank waited for exchanges.
            seconds: All seconds of the step.
            largest: Gives the maxima of some numbers over the ranks, which all must ask for; None
                where the step did not exchange.
        """

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs of a policy that learns."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""


@dataclass(frozen=True)
class Periodic(Policy):
    """Exchange every few steps; the number may change in the course of a training.

    Attributes:
        periods: Steps from one exchange to the next, in equal shares of the training.
    """

    periods: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check the periods."""
        bad = [each for each in self.periods if type(each) is not int or each < 1]
        if not self.periods or bad:
            raise ValueError(f"policy: periods must be ints >= 1, got {self.periods}")

    def period_at(self, step: int, steps: int) -> int:
        """The period at one of `steps` steps."""
        share = min(max(step, 0) * len(self.periods) // max(steps, 1), len(self.periods) - 1)
        return self.periods[share]

    def exchanges(self, step: int, steps: int, last: int) -> bool:
        """Once the period is over."""
        return step >= last + self.period_at(step, steps)


def Exact() -> Periodic:  # noqa: N802
    """Exchange at every step."""
    return Periodic((1,))


def Hold(period: int) -> Periodic:  # noqa: N802
    """Exchange every `period` steps, and take the last rows between."""
    return Periodic((period,))


def Anneal(*periods: int) -> Periodic:  # noqa: N802
    """Hold with a period that falls, such as 8, 4, 2, 1, each for an equal share of the steps."""
    return Periodic(tuple(periods))


@dataclass(frozen=True)
class Drift(Policy):
    """Send the rows that have moved; receivers keep the others.

    A row is sent where it differs from what its receivers hold by more than `tol` relative to the
    latter, in the 2-norm; of a call with several tensors, where one of them does. With a tolerance
    of 0 ghosts are exact. The gradients of rows that are sent are exact, those of the others are
    left out. Which rows come is told in a bit per row, in an exchange of its own before that of the
    rows.

    Dropout alone moves a row by more than any useful tolerance. So masks stay for `window` steps:
    in the first of them most rows are sent, in the others those that moved by learning.

    Attributes:
        tol: The relative distance from which on a row is sent.
        window: Steps that share masks of dropout; of no effect where there is none.
    """

    tol: float
    window: int = 8

    def __post_init__(self) -> None:
        """Check the numbers."""
        _check_number("Drift", "tol", self.tol)
        if self.tol < 0:
            raise ValueError(f"Drift: tol must be >= 0, got {self.tol}")
        _check_int("Drift", "window", self.window)
        if self.window < 1:
            raise ValueError(f"Drift: window must be >= 1, got {self.window}")

    @property
    def keeps(self) -> bool:
        """True: senders compare."""
        return True

    def start(self, site: Site, rows: Sequence[Tensor], step: int) -> Arriving:
        """Compare, tell, send."""
        change = site.change(rows)
        if change is None:
            return site.whole(rows)
        # Rows that are not numbers are sent: they must not go unnoticed.
        moved = ~(change.gap <= self.tol * change.size).all(0)  # [s]
        return site.some(rows, moved, site.tell(moved), change)


@dataclass(frozen=True)
class Pipelined(Policy):
    """Take the ghosts of the step before, whose exchange runs while this step computes.

    All rows travel at every step, and nobody waits for those of the same step. The gradient of
    ghosts is left out, so there are no backward exchanges.
    """

    def start(self, site: Site, rows: Sequence[Tensor], step: int) -> Arriving:
        """Send for the next step, take what the last one sent."""
        return site.later(rows)


@dataclass(frozen=True)
class Sampled(Policy):
    """Send a random share of the rows at each step; receivers keep the others.

    The draw is a hash of (seed, step, site, global node), which sender and receiver both compute:
    no ids travel. A node's row is sent to all of its receivers or to none.

    In expectation `rate` of the rows travel, forward and backward, and a ghost is
    (1 - rate) / rate steps old. The gradients of rows that are sent are exact, those of the others
    are left out and nothing is scaled up: at given values the expected gradient across parts is
    `rate` times the exact one.

    Attributes:
        rate: Probability that a row is sent, within 2^-24; with 1 all are.
        seed: Of the draws.
    """

    rate: float
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        _check_number("Sampled", "rate", self.rate)
        if not 0 < self.rate <= 1:
            raise ValueError(f"Sampled: rate must be in (0, 1], got {self.rate}")
        _check_int("Sampled", "seed", self.seed)

    def chosen(self, nodes: Tensor, step: int, site: int) -> Tensor:  # [k] -> bool [k]
        """Which of some nodes (global ids) send their rows at a step and a site."""
        salt = mixed(mixed(mixed(self.seed) + step) + site)
        return kept_places(nodes, salt, 1.0 - self.rate)

    def start(self, site: Site, rows: Sequence[Tensor], step: int) -> Arriving:
        """Draw on both sides, send."""
        plan = site.plan
        sends, receives = (
            self.chosen(nodes, step, site.number).to(rows[0].device)
            for nodes in (plan.sent, plan.ghosts)
        )
        return site.some(rows, sends, receives, site.change(rows))


_IN_WORDS: dict[str, Callable[..., Policy]] = {
    "exact": Exact,
    "hold": Hold,
    "anneal": Anneal,
    "drift": Drift,
    "pipelined": Pipelined,
    "sampled": Sampled,
}


def parse_policy(text: str) -> Policy:
    """The policy of a text such as "exact", "hold:4", "anneal:8,4,2,1", "drift:0.05".

    "drift:TOL,WINDOW", "pipelined", "sampled:RATE" and "sampled:RATE,SEED" are the others.

    Raises:
        ValueError: there is no such policy, or a number is out of range.
    """
    word, _, numbers = text.partition(":")
    try:
        values = [_number(number) for number in numbers.split(",")] if numbers else []
        return _IN_WORDS[word](*values)
    except (KeyError, TypeError):
        raise ValueError(
            "policy: must be exact, hold:K, anneal:K,K,..., drift:TOL[,WINDOW], pipelined or "
            f"sampled:RATE[,SEED], got {text!r}"
        ) from None


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise TypeError(text)


def _check_number(who: str, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{who}: {name} must be a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{who}: {name} must be finite, got {value}")


def _check_int(who: str, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{who}: {name} must be an int, got {value!r}")
