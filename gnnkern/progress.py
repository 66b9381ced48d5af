"""Progress of trainings and measurements: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

# The plain lines of `steps_progress` need no rich.
if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

# Lines per training where the output is not a terminal.
_PLAIN_LINES = 4
_LONG_SECONDS = 10.0


class Epoch(NamedTuple):
    """Where a training stands."""

    epoch: int  # from 1
    epochs: int
    loss: float
    val: float


# Called after each epoch; True stops the training.
Report = Callable[[Epoch], bool | None]


@contextlib.contextmanager
def training_progress(title: str, *, enabled: bool = True) -> Iterator[Report]:
    """Yield a function to call after each epoch; it shows the progress on standard error."""
    if not enabled:
        yield lambda epoch: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield _SparseLines(console, title)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None, state="")

        def show(epoch: Epoch) -> None:
            bar.update(task, completed=epoch.epoch, total=epoch.epochs, state=_state(epoch))

        yield show


@contextlib.contextmanager
def step_progress(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """Yield a function of (steps done, all steps, what comes) that shows a bar on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield lambda done, steps, what: None
        return
    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[at]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None, at="")
        yield lambda done, steps, what: bar.update(task, completed=done, total=steps, at=what)


class _SparseLines:
    """Prints a few lines per training, and one where nothing was said for long."""

    def __init__(self, console: Console, title: str) -> None:
        self._console, self._title = console, title
        self._said = time.monotonic()

    def __call__(self, epoch: Epoch) -> None:
        step = max(epoch.epochs // _PLAIN_LINES, 1)
        quiet = time.monotonic() - self._said > _LONG_SECONDS
        if epoch.epoch % step == 0 or epoch.epoch == epoch.epochs or quiet:
            line = f"{self._title}: epoch {epoch.epoch}/{epoch.epochs}, {_state(epoch)}"
            self._console.print(line, highlight=False, soft_wrap=True)
            self._said = time.monotonic()


class Steps(Protocol):
    """The steps of a long piece of work."""

    def begin(self, what: str) -> None:
        """Say what the next step is."""

    def end(self, result: str) -> None:
        """Say what came of it."""


@contextlib.contextmanager
def steps_progress(title: str, total: int, *, enabled: bool = True) -> Iterator[Steps]:
    """Yield what to tell of each step; a line per step stays on standard error."""
    if not enabled:
        yield _Lines(lambda line: None, total)
        return
    if not sys.stderr.isatty():
        yield _Lines(lambda line: print(line, file=sys.stderr, flush=True), total)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(file=sys.stderr)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, console=console) as bar:
        yield _Bar(bar, title, total)


class _Lines:
    """One line per step, once it is done."""

    def __init__(self, say: Callable[[str], object], total: int) -> None:
        self._say, self._total = say, total
        self._step, self._what = 0, ""

    def begin(self, what: str) -> None:
        self._step, self._what = self._step + 1, what

    def end(self, result: str) -> None:
        self._say(f"{self._step}/{self._total} {self._what}: {result}")


class _Bar(_Lines):
    """The same above a bar."""

    def __init__(self, bar: Progress, title: str, total: int) -> None:
        super().__init__(
            lambda line: bar.console.print(line, highlight=False, markup=False, soft_wrap=True),
            total,
        )
        self._bar = bar
        self._task = bar.add_task(title, total=total, state="")

    def begin(self, what: str) -> None:
        super().begin(what)
        self._bar.update(self._task, state=what)

    def end(self, result: str) -> None:
        super().end(result)
        self._bar.advance(self._task)


def _state(epoch: Epoch) -> str:
    return f"loss {epoch.loss:.4f}, validation {epoch.val:.4f}"
