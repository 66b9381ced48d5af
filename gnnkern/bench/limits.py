"""What a measured time is held against: bytes by the cost model, bandwidths of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from gnnkern.bench.bandwidth import cache_bytes, copy_bandwidth, gather_bandwidth
from gnnkern.bench.cost import cost, floor
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
    moved = cost(problem, direction)
    # Rows of another type are gathered like float32 rows of as many bytes.
    width = max(problem.width * problem.dtype.itemsize // _FLOAT32, 1)
    limits = floor(moved, width)
    return Limits(
        moved.compulsory,
        moved.gathered,
        moved.moved,
        {"T_comp": limits.compulsory, "T_gather": limits.gather, "T_cache": limits.cache},
        limits.least,
        copy_bandwidth(),
    )


def machine_limits(widths: Sequence[int]) -> dict[str, Any]:
    """The bandwidths as fields of a file of results; gathers by width of float32 rows."""
    return {
        "copy_gb_per_s": copy_bandwidth() / 1e9,
        "gather_gb_per_s": {str(width): gather_bandwidth(width) / 1e9 for width in widths},
    }


def memory_line(limits: dict[str, Any]) -> str:
    """The same as a line for people."""
    gathers = ", ".join(
        f"{rate:.1f} at width {width}" for width, rate in limits["gather_gb_per_s"].items()
    )
    return (
        f"memory: copies at {limits['copy_gb_per_s']:.1f} GB/s (read + written), gathers float32 "
        f"rows from a quarter of its {cache_bytes() >> 20} MB cache at {gathers} GB/s"
    )
