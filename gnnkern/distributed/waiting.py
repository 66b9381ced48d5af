"""Waiting for other ranks: what for, how long, and which rank gave out where it fails."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch.distributed as dist
from torch import Tensor

from gnnkern.distributed import watch
from gnnkern.distributed.watch import RankLost

__all__ = ["RankLost", "all_reduce", "begin_step", "start_exchange", "waiting_for"]

# Whom a reduction waits for.
_ALL: tuple[int, ...] = ()


class Call(NamedTuple):
    """One exchange or reduction of this rank."""

    kind: str
    number: int  # of its kind in the step, from 1
    step: str

    def __str__(self) -> str:
        """Such as "exchange 2 of step 7"."""
        return f"{self.kind} {self.number}" + (f" of {self.step}" if self.step else "")


class _Counter:
    """Numbers the calls of a step; a process is one rank, so there is one."""

    def __init__(self) -> None:
        self.step = ""
        self.numbers: dict[str, int] = {}

    def next(self, kind: str) -> Call:
        number = self.numbers[kind] = self.numbers.get(kind, 0) + 1
        return Call(kind, number, self.step)


_counter = _Counter()


def begin_step(step: str) -> None:
    """Count exchanges and reductions from 1 again, as those of a step such as "step 7"."""
    _counter.step = step
    _counter.numbers.clear()


@contextlib.contextmanager
def waiting_for(
    what: str | Call, group: dist.ProcessGroup | None = None, ranks: Sequence[int] = _ALL
) -> Iterator[None]:
    """Wait inside for other ranks, and say which of them gave out where that fails.

    Costs two assignments; nothing is sent before something fails. Inside a `Watch` the ranks' own
    signs of life are read then, otherwise it is only known who was waited for.

    Args:
        what: What is waited for; a kind such as "sum" is numbered within the step.
        group: Its process group.
        ranks: Of the group, who is waited for; by default all others.

    Raises:
        RankLost: in place of the process group's own error.
    """
    call = _counter.next(what) if isinstance(what, str) else what
    begin = time.monotonic()
    watch.here.waits_in(call)
    try:
        yield
    except RankLost:
        raise
    except RuntimeError as error:
        raise RankLost(_message(call, group, ranks, time.monotonic() - begin, error)) from error
    watch.here.set("is past", call)


def all_reduce(
    x: Tensor,
    group: dist.ProcessGroup | None = None,
    op: Any = dist.ReduceOp.SUM,
    kind: str = "sum over ranks",
) -> None:
    """Reduce a tensor over ranks in place."""
    with waiting_for(kind, group):
        dist.all_reduce(x, op, group=group)


def start_exchange(
    kind: str,
    received: Tensor,
    sent: Tensor,
    received_splits: list[int],
    sent_splits: list[int],
    group: dist.ProcessGroup | None,
) -> ExchangeWork:
    """Start an exchange of rows; its `wait` says who gave out where it fails."""
    call = _counter.next(kind)
    work = dist.all_to_all_single(
        received, sent, received_splits, sent_splits, group=group, async_op=True
    )
    return ExchangeWork(work, call, group, received_splits)


class ExchangeWork:
    """An exchange under way."""

    def __init__(
        self, work: Any, call: Call, group: dist.ProcessGroup | None, splits: list[int]
    ) -> None:
        self._work, self._call, self._group, self._splits = work, call, group, splits

    def wait(self) -> None:
        """Wait for the rows of others.

        Raises:
            RankLost: they do not come.
        """
        # Ranks without rows for this one are waited for as well, but owe nothing.
        ranks = [rank for rank, count in enumerate(self._splits) if count]
        with waiting_for(self._call, self._group, ranks):
            self._work.wait()


def _message(
    call: Call,
    group: dist.ProcessGroup | None,
    ranks: Sequence[int],
    seconds: float,
    error: RuntimeError,
) -> str:
    mine = dist.get_rank(group)
    others = [rank for rank in range(dist.get_world_size(group)) if rank != mine]
    owed = [rank for rank in ranks if rank != mine]
    # Those that owe nothing may be the ones that are gone: all are asked.
    found = watch.asked(others if group is None else [_global(group, rank) for rank in others])
    whom = f"rows of {_names(owed)}" if owed else _names(others)
    says = f" {found}." if found else ""
    # The rest of its first line is advice.
    reason = (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0]
    return (
        f"rank {mine}: {call} did not end; waited {seconds:.1f} s for {whom}.{says} The process "
        f"group says: {reason}"
    )


def _global(group: dist.ProcessGroup, rank: int) -> int:
    return dist.get_global_rank(group, rank)


def _names(ranks: Sequence[int]) -> str:
    word = "rank" if len(ranks) == 1 else "ranks"
    return f"{word} {', '.join(map(str, ranks))}"
