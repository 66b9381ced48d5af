"""`StepRecord`: what a step of a training exchanged, and how far rows had moved."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gnnkern.distributed.graph import PartitionedGraph
from gnnkern.distributed.hierarchy import LEVELS

__all__ = ["StepRecord", "over_ranks", "summary"]


@dataclass(frozen=True)
class StepRecord:
    """One step of a `Schedule`, of one rank or of all.

    Attributes:
        step: Its number, from 0.
        exchanges: Exchanges that this rank took part in, forward and backward: all take part in
            the same ones.
        rows: Rows sent, by kind of link, forward and backward.
        bytes: Bytes sent, likewise, with those that say which rows come.
        moved: Square of the norm of the difference between the rows that were up for exchange and
            what their receivers held of them; 0 where nobody measures.
        size: Square of the norm of what their receivers held.
    """

    step: int
    exchanges: int
    rows: dict[str, int]
    bytes: dict[str, int]
    moved: float = 0.0
    size: float = 0.0

    @property
    def exchanged(self) -> bool:
        """Whether the step exchanged anything."""
        return self.exchanges > 0

    @property
    def drift(self) -> float | None:
        """How far rows had moved, relative to their norm; None where nothing was measured."""
        return math.sqrt(self.moved / self.size) if self.size > 0.0 else None

    def to_dict(self) -> dict[str, Any]:
        """What a line of a log says, ready for JSON."""
        return {
            "step": self.step,
            "exchanged": self.exchanged,
            "exchanges": self.exchanges,
            "rows": self.rows,
            "bytes": self.bytes,
            "drift": self.drift,
        }

    def numbers(self) -> list[float]:
        """All of it as numbers, for sums and checkpoints."""
        by_level = [float(counts[level]) for counts in (self.rows, self.bytes) for level in LEVELS]
        return [float(self.step), float(self.exchanges), *by_level, self.moved, self.size]

    @classmethod
    def from_numbers(cls, numbers: Sequence[float]) -> StepRecord:
        """The record that `numbers` made."""
        step, exchanges, *counts, moved, size = numbers
        rows, sent = (
            {level: int(count) for level, count in zip(LEVELS, part, strict=True)}
            for part in (counts[: len(LEVELS)], counts[len(LEVELS) :])
        )
        return cls(int(step), int(exchanges), rows, sent, moved, size)


def over_ranks(graph: PartitionedGraph, records: Sequence[StepRecord]) -> list[StepRecord]:
    """The records of the same steps summed over the ranks, on all of them; one reduction."""
    if not records:
        return []
    numbers = torch.tensor([each.numbers() for each in records], dtype=torch.float64)
    # Steps and exchanges are every rank's.
    shared: Tensor = numbers[:, :2].clone()
    numbers = graph.sum_over_ranks(numbers.to(graph.device)).cpu()
    numbers[:, :2] = shared
    return [StepRecord.from_numbers(row) for row in numbers.tolist()]


def summary(records: Sequence[StepRecord]) -> dict[str, Any]:
    """Totals of a training, ready for JSON.

    Returns:
        "steps", "exchanged" (how many of them exchanged), "rows" and "bytes" by kind of link,
        "drift" (of the steps where it was measured: median and largest; None without one).
    """
    drifts = [each.drift for each in records if each.drift is not None]
    return {
        "steps": len(records),
        "exchanged": sum(each.exchanged for each in records),
        "rows": {level: sum(each.rows[level] for each in records) for level in LEVELS},
        "bytes": {level: sum(each.bytes[level] for each in records) for level in LEVELS},
        "drift": {"median": statistics.median(drifts), "largest": max(drifts)} if drifts else None,
    }
