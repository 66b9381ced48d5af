"""What this machine's memory does: copies, and gathers of rows from the last-level cache."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F

from gnnkern.info import collect

_COPIED_BYTES = 1 << 28
_GATHERED_BYTES = 1 << 28
_GATHERED_ROWS = 1 << 22
# Rows summed per output row: what is written is then a thirty-second of what is read.
_BAG = 32
_REPEATS = 7
_DEFAULT_CACHE = 32 << 20


@lru_cache
def copy_bandwidth() -> float:
    """Bytes read and written per second by a large copy."""
    source = torch.ones(_COPIED_BYTES // 4)
    target = torch.empty_like(source)
    return 2 * _COPIED_BYTES / _median_seconds(lambda: target.copy_(source))


@lru_cache
def gather_bandwidth(width: int) -> float:
    """Bytes of rows [width] float32 per second, gathered at random from a quarter of the cache."""
    rows = max(cache_bytes() // 4 // (width * 4), 1)
    count = min(_GATHERED_BYTES // (width * 4), _GATHERED_ROWS) // _BAG * _BAG
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(rows, (count,), generator=generator, dtype=torch.int32)
    bags = index.view(-1, _BAG)
    table = torch.ones(rows, width)
    with torch.no_grad():
        seconds = _median_seconds(lambda: F.embedding_bag(bags, table, mode="sum"))
    return count * width * 4 / seconds


def cache_bytes() -> int:
    """The size of the largest cache, in bytes."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    sizes = [
        int(size[:-1]) * units[size[-1]]
        for size in collect()["machine"]["caches"].values()
        if size[-1] in units
    ]
    return max(sizes, default=_DEFAULT_CACHE)


def _median_seconds(run: Callable[[], object]) -> float:
    run()
    seconds = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
