"""`Watch`: ranks' signs of life, in the store of the process group, for when something fails."""

from __future__ import annotations

import contextlib
import datetime
import json
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType, TracebackType
from typing import Any, NamedTuple

import torch.distributed as dist

__all__ = ["RankLost", "Watch", "asked", "diagnosis_before_the_end", "here"]

# Seconds between signs; a rank without one for three times as long is dead or stopped.
_EVERY = 1.0
_PATIENCE = 3.0
_GAVE_UP = "gave up"
_WAITS = "waits in"


class RankLost(RuntimeError):
    """Another rank died, hangs or left, and so an exchange or a reduction did not end."""


class Here:
    """Where this rank stands: a state such as "waits in", and the call that it is about."""

    def __init__(self) -> None:
        self.state: tuple[str, object] = ("has not begun", "")

    def set(self, state: str, call: object) -> None:
        """Two references: they become text once per sign, not at every call."""
        self.state = (state, call)

    def waits_in(self, call: object) -> None:
        """Waiting for other ranks begins."""
        self.set(_WAITS, call)

    def __str__(self) -> str:
        """Such as "waits in exchange 2 of step 7"."""
        return " ".join(str(each) for each in self.state if each != "")


here = Here()


class _Sign(NamedTuple):
    """What a rank says of itself."""

    beat: int
    left: bool  # whether it is its last
    text: str


class Watch:
    """Inside it, this rank says about once a second where it stands, from a thread of its own.

    Signs go to the store that the process group was made with, never through the group: exchanges
    do not wait for them. Every rank makes its watches in the same order. Without a process group it
    does nothing.

    Args:
        every: Seconds between signs; by default 1.
    """

    _made = 0

    def __init__(self, every: float | None = None) -> None:
        self.every = _EVERY if every is None else every
        self._store: Any = None
        self._beat = 0
        self.is_asking = False
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Watch:
        """Begin to give signs."""
        global _watch
        Watch._made += 1
        self._prefix = f"gnnkern/watch/{Watch._made}"
        if dist.is_available() and dist.is_initialized():
            self._rank = dist.get_rank()
            self._store = _own_client(self.every)
            self._say()
            self._thread = threading.Thread(target=self._run, name="gnnkern-watch", daemon=True)
            self._thread.start()
        self._outer, _watch = _watch, self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the last sign: what this rank left with."""
        global _watch
        _watch = self._outer
        if self._thread is None:
            return
        self._done.set()
        self._thread.join()
        if error is None:
            self._say("ended", left=True)
        else:
            words = str(error).splitlines() or [""]
            why = f"left with {type(error).__name__}: {words[0]}"
            gave_up = isinstance(error, RankLost)
            self._say(f"{_GAVE_UP}; it {here}" if gave_up else why, left=True)

    def ask(self, ranks: Sequence[int]) -> str:
        """What is known of other ranks, those that are to blame first.

        Takes up to three times the seconds between signs, where a rank gives none.
        """
        if self._store is None:
            return ""
        self._say()
        self.is_asking = True
        try:
            return self._ask(ranks)
        except RuntimeError:
            return "The store of the process group, where ranks give signs of life, is gone as well"

    def _ask(self, ranks: Sequence[int]) -> str:
        first = {rank: self._read(rank) for rank in ranks}
        last = dict(first)
        deadline = time.monotonic() + _PATIENCE * self.every
        silent = [rank for rank in ranks if not first[rank].left]
        while silent and time.monotonic() < deadline:
            time.sleep(self.every / 4)
            last |= {rank: self._read(rank) for rank in silent}
            silent = [
                rank
                for rank in silent
                if last[rank].beat == first[rank].beat and not last[rank].left
            ]
        found: list[tuple[int, str]] = []
        for rank in ranks:
            sign = last[rank]
            if rank in silent:
                found.append((0, f"rank {rank} gives no sign of life; its last: it {sign.text}"))
            elif sign.left:
                # Others that gave up waiting are no cause.
                gave_up = sign.text.startswith(_GAVE_UP)
                found.append((3 if gave_up else 1, f"rank {rank} {sign.text}"))
            else:
                waits = sign.text.startswith(_WAITS)
                found.append((4 if waits else 2, f"rank {rank} lives and {sign.text}"))
        text = "; ".join(text for _, text in sorted(found))
        return text[:1].upper() + text[1:]

    def _run(self) -> None:
        with contextlib.suppress(RuntimeError):  # The store is gone: nobody can read signs.
            while not self._done.wait(self.every):
                self._write(_Sign(self._next(), False, str(here)))

    def _next(self) -> int:
        with self._lock:
            self._beat += 1
            return self._beat

    def _say(self, text: str = "", *, left: bool = False) -> None:
        with contextlib.suppress(RuntimeError):
            self._write(_Sign(self._next(), left, text or str(here)))

    def _write(self, sign: _Sign) -> None:
        self._store.set(f"{self._prefix}/{self._rank}", json.dumps(sign))

    def _read(self, rank: int) -> _Sign:
        key = f"{self._prefix}/{rank}"
        if not self._store.check([key]):
            return _Sign(0, False, "has given none")
        return _Sign(*json.loads(self._store.get(key)))


_watch: Watch | None = None


def asked(ranks: Sequence[int]) -> str:
    """What the innermost `Watch` finds out about ranks; nothing outside one."""
    return "" if _watch is None else _watch.ask(ranks)


@contextlib.contextmanager
def diagnosis_before_the_end() -> Iterator[None]:
    """Let a rank that asks who gave out finish before a SIGTERM, such as the launcher's, ends it.

    The launcher ends all ranks as soon as one has died, and they would say nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_term(number: int, frame: FrameType | None) -> None:
        if _watch is None or not _watch.is_asking:
            raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, on_term)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _own_client(every: float) -> Any:
    """The process group's store, by a client of its own where it has such."""
    store: Any = dist.distributed_c10d._get_default_store()
    with contextlib.suppress(RuntimeError, NotImplementedError):
        store = store.clone()
        store.set_timeout(datetime.timedelta(seconds=max(10.0, 10 * every)))
    return store
