"""Where the patches are in force: everywhere, or inside of the models that were accelerated."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["enter", "in_force", "is_everywhere", "leave", "paused", "set_everywhere"]


class _Depth(threading.local):
    """How many accelerated models are running in this thread, one inside the other."""

    value = 0
    # Whether PyG is to run as it is.
    is_paused = False


_depth = _Depth()
_everywhere = False


def in_force() -> bool:
    """Whether a patched function is to do anything."""
    return (_everywhere or _depth.value > 0) and not _depth.is_paused


def is_everywhere() -> bool:
    """Whether patches hold outside of accelerated models."""
    return _everywhere


def set_everywhere(value: bool) -> None:
    """Set `is_everywhere`."""
    global _everywhere
    _everywhere = value


def enter() -> None:
    """An accelerated model begins."""
    _depth.value += 1


def leave() -> None:
    """An accelerated model ends."""
    _depth.value = max(_depth.value - 1, 0)


@contextmanager
def paused() -> Iterator[None]:
    """PyG as it is inside of a block, in this thread."""
    before, _depth.is_paused = _depth.is_paused, True
    try:
        yield
    finally:
        _depth.is_paused = before
