"""What the operating system says about this machine."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path

__all__ = ["cache_sizes", "cpu_model", "memory_bytes", "usable_cores"]

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def cpu_model() -> str:
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int:
    """Memory of the machine, or of the control group where that is less."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # "max", or no such file: no limit.
    with contextlib.suppress(OSError, ValueError):
        size = min(size, int(_CGROUP_MEMORY.read_text()))
    return size


def cache_sizes() -> dict[str, int]:
    """The first core's caches in bytes, e.g. {"L1d": 32768, "L2": 1048576, "L3": 33554432}."""
    caches = {}
    for index in sorted(_CACHES.glob("index*")):
        try:
            level, kind, size = (
                (index / name).read_text().strip() for name in ("level", "type", "size")
            )
            suffix = {"Data": "d", "Instruction": "i"}.get(kind, "")
            caches[f"L{level}{suffix}"] = int(size[:-1]) * _UNITS[size[-1]]
        except (OSError, ValueError, KeyError, IndexError):
            continue
    return caches
