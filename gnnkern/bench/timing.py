"""How calls are timed: in turns, in rounds of one long call or of a batch of short ones."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from gnnkern.memory import PeakMemory

MIN_ROUNDS = 3
MAX_ROUNDS = 30

# Shorter calls are timed in batches of this length: ten thousand times the clock's resolution, and
# many times what the first call of a turn pays for caches that the others have filled.
BATCH_SECONDS = 2e-3
_MAX_CALLS = 1000
_ESTIMATES = 5


class Timing(NamedTuple):
    """Seconds of a call."""

    median: float
    first_quartile: float
    third_quartile: float
    rounds: int
    peak_bytes: int
    calls: int = 1  # per round


def seconds_of(run: Callable[[], object], calls: int = 1) -> float:
    """Seconds per call by the clock; results are freed inside, as a training step would."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def peak_bytes(run: Callable[[], object]) -> tuple[int, float]:
    """The memory a call adds at its peak, and its seconds; the call must have run before."""
    with PeakMemory() as memory:
        seconds = seconds_of(run)
    return memory.added, seconds


def calls_for(run: Callable[[], object], seconds: float) -> tuple[int, float]:
    """How many calls make a round, and the seconds of one call.

    Args:
        run: The call.
        seconds: What one took; a short one is timed again, since that one paid for fresh pages.
    """
    if seconds >= BATCH_SECONDS:
        return 1, seconds
    seconds = max(min(seconds_of(run) for _ in range(_ESTIMATES)), 1e-9)
    return min(math.ceil(BATCH_SECONDS / seconds), _MAX_CALLS), seconds


def rounds_for(seconds: float, budget: float) -> int:
    """Thirty rounds of short work, as many as fit of longer work, three at least.

    One of work that takes more than the whole budget: its median decides nothing.
    """
    if seconds > budget:
        return 1
    return min(MAX_ROUNDS, max(MIN_ROUNDS, int(budget / max(seconds, 1e-9))))


class Clock(Protocol):
    """How the time and the memory of calls are told: the three functions above, of a device."""

    def peak_bytes(self, run: Callable[[], object]) -> tuple[int, float]: ...

    def calls_for(self, run: Callable[[], object], seconds: float) -> tuple[int, float]: ...

    def seconds_of(self, run: Callable[[], object], calls: int = 1) -> float: ...


class HostClock:
    """The processor's."""

    def peak_bytes(self, run: Callable[[], object]) -> tuple[int, float]:
        return peak_bytes(run)

    def calls_for(self, run: Callable[[], object], seconds: float) -> tuple[int, float]:
        return calls_for(run, seconds)

    def seconds_of(self, run: Callable[[], object], calls: int = 1) -> float:
        return seconds_of(run, calls)


HOST = HostClock()


def time_in_turns(
    runs: Mapping[str, Callable[[], object]],
    seconds: float,
    max_rounds: int = MAX_ROUNDS,
    clock: Clock = HOST,
    warm_ups: Mapping[str, tuple[int, float]] | None = None,
) -> dict[str, Timing]:
    """Time calls in rounds, A B C A B C, after a warm-up of each.

    Each has an equal share of `seconds`; the slow ones take part in fewer rounds, spread evenly.
    One that takes longer than its share is not run again: its warm-up is its only round. A turn of
    short calls begins with one that does not count. The runs must have been called once before.

    Args:
        runs: The calls by name.
        seconds: For all of them.
        max_rounds: At most.
        clock: How they are timed.
        warm_ups: Peak bytes and seconds of calls that have had their warm-up.
    """
    peaks, calls, counts = {}, {}, {}
    samples: dict[str, list[float]] = {name: [] for name in runs}
    warm_ups = warm_ups or {}
    for name, run in runs.items():
        peaks[name], warm = warm_ups.get(name) or clock.peak_bytes(run)
        calls[name], each = clock.calls_for(run, warm)
        counts[name] = min(rounds_for(calls[name] * each, seconds / len(runs)), max_rounds)
        if counts[name] == 1:
            samples[name].append(each)
    # Looking at a peak gave freed memory back.
    runs = {name: run for name, run in runs.items() if counts[name] > 1}
    for run in runs.values():
        run()
    total = max(counts.values(), default=0)
    gc.collect()
    gc.disable()
    try:
        for turn in range(total):
            for name, run in runs.items():
                if (turn + 1) * counts[name] // total > turn * counts[name] // total:
                    if calls[name] > 1:
                        run()
                    samples[name].append(clock.seconds_of(run, calls[name]))
    finally:
        gc.enable()
    return {name: summarise(samples[name], peaks[name], calls[name]) for name in peaks}


def summarise(samples: Sequence[float], peak: int, calls: int = 1) -> Timing:
    """Median and quartiles."""
    if len(samples) < 2:
        return Timing(samples[0], samples[0], samples[0], len(samples), peak, calls)
    first, median, third = statistics.quantiles(samples, n=4, method="inclusive")
    return Timing(median, first, third, len(samples), peak, calls)
