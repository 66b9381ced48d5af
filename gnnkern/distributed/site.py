"""`Site`: one call of an op in every step of a training, and the ghosts that it keeps."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gnnkern.distributed.exchange import Arriving, HaloExchange, Traffic
from gnnkern.distributed.plan import HaloPlan
from gnnkern.distributed.record import StepRecord
from gnnkern.distributed.row_bits import RowBits
from gnnkern.distributed.wire import Wire, WireMemory

__all__ = ["Change", "Channel", "Site"]


class Change(NamedTuple):
    """The rows up for exchange beside what their receivers hold of them, for K tensors."""

    now: list[Tensor]  # K of [s, ...]
    gap: Tensor  # float64 [K, s] norms of the differences
    size: Tensor  # float64 [K, s] norms of what is held


class Channel:
    """What the sites of a schedule share: the exchange, and the counts of the step.

    Args:
        exact: The graph's exchange.
        wire: What rows are rounded to, but for those that must be exact.
        keeps: Whether senders keep what their receivers hold: s rows per site.
    """

    def __init__(self, exact: HaloExchange, keeps: bool, wire: Wire | None = None) -> None:
        self.keeps, self.wire = keeps, wire
        self._exact = exact
        self._exchange: HaloExchange | None = None
        self._rounding: HaloExchange | None = None
        self.begin(0)

    def begin(self, step: int) -> None:
        """Count anew, for a step."""
        self.step = step
        self.traffic = Traffic(within=self._exact.traffic)
        self._moved, self._size = 0.0, 0.0
        for exchange in (self._exchange, self._rounding):
            if exchange is not None:
                exchange.traffic = self.traffic

    def prepare(self, device: torch.device) -> None:
        """What comes before the first exchange."""
        if self._exchange is None:
            self._exact.before_first(device)
            self._exchange = self._exact.like(self._exact.plan, self.traffic)
            self._rounding = self._exchange.with_wire(self.wire)
            self._rounding.before_first(device)

    @property
    def plan(self) -> HaloPlan:
        """Which rows an exchange of all moves."""
        return self._exact.plan

    def exchange(self, exact: bool) -> HaloExchange:
        """Counts in `traffic`, and so in the graph's; rounds, where it need not be exact."""
        exchange = self._exchange if exact else self._rounding
        assert exchange is not None, "a site is asked before prepare"
        return exchange

    def memory(self) -> WireMemory | None:
        """For what rounding leaves out of the rows of one site."""
        return None if self.wire is None else WireMemory(self.wire.feedback, believed=self.keeps)

    def count(self, change: Change) -> None:
        """Add to the step's drift."""
        self._moved += float(change.gap.square().sum())
        self._size += float(change.size.square().sum())

    def record(self) -> StepRecord:
        """The step so far; with its backward, once that has run."""
        counted = self.traffic
        return StepRecord(
            self.step,
            counted.exchanges,
            dict(counted.rows),
            dict(counted.bytes),
            self._moved,
            self._size,
        )


class Site:
    """The ghosts of one call, and the ways of bringing them up to date: what policies choose from.

    Every way is a method that all ranks call at once, and returns rows on their way. What receivers
    hold and what senders believe that they hold is the same by construction: both follow from the
    same exchanges.

    Args:
        number: Its place among the calls of a step.
        channel: Shared by all sites.

    Attributes:
        carrier: Whose plan is followed, where the rows are not those of the graph's nodes.
        ghosts: K tensors [g, ...] as last received; empty before the first exchange.
        sent: K tensors [s, ...], what receivers hold of this rank's rows; empty where the channel
            does not keep them.
    """

    def __init__(self, number: int, channel: Channel) -> None:
        self.number, self.channel = number, channel
        self.carrier: HaloExchange | None = None
        self.memory = channel.memory()
        self._bits: RowBits | None = None
        self.ghosts: list[Tensor] = []
        self.sent: list[Tensor] = []
        self._under_way: Arriving | None = None
        # The rows that ghosts are whole copies of: (reference, version).
        self._rows: list[tuple[weakref.ref[Tensor], int]] = []

    @property
    def plan(self) -> HaloPlan:
        """Which rows an exchange of all moves."""
        return self.channel.plan if self.carrier is None else self.carrier.plan

    def exchange(self, exact: bool = False) -> HaloExchange:
        """What brings all rows; rounds, where it need not be exact."""
        exchange = self.channel.exchange(exact)
        if self.carrier is None:
            return exchange
        return exchange.following(self.carrier, exchange.plan.send_rows.device)

    def tell(self, chosen: Tensor) -> Tensor:  # bool [s] -> bool [g]
        """Tell receivers which rows come; an exchange of a bit per row, which is waited for."""
        if self._bits is None:
            self._bits = RowBits(self.exchange(exact=True))
        return self._bits.tell(chosen, self.channel.traffic)

    def has(self, rows: Sequence[Tensor]) -> bool:
        """Whether the ghosts are those of the very same rows, which nobody has written to since."""
        if len(rows) != len(self._rows):
            return False
        return all(
            known() is x and version == x._version and not x.requires_grad
            for (known, version), x in zip(self._rows, rows, strict=True)
        )

    def check(self, rows: Sequence[Tensor]) -> None:
        """Raise where these cannot be rows of the same call as before.

        Raises:
            ValueError: another number of tensors, other shapes or dtypes, or other parts.
        """
        self._check_counts()
        # What is under way has the shapes of what is held.
        known = [(tuple(x.shape[1:]), x.dtype) for x in self.ghosts]
        given = [(tuple(x.shape[1:]), x.dtype) for x in rows]
        if known and known != given:
            raise ValueError(
                f"Schedule: call {self.number} of step {self.channel.step} gives rows of "
                f"{_named(given)}, in earlier steps {_named(known)}; every step must call the same "
                "ops in the same order"
            )

    # -- ways of bringing ghosts up to date --------------------------------------------------------

    def held(self) -> Arriving:
        """Nothing is sent: the ghosts are those last sent, as constants."""
        arriving, self._under_way = self._under_way, None
        return _Held(self, arriving)

    def whole(self, rows: Sequence[Tensor], *, exact: bool = False) -> Arriving:
        """All rows are sent; values and gradients are exact, but for what a wire type rounds."""
        self.settle()
        change = self.change(rows)
        pending = self.exchange(exact).start(rows, None if exact else self.memory)
        self._remember(rows, change, exact=exact)
        return _Fresh(self, pending, None)

    def some(
        self,
        rows: Sequence[Tensor],
        sends: Tensor,  # bool [s]
        receives: Tensor,  # bool [g]
        change: Change | None,
    ) -> Arriving:
        """Some rows are sent, with an exact gradient; the other ghosts stay, as constants.

        All ranks take part, forward and backward, also where they have nothing to send.

        Args:
            rows: Tensors [n, ...].
            sends: Which of the rows to send.
            receives: Which of the ghosts come: those that their owners send.
            change: Of these rows.
        """
        self.settle()
        part = self.exchange().like(self.plan.of_rows(sends, receives))
        memory = None if self.memory is None else self.memory.of_rows(sends, receives)
        pending = part.start(rows, memory)
        self._remember(rows, change, sends)
        return _Fresh(self, pending, receives.nonzero().squeeze(1))

    def later(self, rows: Sequence[Tensor]) -> Arriving:
        """All rows are sent, for the next step; the ghosts are those of the last one, as constants.

        What the last step sent is waited for where this step needs it.
        """
        before, change = self.held(), self.change(rows)
        self._under_way = self.exchange().start([x.detach() for x in rows], self.memory)
        self._remember(rows, change)
        return before

    # -- what policies may ask ---------------------------------------------------------------------

    def change(self, rows: Sequence[Tensor]) -> Change | None:
        """How far rows to send are from what their receivers hold; None where that is not kept."""
        if not self.channel.keeps or not self.sent:
            return None
        now = self._picked(rows)
        gap = [_norms(x - held) for x, held in zip(now, self.sent, strict=True)]
        return Change(now, torch.stack(gap), torch.stack([_norms(held) for held in self.sent]))

    def settle(self) -> None:
        """Wait for what is under way."""
        self.held().finish()

    # -- checkpoints -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What is held, what was sent and what rounding left out."""
        self.settle()
        left = {} if self.memory is None else dict(self.memory.left)
        return {
            "ghosts": list(self.ghosts),
            "sent": list(self.sent),
            "left_out": left,
            "carried": self.carrier is not None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            ValueError: it is of other parts.
        """
        self.ghosts, self.sent = list(state["ghosts"]), list(state["sent"])
        # A plan of its own is there at its first call.
        if not state["carried"]:
            self._check_counts()
        if self.memory is not None:
            self.memory.left = dict(state["left_out"])
        self._under_way, self._rows = None, []

    # -- inside ------------------------------------------------------------------------------------

    def _check_counts(self) -> None:
        plan = self.plan
        for name, held, rows in (
            ("ghosts", self.ghosts, plan.num_ghosts),
            ("sent", self.sent, plan.num_sent),
        ):
            wrong = [len(x) for x in held if len(x) != rows]
            if wrong:
                raise ValueError(
                    f"Schedule: the state is of other parts: {name} of call {self.number} must "
                    f"have {rows} rows, got {wrong[0]}"
                )

    def _picked(self, rows: Sequence[Tensor]) -> list[Tensor]:
        places = self.plan.send_rows
        return [x.detach().index_select(0, places) for x in rows]

    def _remember(
        self,
        rows: Sequence[Tensor],
        change: Change | None,
        sends: Tensor | None = None,
        *,
        exact: bool = False,
    ) -> None:
        """Count what moved, and keep what receivers hold from now on."""
        self._rows = [(weakref.ref(x), x._version) for x in rows] if sends is None else []
        if not self.channel.keeps:
            return
        if change is not None:
            self.channel.count(change)
        now = self._picked(rows) if change is None else change.now
        if self.memory is not None and not exact:
            now = self.memory.as_believed(now)
        if sends is not None and self.sent:
            now = [
                torch.where(sends.view(-1, *[1] * (x.dim() - 1)), x, held)
                for x, held in zip(now, self.sent, strict=True)
            ]
        self.sent = now


class _Held:
    """Ghosts of an earlier step, which may still be on their way."""

    def __init__(self, site: Site, arriving: Arriving | None) -> None:
        self._site, self._arriving = site, arriving

    def finish(self) -> list[Tensor]:
        if self._arriving is not None:
            self._site.ghosts, self._arriving = self._arriving.finish(), None
        return self._site.ghosts


class _Fresh:
    """Ghosts on their way, all or those at some places; the site keeps them."""

    def __init__(self, site: Site, arriving: Arriving, places: Tensor | None) -> None:
        self._site, self._arriving, self._places = site, arriving, places

    def finish(self) -> list[Tensor]:
        ghosts = self._arriving.finish()
        places = self._places
        if places is not None:
            held = self._site.ghosts
            ghosts = [old.index_copy(0, places, new) for old, new in zip(held, ghosts, strict=True)]
        self._site.ghosts = [x.detach() for x in ghosts]
        return ghosts


def _norms(x: Tensor) -> Tensor:  # [s, ...] -> float64 [s]
    # In float64, where squares of the smallest float32 are not zero.
    flat = x.reshape(x.shape[0], math.prod(x.shape[1:]))
    norms: Tensor = torch.linalg.vector_norm(flat, dim=1, dtype=torch.float64)
    return norms


def _named(kinds: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> str:
    names = [f"{['n', *shape]} {str(dtype).removeprefix('torch.')}" for shape, dtype in kinds]
    return ", ".join(names).replace("'", "") or "nothing"
