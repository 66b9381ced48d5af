"""What a patch did: calls that ran on gnnkern's kernels, and the others with their reasons."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

__all__ = ["PygReport", "accelerated", "left", "pyg_report", "reset"]


@dataclass(frozen=True)
class PygReport:
    """Counts since the last `patch_pyg`.

    Attributes:
        accelerated: Calls on gnnkern's kernels, by what was called.
        left: Calls left to PyG, by what was called and why.
        graphs: What the graph cache did: "hit", "built", "stale", "dropped".
    """

    accelerated: dict[str, int] = field(default_factory=dict)
    left: dict[tuple[str, str], int] = field(default_factory=dict)
    graphs: dict[str, int] = field(default_factory=dict)

    @property
    def num_accelerated(self) -> int:
        """All calls on gnnkern's kernels."""
        return sum(self.accelerated.values())

    def __str__(self) -> str:
        """A table, most frequent first."""
        lines = [f"{self.num_accelerated} calls on gnnkern's kernels"]
        lines += [f"  {count:6}  {what}" for what, count in _sorted(self.accelerated)]
        lines.append(f"{sum(self.left.values())} calls left to PyG")
        lines += [f"  {count:6}  {what}: {why}" for (what, why), count in _sorted(self.left)]
        graphs = ", ".join(f"{count} {what}" for what, count in _sorted(self.graphs))
        return "\n".join([*lines, f"graphs: {graphs or 'none'}"])


def _sorted(counts: dict) -> list:  # type: ignore[type-arg]
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


_lock = threading.Lock()
_accelerated: Counter[str] = Counter()
_left: Counter[tuple[str, str]] = Counter()
_graphs: Counter[str] = Counter()


def accelerated(what: str) -> None:
    """Count a call on gnnkern's kernels."""
    with _lock:
        _accelerated[what] += 1


def left(what: str, why: str) -> None:
    """Count a call left to PyG."""
    with _lock:
        _left[what, why] += 1


def graph(what: str) -> None:
    """Count what the graph cache did."""
    with _lock:
        _graphs[what] += 1


def reset() -> None:
    """Count from 0."""
    with _lock:
        _accelerated.clear()
        _left.clear()
        _graphs.clear()


def pyg_report() -> PygReport:
    """What the patches of PyG did since `patch_pyg`: `print(gnnkern.pyg_report())`."""
    with _lock:
        return PygReport(dict(_accelerated), dict(_left), dict(_graphs))
