"""Checkpoints of a training on ranks: whole or not there, and for any number of ranks."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from gnnkern.distributed.files import check_entry, entry_of, sync_folder, write_whole
from gnnkern.distributed.packing import pack, unpack
from gnnkern.distributed.training import PartTraining
from gnnkern.distributed.waiting import waiting_for
from gnnkern.progress import Epoch, Report

__all__ = ["Checkpoints"]

FORMAT_VERSION = 1
_FORMAT = "gnnkern checkpoint"
_MANIFEST = "manifest.json"
# What of a training's state belongs to one rank and its part.
_OF_RANK = ("schedule", "records", "rng")
_KEPT = 2

T = TypeVar("T")


class Checkpoints:
    """A folder with the last two checkpoints of one training.

    A checkpoint is a folder `step-00000120`, written by `torch.distributed.checkpoint` under
    another name and renamed when all ranks' files, and a manifest with their sizes and digests,
    are on the disk: what has the name is whole. Its tensors are the weights, the optimizer's state
    and, for each rank, the halo rows in use and the state of torch's generator.

    Every rank makes one, and calls it alike; the folder is one that all of them see.

    Args:
        folder: Where.
        training: Whose state.
        settings: What the training was asked for, as JSON has it; one that goes on must have been
            asked for the same, but for "epochs".
        every: Epochs from one checkpoint to the next; the last epoch has one in any case.

    Safety: `torch.distributed.checkpoint` keeps its index in a pickle: load none that you do not
    trust.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        training: PartTraining,
        settings: Mapping[str, Any],
        *,
        every: int = 10,
    ) -> None:
        if every < 1:
            raise ValueError(f"checkpoint: every must be >= 1, got {every}")
        self.folder, self.training, self.every = Path(folder), training, every
        # As it will be read back.
        self.settings: dict[str, Any] = json.loads(json.dumps(dict(settings)))
        plan = training.graph.exact.plan
        self._group = training.graph.exact.group
        self._rank, self._world = plan.rank, plan.hierarchy.size
        self._partition = plan.fingerprint

    def after_epoch(self, report: Report) -> Report:
        """A report that makes a checkpoint where one is due, after another."""

        def report_and_save(epoch: Epoch) -> bool | None:
            asked = report(epoch)
            if epoch.epoch % self.every == 0 or epoch.epoch == epoch.epochs:
                self.save()
            return asked

        return report_and_save

    # -- writing -----------------------------------------------------------------------------------

    def save(self) -> Path:
        """Write a checkpoint of the training as it is now; older ones but the last are removed.

        Raises:
            OSError: on every rank, where one of them cannot write. Earlier checkpoints are whole.
        """
        step = len(self.training.losses)
        final = self.folder / f"step-{step:08d}"
        beside = self.folder / f".step-{step:08d}.tmp"
        try:
            self._on_first(lambda: _clean(self.folder, beside))
            self._together(lambda: self._write(beside))
            files = self._together(
                lambda: [entry_of(path) for path in sorted(beside.glob(f"__{self._rank}_*"))]
            )
            entries = [entry for of_rank in files for entry in of_rank]
            self._on_first(lambda: self._publish(beside, final, step, entries))
        except OSError as error:
            if self._rank == 0:
                shutil.rmtree(beside, ignore_errors=True)
            raise OSError(f"checkpoint of step {step}: {error}; earlier ones are whole") from error
        return final

    def _write(self, place: Path) -> None:
        from torch.distributed.checkpoint.filesystem import FileSystemWriter
        from torch.distributed.checkpoint.state_dict_saver import save

        state = self.training.state_dict()
        tensors = pack({key: state.pop(key) for key in _OF_RANK}, f"rank{self._rank}")
        if self._rank == 0:
            tensors |= pack(state, "shared")
        with _plain_errors(), waiting_for("checkpoint", self._group):
            save(
                tensors,
                storage_writer=FileSystemWriter(place),
                process_group=self._group,
                no_dist=self.training.graph.exact.is_alone,
            )

    def _publish(self, beside: Path, final: Path, step: int, entries: list[dict[str, Any]]) -> None:
        content = {
            "format": _FORMAT,
            "version": FORMAT_VERSION,
            "step": step,
            "ranks": self._world,
            "partition": self._partition,
            "settings": self.settings,
            "files": [*entries, entry_of(beside / ".metadata")],
        }
        text = json.dumps(content, indent=1)
        write_whole(beside / _MANIFEST, lambda path: path.write_text(text + "\n"))
        if final.exists():
            _remove(final)
        beside.rename(final)
        sync_folder(self.folder)
        for old in _whole_ones(self.folder)[:-_KEPT]:
            _remove(old)

    # -- reading -----------------------------------------------------------------------------------

    def resume(self) -> str:
        """Go on from the newest checkpoint; where there is none, begin.

        With as many ranks and the same partition, everything is as it was, bit for bit. Otherwise
        weights, optimizer and record are, and the halo rows are not used: the next step exchanges.

        Returns:
            What was found, for a log; the same on every rank.

        Raises:
            ValueError: the newest checkpoint is torn, or of a training with other settings.
        """
        name = self._on_first(lambda: [path.name for path in _whole_ones(self.folder)[-1:]])
        if not name:
            return f"{self.folder} has no whole checkpoint: beginning at epoch 1"
        place = self.folder / name[0]
        content = self._together(lambda: self._checked(place))[0]
        same = content["ranks"] == self._world and content["partition"] == self._partition
        self._together(lambda: self.training.load_state_dict(self._read(place, same)))
        found = f"{place}: going on at epoch {content['step'] + 1}"
        epochs, before = self.settings.get("epochs"), content["settings"].get("epochs")
        if epochs != before:
            found += f"; to epoch {epochs}, not {before}"
        if not same:
            found += (
                f"; it is of {content['ranks']} ranks and another partition: its halo rows are "
                "dropped, and the next step is exact"
            )
        return found

    def is_empty(self) -> bool:
        """Whether no whole checkpoint is there; the same on every rank."""
        return not self._on_first(lambda: bool(_whole_ones(self.folder)))

    def _checked(self, place: Path) -> dict[str, Any]:
        """The manifest; each rank looks at its share of the files."""
        try:
            content: dict[str, Any] = json.loads((place / _MANIFEST).read_text())
            form, version, theirs = (content[key] for key in ("format", "version", "settings"))
            entries = content["files"]
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{place}: not the manifest of a checkpoint ({error!r})") from error
        if (form, version) != (_FORMAT, FORMAT_VERSION):
            raise ValueError(
                f"{place}: {form} of version {version}, this gnnkern reads {_FORMAT} of version "
                f"{FORMAT_VERSION}"
            )
        names = sorted((theirs.keys() | self.settings.keys()) - {"epochs"})
        other = [name for name in names if theirs.get(name) != self.settings.get(name)]
        if other:
            listed = ", ".join(
                f"{name} {theirs.get(name)!r}, not {self.settings.get(name)!r}" for name in other
            )
            raise ValueError(f"{place}: the checkpoint is of another training: {listed}")
        for entry in entries[self._rank :: self._world]:
            path = place / entry["name"]
            if not path.is_file():
                raise ValueError(f"{path}: the file is missing: the checkpoint is torn")
            check_entry(path, entry)
        return content

    def _read(self, place: Path, with_rank: bool) -> dict[str, Any]:
        from torch.distributed.checkpoint.filesystem import FileSystemReader
        from torch.distributed.checkpoint.state_dict_loader import load

        reader = FileSystemReader(place)
        prefixes = ("shared", f"rank{self._rank}") if with_rank else ("shared",)
        tensors: dict[str, Tensor] = {
            name: torch.empty(of.size, dtype=of.properties.dtype)  # type: ignore[union-attr]
            for name, of in reader.read_metadata().state_dict_metadata.items()
            if name.startswith(tuple(f"{prefix}." for prefix in prefixes))
        }
        with _plain_errors():
            # Every rank reads what it needs: there is nothing to plan together.
            load(tensors, storage_reader=reader, no_dist=True)
        state: dict[str, Any] = {}
        for prefix in prefixes:
            state |= unpack(tensors, prefix)
        return state

    # -- between ranks -----------------------------------------------------------------------------

    def _together(self, work: Callable[[], T]) -> list[T]:
        """What each rank's work returned, on every rank; the first error is raised on all.

        Raises:
            OSError: a rank could not read or write.
            ValueError: what a rank read is not what it should be.
        """
        error: Exception | None = None
        value: T | None = None
        try:
            value = work()
        except (OSError, ValueError) as caught:
            error = caught
        if self.training.graph.exact.is_alone:
            if error is not None:
                raise error
            return [value]  # type: ignore[list-item]
        mine = (value, None if error is None else (isinstance(error, OSError), str(error)))
        found: list[Any] = [None] * self._world
        with waiting_for("agreement on a checkpoint", self._group):
            dist.all_gather_object(found, mine, group=self._group)
        for rank, (_, failure) in enumerate(found):
            if failure is not None:
                kind = OSError if failure[0] else ValueError
                raise kind(f"rank {rank}: {failure[1]}") from error
        return [value for value, _ in found]

    def _on_first(self, work: Callable[[], T]) -> T:
        """What the first rank's work returned, on every rank; its error is raised on all."""
        return self._together(lambda: work() if self._rank == 0 else None)[0]  # type: ignore[return-value]


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """Raise what `torch.distributed.checkpoint` found as an OSError; every rank has it of all."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            yield
    except CheckpointException as error:
        found = [f"rank {rank}: {each[0]}" for rank, each in sorted(error.failures.items())]
        raise OSError("; ".join(found)) from error


def _whole_ones(folder: Path) -> list[Path]:
    """Whole checkpoints, the newest last."""
    return sorted(place for place in folder.glob("step-*") if (place / _MANIFEST).is_file())


def _remove(place: Path) -> None:
    """Remove a checkpoint; from the first moment on it is none."""
    (place / _MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(place)


def _clean(folder: Path, beside: Path) -> None:
    """Make the folder, without what a rank that died left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".step-*.tmp"):
        shutil.rmtree(left)
    beside.mkdir()
