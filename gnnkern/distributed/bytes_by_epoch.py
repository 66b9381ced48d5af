"""`BytesByEpoch`: what all ranks sent in each epoch, by kind of link."""

from __future__ import annotations

import torch

from gnnkern.distributed.graph import PartitionedGraph
from gnnkern.distributed.hierarchy import LEVELS
from gnnkern.progress import Epoch, Report

__all__ = ["BytesByEpoch"]


class BytesByEpoch:
    """Notes after each epoch what this rank has sent; summed over ranks once, at the end."""

    def __init__(self, graph: PartitionedGraph) -> None:
        self._graph = graph
        self._sent: list[list[int]] = []

    def after_epoch(self, report: Report) -> Report:
        """A report that notes it before another."""

        def note_and_report(epoch: Epoch) -> bool | None:
            self._sent.append([self._graph.traffic.bytes[level] for level in LEVELS])
            return report(epoch)

        return note_and_report

    def of_all_ranks(self) -> dict[str, list[int]]:
        """Bytes of each epoch with its evaluation, by kind of link; every rank calls it."""
        sent = torch.tensor(self._sent, dtype=torch.int64).view(-1, len(LEVELS))  # [epochs, 3]
        sent = self._graph.sum_over_ranks(sent.diff(dim=0, prepend=torch.zeros_like(sent[:1])))
        return dict(zip(LEVELS, sent.T.tolist(), strict=True))
