"""The demo: a GCN and a GAT on real graphs, by gnnkern and by plain torch, side by side."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from gnnkern.data import load
from gnnkern.measure import MeasuredTraining
from gnnkern.progress import training_progress
from gnnkern.train import TrainResult, check_trainable

MODELS = ("gcn", "gat")

# Pairs that run out of time have at least this many epochs to take a median of.
_MIN_EPOCHS = 3

# One turn of both paths: long enough for caches to warm again, short beside other work's changes.
_ROUND_SECONDS = 0.5


class Comparison(NamedTuple):
    """The same training by both paths, each in a process of its own."""

    fast: TrainResult
    plain: TrainResult

    @property
    def speedup(self) -> float:
        """How many times longer an epoch of the plain path takes, by medians."""
        return self.plain.epoch_median / self.fast.epoch_median


def run_demo(
    sources: Sequence[str],
    *,
    epochs: int | None = None,
    seed: int = 0,
    seconds: float = 210.0,
) -> list[Comparison]:
    """Train each model on each source by both paths and return the pairs.

    Both trainings of a pair take turns of a few epochs each and train for the same number.

    Args:
        sources: What `gnnkern.data.load` takes.
        epochs: Epochs of each training; the recipe's by default.
        seed: Seed of every training.
        seconds: Time limit. Each pair gets an equal share of what is left and then stops early.
    """
    deadline = time.perf_counter() + seconds
    for source in sources:
        check_trainable(load(source))
    pairs = [(source, model) for source in sources for model in MODELS]
    comparisons = []
    for done, (source, model) in enumerate(pairs):
        share = (deadline - time.perf_counter()) / (len(pairs) - done)
        comparisons.append(_compare(source, model, epochs, seed, time.perf_counter() + share))
    return comparisons


def _compare(source: str, model: str, epochs: int | None, seed: int, deadline: float) -> Comparison:
    name = source if source.isidentifier() else Path(source).stem
    options = {"epochs": epochs, "seed": seed}
    with (
        training_progress(f"{name} {model.upper()}") as report,
        MeasuredTraining(source, model, plain=False, **options) as fast,
        MeasuredTraining(source, model, plain=True, **options) as plain,
    ):
        for training in (fast, plain):
            training.wait_until_ready()
        epoch = 0
        step = 1
        more = True
        while more and (epoch < _MIN_EPOCHS or time.perf_counter() < deadline):
            epoch += step
            start = time.perf_counter()
            fast.advance(epoch)
            more = plain.advance(epoch, report)
            seconds_each = (time.perf_counter() - start) / step
            step = max(1, min(int(_ROUND_SECONDS / seconds_each), 2 * step))
        return Comparison(fast.stop(), plain.stop())


def print_table(comparisons: Sequence[Comparison], console: Console) -> None:
    """Print a row per training, and what the columns mean."""
    table = Table(
        title="gnnkern beside plain torch: the same network, seed and threads",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("graph")
    table.add_column("model")
    table.add_column("path")
    for heading in ("test", "ms / epoch", "IQR", "peak MiB", "epochs", "speed-up"):
        table.add_column(heading, justify="right")
    for comparison in comparisons:
        for result in comparison:
            fast = result is comparison.fast
            table.add_row(
                result.data if fast else "",
                result.model.upper() if fast else "",
                "gnnkern" if fast else "torch",
                f"{100 * result.test:.1f} %",
                f"{1e3 * result.epoch_median:.2f}",
                f"{1e3 * result.epoch_iqr:.2f}",
                f"{result.peak_memory / 2**20:.1f}",
                f"{result.epochs}{' *' if result.stopped == 'asked' else ''}",
                f"{comparison.speedup:.2f} x" if fast else "",
                end_section=not fast,
            )
    console.print(table)
    results = [result for comparison in comparisons for result in comparison]
    metrics = {result.data: result.metric for result in results}
    scores = ", ".join(f"{metric} on {data}" for data, metric in metrics.items())
    notes = [
        f"test: {scores}, at the epoch that was best on the validation nodes",
        "ms / epoch: median of forward, backward and step, evaluation apart; IQR: distance of its "
        f"quartiles; {results[0].threads} threads",
        "peak MiB: memory added by preparing and training, each training in a fresh process",
        "both trainings of a pair take turns of a few epochs, for the same number of epochs",
    ]
    if any(result.stopped == "asked" for result in results):
        notes.append("*: stopped at the pair's share of the time limit; more with --seconds")
    for note in notes:
        console.print(note, style="dim", highlight=False)
