"""What a measured time is held against: bytes by the cost model, the probe of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from gnnkern.bench import cost as costs
from gnnkern.bench import report
from gnnkern.bench.problems import Problem

_FLOAT32 = 4


class Limits(NamedTuple):
    """The bytes of a problem in a direction, and the seconds that they take at least."""

    compulsory_bytes: int
    gathered_bytes: int
    moved_bytes: int  # what an achieved bandwidth is quoted against
    floors: dict[str, float]  # seconds by name
    least: float  # seconds
    copy_bytes_per_second: float


def limits_of(problem: Problem, direction: str) -> Limits:
    """The cost of a problem, and its floors on this machine."""
    moved = costs.cost(problem, direction)
    least = costs.limits(problem, moved)
    return Limits(
        moved.compulsory_bytes,
        moved.gathered_bytes,
        moved.moved_bytes,
        {
            "T_comp": least.compulsory_s,
            "T_gather": least.gather_s,
            "T_cache": least.cache_s,
            "T_compute": least.compute_s,
        },
        least.floor_s,
        costs.machine(str(problem.device)).copy_bandwidth(),
    )


def machine_limits(device: str) -> dict[str, Any]:
    """What the probe measured, as a field of a file of results."""
    return {"probe": costs.machine(device).to_dict()}


def memory_line(widths: Sequence[int], device: str) -> str:
    """What it measured of memory, for float32 rows of these widths, as a line for people."""
    return report.memory_line(costs.machine(device), [_FLOAT32 * width for width in widths])
