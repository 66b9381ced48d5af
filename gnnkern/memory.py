"""How much memory a stretch of work adds at its peak."""

import contextlib
import ctypes
import resource
import sys
from pathlib import Path
from types import TracebackType

import torch

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"

# Parameters of glibc's mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Have the C library keep freed memory for the next allocation; return whether it does.

    By default glibc gives every block above 32 MB back to the operating system, and the next one
    of that size pays for its pages again: on the virtual machine this was measured on, 22 ms for
    the 87 MB result of a sum that itself takes 30, and five times as much where the host had
    taken the pages back meanwhile. It holds for the whole process and cannot be undone; resident
    memory stays at its peak. An allocator such as jemalloc does the same.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        return bool(libc.mallopt(_M_MMAP_MAX, 0) and libc.mallopt(_M_TRIM_THRESHOLD, -1))
    return False


def give_back_freed_memory() -> None:
    """Hand free pages to the operating system, where the C library is glibc; others keep theirs."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class PeakMemory:
    """Context manager: `added` is the peak inside it minus what was in use at its start, in bytes.

    On a GPU it counts what torch's allocator handed out. On Linux it counts resident pages, with
    the kernel's high-water mark reset at the start and freed pages given back first; a process
    that has yet to load code for the work counts those pages too, so warm up first. Elsewhere it
    is the growth of the process's all-time peak, which is 0 while it stays below an earlier one.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.added = 0

    def __enter__(self) -> "PeakMemory":
        """Note what is in use now."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._start = torch.cuda.memory_allocated(self.device)
            return self
        self._can_reset = _reset_peak()
        self._start = _status_bytes("VmRSS") if self._can_reset else _lifetime_peak()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Set `added`."""
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
        else:
            peak = _status_bytes("VmHWM") if self._can_reset else _lifetime_peak()
        self.added = max(peak - self._start, 0)


def _reset_peak() -> bool:
    """Give freed pages back and reset the high-water mark; return whether that was possible."""
    give_back_freed_memory()
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def _status_bytes(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{_STATUS}: no field {field}")


def _lifetime_peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
