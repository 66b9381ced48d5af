"""Which backend for GPUs comes first for an op, where both can run it, and how that is known.

A row is written by hand from a bench that ran both on one device, in one run:
`python -m bench.gpu` leaves the times. Ops without a row have not been measured; Triton comes first
for them.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Measured", "first_on_gpu", "why_first"]


class Measured(NamedTuple):
    """One comparison of the two backends for an op."""

    first: str  # "triton" or "cuda"
    ratio: float  # the other's time over that of the first, geometric mean over the bench's cases
    device: str
    versions: str  # of torch, Triton and CUDA
    commit: str
    command: str


# By op; nothing has been measured on a device yet.
MEASURED: dict[str, Measured] = {}

UNMEASURED_FIRST = "triton"


def first_on_gpu(op: str) -> str:
    """The backend that comes first for an op on a GPU."""
    return MEASURED[op].first if op in MEASURED else UNMEASURED_FIRST


def why_first(op: str) -> str:
    """How it is known which comes first."""
    if op not in MEASURED:
        return f"Triton and CUDA not measured against each other for {op}: Triton first"
    row = MEASURED[op]
    return (
        f"{row.first} was {row.ratio:.2f} times as fast for {op} on {row.device} "
        f"({row.versions}, commit {row.commit}, {row.command})"
    )
