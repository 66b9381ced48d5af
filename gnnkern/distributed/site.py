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
        keeps: Whether senders keep what their receivers hold: s rows per site.
    """

    def __init__(self, exact: HaloExchange, keeps: bool) -> None:
        self.keeps = keeps
        self._exact = exact
        self._exchange: HaloExchange | None = None
        self._bits: RowBits | None = None
        self.begin(0)

    def begin(self, step: int) -> None:
        """Count anew, for a step."""
        self.step = step
        self.traffic = Traffic(within=self._exact.traffic)
        self._moved, self._size = 0.0, 0.0
        if self._exchange is not None:
            self._exchange.traffic = self.traffic

    def prepare(self, device: torch.device) -> None:
        """What comes before the first exchange."""
        if self._exchange is None:
            self._exact.before_first(device)
            self._exchange = self._exact.like(self._exact.plan, self.traffic)

    @property
    def plan(self) -> HaloPlan:
        """Which rows an exchange of all moves."""
        return self._exact.plan

    @property
    def exchange(self) -> HaloExchange:
        """Counts in `traffic`, and so in the graph's."""
        assert self._exchange is not None, "a site is asked before prepare"
        return self._exchange

    def tell(self, chosen: Tensor) -> Tensor:  # bool [s] -> bool [g]
        """Tell receivers which rows come; an exchange of a bit per row, which is waited for."""
        if self._bits is None:
            self._bits = RowBits(self.exchange)
        return self._bits.tell(chosen, self.traffic)

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
        ghosts: K tensors [g, ...] as last received; empty before the first exchange.
        sent: K tensors [s, ...], what receivers hold of this rank's rows; empty where the channel
            does not keep them.
    """

    def __init__(self, number: int, channel: Channel) -> None:
        self.number, self.channel = number, channel
        self.ghosts: list[Tensor] = []
        self.sent: list[Tensor] = []
        self._under_way: Arriving | None = None
        # The rows that ghosts are whole copies of: (reference, version).
        self._rows: list[tuple[weakref.ref[Tensor], int]] = []

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
            ValueError: another number of tensors, other shapes or dtypes.
        """
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

    def whole(self, rows: Sequence[Tensor]) -> Arriving:
        """All rows are sent; values and gradients are exact."""
        self.settle()
        self._remember(rows, self.change(rows))
        return _Fresh(self, self.channel.exchange.start(rows), None)

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
        self._remember(rows, change, sends)
        part = self.channel.exchange.like(self.channel.plan.of_rows(sends, receives))
        return _Fresh(self, part.start(rows), receives.nonzero().squeeze(1))

    def later(self, rows: Sequence[Tensor]) -> Arriving:
        """All rows are sent, for the next step; the ghosts are those of the last one, as constants.

        What the last step sent is waited for where this step needs it.
        """
        before = self.held()
        self._remember(rows, self.change(rows))
        self._under_way = self.channel.exchange.start([x.detach() for x in rows])
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
        """What is held and what was sent."""
        self.settle()
        return {"ghosts": list(self.ghosts), "sent": list(self.sent)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            ValueError: it is of other parts.
        """
        plan = self.channel.plan
        for name, rows in (("ghosts", plan.num_ghosts), ("sent", plan.num_sent)):
            wrong = [len(x) for x in state[name] if len(x) != rows]
            if wrong:
                raise ValueError(
                    f"Schedule: the state is of other parts: {name} of call {self.number} must "
                    f"have {rows} rows, got {wrong[0]}"
                )
        self.ghosts, self.sent = list(state["ghosts"]), list(state["sent"])
        self._under_way, self._rows = None, []

    # -- inside ------------------------------------------------------------------------------------

    def _picked(self, rows: Sequence[Tensor]) -> list[Tensor]:
        places = self.channel.plan.send_rows
        return [x.detach().index_select(0, places) for x in rows]

    def _remember(
        self, rows: Sequence[Tensor], change: Change | None, sends: Tensor | None = None
    ) -> None:
        """Count what moved, and keep what receivers hold from now on."""
        self._rows = [(weakref.ref(x), x._version) for x in rows] if sends is None else []
        if not self.channel.keeps:
            return
        if change is not None:
            self.channel.count(change)
        now = self._picked(rows) if change is None else change.now
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
