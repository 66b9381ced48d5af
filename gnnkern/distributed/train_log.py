"""What a training exchanged: a line of JSON per epoch in a file, and words at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gnnkern.distributed.record import over_ranks
from gnnkern.distributed.training import PartTraining
from gnnkern.progress import Epoch

__all__ = ["EpochLog", "in_words"]


class EpochLog:
    """Writes each epoch of a training as it ends, summed over the ranks.

    Every rank calls it after every epoch; one reduction of ten numbers. Lines have the epoch,
    loss, validation score and seconds of the epoch (forward, backward and step of this rank), and
    what `StepRecord.to_dict` says.

    Args:
        training: Of which epochs are logged.
        path: The file, written anew, and gone on with where the training was resumed; None on
            ranks that do not write.
    """

    def __init__(self, training: PartTraining, path: Path | None) -> None:
        self._training = training
        mode = "a" if training.losses else "w"
        self._file = None if path is None else path.open(mode, encoding="utf-8")

    def __call__(self, epoch: Epoch) -> None:
        """Write the epoch that has just ended."""
        training = self._training
        (record,) = over_ranks(training.graph, training.records[-1:])
        if self._file is None:
            return
        line = {
            "epoch": epoch.epoch,
            "loss": epoch.loss,
            "val": epoch.val,
            "seconds": training.epoch_seconds[-1],
        }
        # A line is whole or missing, also after a crash of the process.
        self._file.write(json.dumps(line | record.to_dict()) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def in_words(totals: dict[str, Any]) -> str:
    """The totals of `summary` in words."""
    links = [
        f"{level} {sent / 2**20:.2f} MiB in {totals['rows'][level]:,} rows"
        for level, sent in totals["bytes"].items()
        if sent
    ]
    said = f"{totals['exchanged']} of {totals['steps']} epochs exchanged rows: "
    said += "; ".join(links) or "none to send"
    drift = totals["drift"]
    if drift is not None:
        said += f"; moved by {drift['median']:.2g} (median), {drift['largest']:.2g} at most"
    return said
