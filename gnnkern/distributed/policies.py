"""Policies: which optimizer steps exchange rows, and `Schedule`, which runs ordinary layers so."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from gnnkern.distributed.exchange import Arriving, HaloExchange
from gnnkern.distributed.graph import PartitionedGraph
from gnnkern.distributed.wire import Wire, WireMemory

__all__ = ["Anneal", "Exact", "Hold", "Policy", "Schedule", "parse_policy"]


@dataclass(frozen=True)
class Policy:
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


def Exact() -> Policy:  # noqa: N802
    """Exchange at every step."""
    return Policy((1,))


def Hold(period: int) -> Policy:  # noqa: N802
    """Exchange every `period` steps, and take the last rows between."""
    return Policy((period,))


def Anneal(*periods: int) -> Policy:  # noqa: N802
    """Hold with a period that falls, such as 8, 4, 2, 1, each for an equal share of the steps."""
    return Policy(tuple(periods))


def parse_policy(text: str) -> Policy:
    """The policy of "exact", "hold:4" or "anneal:8,4,2,1"."""
    word, _, numbers = text.partition(":")
    try:
        periods = tuple(int(number) for number in numbers.split(",")) if numbers else ()
    except ValueError:
        periods = (0,)
    counts = {"exact": len(periods) == 0, "hold": len(periods) == 1, "anneal": len(periods) > 0}
    if not counts.get(word, False):
        raise ValueError(f"policy: must be exact, hold:K or anneal:K,K,..., got {text!r}")
    return Policy(periods or (1,))


@dataclass
class _Site:
    """One call of an op in every step: what its ghosts were, and of which rows."""

    ghosts: list[Tensor] = field(default_factory=list)
    # The rows that were sent, where they cannot change unnoticed: (reference, version).
    rows: list[tuple[weakref.ref[Tensor], int]] = field(default_factory=list)
    # What rounding on the wire has left out.
    memory: WireMemory | None = None

    def has(self, rows: Sequence[Tensor]) -> bool:
        """Whether the very same rows were sent last time, and have not been written to since."""
        if len(rows) != len(self.rows):
            return False
        return all(
            known() is x and version == x._version and not x.requires_grad
            for (known, version), x in zip(self.rows, rows, strict=True)
        )


class Schedule:
    """A graph for the steps of a training: some exchange rows, the others reuse old ones.

    Each op that a step calls is a site, told apart by their order: every step calls the same ops.
    At a step without exchange the ghosts are those of the last one, as constants: the gradient that
    would go to other ranks is left out. At a step with exchange values and gradients are exact.
    Rows that do not change, such as the first layer's input, are exchanged once.

    Evaluate on the graph itself, which is exact.

    Args:
        graph: The graph.
        policy: When to exchange.
        steps: Of the training, for policies that change in its course.
        warmup: Steps at the beginning that exchange in any case, without rounding.
        wire: What rows are rounded to between ranks, each op's with a memory of what was left out.
            A warm-up is exchanged as it is, and with it inputs that do not change.
    """

    def __init__(
        self,
        graph: PartitionedGraph,
        policy: Policy,
        *,
        steps: int,
        warmup: int = 0,
        wire: Wire | str | None = None,
    ) -> None:
        self.policy, self.steps, self.warmup = policy, steps, warmup
        self._exact: HaloExchange = graph.exact
        self._rounding = graph.exact.with_wire(wire)
        self._exchange = self._exact
        self._sites: list[_Site] = []
        self._next = 0
        self._fresh = True
        self._last_fresh: int | None = None
        self._view = graph.with_exchange(self)

    def begin(self, step: int) -> PartitionedGraph:
        """The graph for a step, numbered from 0."""
        period = self.policy.period_at(step, self.steps)
        self._fresh = (
            step < self.warmup or self._last_fresh is None or step >= self._last_fresh + period
        )
        if self._fresh:
            self._last_fresh = step
        self._exchange = self._exact if step < self.warmup else self._rounding
        self._next = 0
        return self._view

    @property
    def is_fresh(self) -> bool:
        """Whether the current step exchanges."""
        return self._fresh

    def start(self, rows: Sequence[Tensor], *, carrier: HaloExchange | None = None) -> Arriving:
        """Exchange, or take what is there; what ops call."""
        if self._next == len(self._sites):
            self._sites.append(_Site(memory=self._memory()))
        site = self._sites[self._next]
        self._next += 1
        if site.has(rows) or (not self._fresh and len(site.ghosts) == len(rows)):
            return _Held(site.ghosts)
        site.rows = [(weakref.ref(x), x._version) for x in rows]
        return _Fresh(site, self._exchange.start(rows, site.memory, carrier=carrier))

    def _memory(self) -> WireMemory | None:
        wire = self._rounding.wire
        return None if wire is None else WireMemory(wire.feedback)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs: every site's ghosts and what rounding left out, and when."""
        return {
            "last": self._last_fresh,
            "sites": [site.ghosts for site in self._sites],
            "left_out": [site.memory.left if site.memory else {} for site in self._sites],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken, with the same parts."""
        self._last_fresh = state["last"]
        self._sites = [_Site(list(ghosts), memory=self._memory()) for ghosts in state["sites"]]
        for site, left in zip(self._sites, state["left_out"], strict=True):
            if site.memory is not None:
                site.memory.left = dict(left)


class _Held:
    """Ghosts of an earlier step."""

    def __init__(self, ghosts: list[Tensor]) -> None:
        self._ghosts = ghosts

    def finish(self) -> list[Tensor]:
        return self._ghosts


class _Fresh:
    """Ghosts on their way, which the site remembers."""

    def __init__(self, site: _Site, arriving: Arriving) -> None:
        self._site, self._arriving = site, arriving

    def finish(self) -> list[Tensor]:
        ghosts = self._arriving.finish()
        self._site.ghosts = [x.detach() for x in ghosts]
        return ghosts
