"""How calls are timed on a GPU: by CUDA events around each, with nothing of it in the L2 cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

from gnnkern.bench.timing import BATCH_SECONDS
from gnnkern.memory import PeakMemory

_ESTIMATES = 5
# Written before each call, in sizes of the L2 cache and at least so many bytes.
_FLUSH_CACHES = 2
_FLUSH_BYTES = 256 << 20
# Then the device waits for about half a millisecond, in which the processor enqueues the call: as
# in a training on large graphs, where it runs ahead, the time is the device's and not Python's.
_HEAD_START_CYCLES = 1_000_000


class Event(Protocol):
    """What of `torch.cuda.Event` is used."""

    def record(self) -> None: ...

    def synchronize(self) -> None: ...

    def elapsed_time(self, end_event: Any, /) -> Any: ...


class DeviceClock:
    """The clock of a CUDA device, on torch's current stream.

    Every call is timed alone: the cache is written over, an event recorded, the call made, an event
    recorded and waited for. The processor has a start of half a millisecond before the device; a
    call that keeps the device waiting beyond that is charged for it.

    Args:
        device: The CUDA device.
        new_event: Makes an event; by default one of CUDA that keeps time.
        flush: Replaces what lies in the cache and keeps the device busy for a while; by default a
            buffer of twice the cache's size is written.
    """

    def __init__(
        self,
        device: torch.device,
        new_event: Callable[[], Event] | None = None,
        flush: Callable[[], object] | None = None,
    ) -> None:
        self._device = device
        self._new_event = new_event or _cuda_event
        self._flush = flush or _flush_of(device)

    def seconds_of(self, run: Callable[[], object], calls: int = 1) -> float:
        """Seconds per call by the device's clock; results are freed inside."""
        milliseconds = 0.0
        for _ in range(calls):
            begin, end = self._new_event(), self._new_event()
            self._flush()
            begin.record()
            run()
            end.record()
            end.synchronize()
            milliseconds += float(begin.elapsed_time(end))
        return milliseconds / 1e3 / calls

    def peak_bytes(self, run: Callable[[], object]) -> tuple[int, float]:
        """The memory a call adds at its peak to what torch handed out before, and its seconds."""
        with PeakMemory(self._device) as memory:
            seconds = self.seconds_of(run)
        return memory.added, seconds

    def calls_for(self, run: Callable[[], object], seconds: float) -> tuple[int, float]:
        """One call makes a round; a short one is timed again for a better estimate."""
        if seconds >= BATCH_SECONDS:
            return 1, seconds
        return 1, max(min(self.seconds_of(run) for _ in range(_ESTIMATES)), 1e-9)


def _cuda_event() -> Event:
    return torch.cuda.Event(enable_timing=True)


def _flush_of(device: torch.device) -> Callable[[], object]:
    size = _FLUSH_CACHES * torch.cuda.get_device_properties(device).L2_cache_size
    buffer = torch.empty(max(size, _FLUSH_BYTES), dtype=torch.int8, device=device)

    def flush() -> None:
        buffer.zero_()
        torch.cuda._sleep(_HEAD_START_CYCLES)

    return flush
