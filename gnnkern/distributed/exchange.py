"""`HaloExchange`: rows of other ranks, differentiable, while interior rows are computed."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from gnnkern.distributed.hierarchy import LEVELS
from gnnkern.distributed.plan import HaloPlan
from gnnkern.distributed.waiting import start_exchange
from gnnkern.distributed.wire import Codec, Wire, WireMemory, as_wire
from gnnkern.ops.spmm import spmm

__all__ = ["Arriving", "Exchange", "HaloExchange", "Pending", "Traffic"]


@dataclass
class Traffic:
    """What a rank has sent, per kind of link, counted where rows are handed to the process group.

    Attributes:
        bytes: Bytes sent.
        rows: Rows sent.
        exchanges: Exchanges, of either direction.
        waited_s: Seconds that this process waited for exchanges to end.
        events: Where a list, every start and end of an exchange is appended, in order.
        within: The count that this one is a share of, and that counts with it.
    """

    bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LEVELS, 0))
    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LEVELS, 0))
    exchanges: int = 0
    waited_s: float = 0.0
    events: list[str] | None = None
    within: Traffic | None = None

    def reset(self) -> None:
        """Count from zero again."""
        self.bytes = dict.fromkeys(LEVELS, 0)
        self.rows = dict.fromkeys(LEVELS, 0)
        self.exchanges = 0
        self.waited_s = 0.0
        if self.events is not None:
            self.events.clear()

    def add(self, rows: dict[str, int], row_bytes: int) -> None:
        """Count one exchange."""
        self.exchanges += 1
        for level, count in rows.items():
            self.rows[level] += count
            self.bytes[level] += count * row_bytes
        if self.within is not None:
            self.within.add(rows, row_bytes)

    def add_bytes(self, by_level: dict[str, int]) -> None:
        """Count an exchange of what says which rows come: bytes, and no rows."""
        self.exchanges += 1
        for level, count in by_level.items():
            self.bytes[level] += count
        if self.within is not None:
            self.within.add_bytes(by_level)

    def add_wait(self, seconds: float) -> None:
        """Count seconds of waiting."""
        self.waited_s += seconds
        if self.within is not None:
            self.within.add_wait(seconds)

    def note(self, event: str) -> None:
        """Append to the events, where somebody wants them."""
        if self.events is not None:
            self.events.append(event)
        if self.within is not None:
            self.within.note(event)


class Arriving(Protocol):
    """Ghosts' rows on their way."""

    def finish(self) -> list[Tensor]:
        """Wait for them, [g, ...] for each tensor that was sent."""
        ...


class Exchange(Protocol):
    """What brings ghosts' rows: from their owners, or from what is known of them."""

    def start(self, rows: Sequence[Tensor], *, carrier: HaloExchange | None = None) -> Arriving:
        """Begin with rows [n, ...] of tensors; between this and `finish` there is other work.

        Args:
            rows: The tensors.
            carrier: Whose plan, where the rows are not those of the graph's nodes.
        """
        ...


class HaloExchange:
    """Brings a rank the rows of its ghosts; the gradient goes the same way back.

    `exchange(x)` is the ghosts' rows. `start` and `Pending.finish` are its two halves, with room
    for work between them; in the backward the gradient's exchange starts at `finish` and is waited
    for at `start`, so that what lay between lies between again. Every exchange has its backward on
    every rank, or on none: whether x needs a gradient is the same everywhere, and nothing else is
    asked.

    The first exchange compares the ranks' plans (`HaloPlan.check`).

    Args:
        plan: Which rows go where.
        group: The process group; by default the one of `torch.distributed`. Without one (a single
            process, no `init_process_group`) the plan must be that of one part.
        traffic: Where to count; by default a count of its own.
        wire: What rows, and gradients on their way back, are rounded to (`Wire`); by default they
            travel as they are. The same on every rank, which the first exchange compares.

    Numerics: without a wire type rows arrive bit for bit. Gradients that return to one row are
    summed by receiver, in the order of ranks, and repeat bit for bit. The gradient is that of an
    exchange that does not round.
    """

    def __init__(
        self,
        plan: HaloPlan,
        group: dist.ProcessGroup | None = None,
        traffic: Traffic | None = None,
        wire: Wire | str | None = None,
    ) -> None:
        self.plan = plan
        self.group = group
        self.traffic = Traffic() if traffic is None else traffic
        self.wire = as_wire(wire)
        # Wire types that the ranks have compared, with the plan; shared by exchanges made of this.
        self._compared: set[Wire | None] = set()

    def __call__(self, x: Tensor) -> Tensor:  # [n, ...] -> [g, ...]
        """The ghosts' rows."""
        (ghosts,) = self.start([x]).finish()
        return ghosts

    def start(
        self,
        rows: Sequence[Tensor],
        memory: WireMemory | None = None,
        *,
        carrier: HaloExchange | None = None,
    ) -> Pending:
        """Send rows of tensors [n, ...]; those of one dtype go in one message per pair of ranks.

        Args:
            rows: The tensors.
            memory: What rounding left out at this call site before, where there is a wire type.
            carrier: Another exchange whose plan is followed, in the wire type of this one.

        Raises:
            ValueError: a tensor has another number of rows, or devices differ.
            PlanMismatch: the ranks' plans are not those of one partition, or their wire types
                differ; at the first call.
        """
        if carrier is not None:
            return self.following(carrier, rows[0].device).start(rows, memory)
        for x in rows:
            if x.dim() == 0 or x.shape[0] != self.plan.num_rows:
                raise ValueError(
                    f"HaloExchange: rows must have shape [n={self.plan.num_rows}, ...], "
                    f"got {list(x.shape)}"
                )
            if x.device != rows[0].device:
                raise ValueError(
                    "HaloExchange: rows of one exchange must be on one device, got "
                    f"{rows[0].device} and {x.device}"
                )
        if rows:
            self.before_first(rows[0].device)
        return Pending(self, rows, memory)

    def with_wire(self, wire: Wire | str | None) -> HaloExchange:
        """The exchange of the same rows in another wire type, which its first exchange compares."""
        wire = as_wire(wire)
        if wire == self.wire:
            return self
        other = copy.copy(self)
        other.wire = wire
        return other

    def over(self, levels: Sequence[str]) -> tuple[HaloExchange, Tensor]:
        """The exchange over links of some kinds alone, and the places of its ghosts among all."""
        plan, places = self.plan.over(levels)
        return self.like(plan), places

    def like(self, plan: HaloPlan, traffic: Traffic | None = None) -> HaloExchange:
        """The same exchange by another plan between the same ranks, such as a part of its own.

        It is checked where this one is: whoever makes the plan answers for it.

        Args:
            plan: Which rows go where; every rank makes its own of one partition.
            traffic: Where to count; by default where this exchange counts.
        """
        other = copy.copy(self)
        other.plan = plan
        other.traffic = self.traffic if traffic is None else traffic
        return other

    def following(self, carrier: HaloExchange, device: torch.device) -> HaloExchange:
        """This exchange by the plan of another, both compared between ranks."""
        carrier.before_first(device)
        self.before_first(device)
        return self.like(carrier.plan)

    def transposed(self, received: Tensor) -> Tensor:  # [g, ...] -> [n, ...]
        """Send values of ghosts to their owners, who sum them: what the backward does."""
        self.before_first(received.device)
        call = _Call(self, [math.prod(received.shape[1:])], received.dtype)
        call.begin_reverse(_flat(received))
        return call.end_reverse().view(self.plan.num_rows, *received.shape[1:])

    def before_first(self, device: torch.device) -> None:
        """Compare the plans, once; every exchange begins with it."""
        self.plan = self.plan.to(device)
        if self.wire in self._compared:
            return
        if self.is_alone:
            if self.plan.hierarchy.size != 1:
                raise ValueError(
                    f"HaloExchange: the plan is of {self.plan.hierarchy.size} ranks, but "
                    "torch.distributed has no process group; call init_process_group first"
                )
        else:
            self.plan.check(self.group, device, repr(self.wire))
        self._compared.add(self.wire)

    @property
    def is_alone(self) -> bool:
        """Whether there is no process group."""
        return not (dist.is_available() and dist.is_initialized())


def _flat(x: Tensor) -> Tensor:  # [rows, ...] -> [rows, W]
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


class _Call:
    """One exchange of tensors of one dtype under way, and the exchange of its gradient."""

    def __init__(
        self,
        exchange: HaloExchange,
        widths: Sequence[int],
        dtype: torch.dtype,
        memory: WireMemory | None = None,
    ) -> None:
        self.exchange = exchange
        wire = exchange.wire or Wire()
        self._codec = Codec(wire.rows, dtype, widths)
        self._back = Codec(wire.gradient, dtype, widths)
        self._memory = memory
        self._work: Any = None
        # What the collective reads and writes lives at least as long as it runs.
        self._buffers: tuple[Tensor, ...] = ()

    def _begin(
        self, sent: Tensor, sent_splits: list[int], received_splits: list[int], name: str
    ) -> Tensor:
        received = sent.new_empty(sum(received_splits), sent.shape[1])
        exchange = self.exchange
        exchange.traffic.note(f"start {name}")
        rows = exchange.plan.rows_by_level(sent_splits)
        exchange.traffic.add(rows, sent.shape[1] * sent.element_size())
        self._buffers = (sent, received)
        if not exchange.is_alone and sent.shape[1]:
            self._work = start_exchange(
                name, received, sent, received_splits, sent_splits, exchange.group
            )
        return received

    def _end(self, name: str) -> Tensor:
        if self._work is not None:
            begin = time.perf_counter()
            self._work.wait()
            self.exchange.traffic.add_wait(time.perf_counter() - begin)
            self._work = None
        self.exchange.traffic.note(f"end {name}")
        received = self._buffers[1]
        self._buffers = ()
        return received

    def begin(self, rows: Sequence[Tensor]) -> Tensor:  # [g, W], in flight
        plan = self.exchange.plan
        picked = [_flat(x.index_select(0, plan.send_rows)) for x in rows]
        sent = self._codec.encode(picked, self._memory, f"rows {picked[0].dtype}")
        received = self._begin(sent, plan.send_splits, plan.recv_splits, "exchange")
        if self._codec.is_exact:
            return received
        # What arrives is decoded at the end; until then its shape alone is needed.
        return picked[0].new_empty(1).expand(plan.num_ghosts, sum(self._codec.widths))

    def end(self) -> Tensor:  # [g, W]
        return self._codec.decode(self._end("exchange"))

    def begin_reverse(self, grad: Tensor) -> None:  # [g, W]
        plan = self.exchange.plan
        sent = self._back.encode(self._back.split(grad), self._memory, f"gradient {grad.dtype}")
        self._begin(sent, plan.recv_splits, plan.send_splits, "gradient")

    def end_reverse(self) -> Tensor:  # [n, W]
        received = self._back.decode(self._end("gradient"))
        return spmm(self.exchange.plan.returning, received)


class _Start(torch.autograd.Function):
    """Rows leave; their gradient, which `_Finish` has sent for, arrives."""

    @staticmethod
    def forward(ctx: Any, call: _Call, *rows: Tensor) -> Tensor:
        ctx.call = call
        ctx.shapes = [x.shape for x in rows]
        return call.begin(rows)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, carrier: Tensor) -> Any:
        # The carrier only says that the gradient is under way.
        grad = ctx.call.end_reverse()  # [n, W]
        widths = [math.prod(shape[1:]) for shape in ctx.shapes]
        parts = torch.split(grad, widths, dim=1)
        return None, *(part.reshape(shape) for part, shape in zip(parts, ctx.shapes, strict=True))


class _Finish(torch.autograd.Function):
    """Rows have arrived; their gradient leaves."""

    @staticmethod
    def forward(ctx: Any, call: _Call, token: Tensor) -> Tensor:
        ctx.call = call
        # Without a wire type this is the memory of the token.
        return call.end().detach()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        ctx.call.begin_reverse(grad)
        return None, grad


class Pending:
    """Rows under way to this rank."""

    def __init__(
        self, exchange: HaloExchange, rows: Sequence[Tensor], memory: WireMemory | None = None
    ) -> None:
        self._shapes = [x.shape[1:] for x in rows]
        by_dtype: dict[torch.dtype, list[int]] = {}
        for place, x in enumerate(rows):
            by_dtype.setdefault(x.dtype, []).append(place)
        self._calls = [
            (_Call(exchange, [math.prod(self._shapes[k]) for k in places], dtype, memory), places)
            for dtype, places in by_dtype.items()
        ]
        self._tokens: list[Tensor] = [
            _Start.apply(call, *(rows[place] for place in places)) for call, places in self._calls
        ]

    def finish(self) -> list[Tensor]:
        """Wait for the ghosts' rows, [g, ...] for each tensor of `start`."""
        out: list[Tensor] = [torch.empty(0)] * len(self._shapes)
        for (call, places), token in zip(self._calls, self._tokens, strict=True):
            ghosts: Tensor = _Finish.apply(call, token)
            shapes = [self._shapes[place] for place in places]
            widths = [math.prod(shape) for shape in shapes]
            parts = torch.split(ghosts, widths, dim=1) if len(widths) > 1 else [ghosts]
            for place, part, shape in zip(places, parts, shapes, strict=True):
                out[place] = part.reshape(ghosts.shape[0], *shape)
        return out
