"""The demo: a GCN and a GAT on real graphs, by gnnkern and by plain torch, side by side."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from gnnkern.data import load
from gnnkern.measure import measured_training
from gnnkern.progress import training_progress
from gnnkern.train import TrainResult, check_trainable

MODELS = ("gcn", "gat")


class Comparison(NamedTuple):
    """The same training by both paths, each in a fresh process."""

    fast: TrainResult
    plain: TrainResult

    @property
    def speedup(self) -> float:
        """How many times longer an epoch of the plain path takes, by medians."""
        return self.plain.epoch_median / self.fast.epoch_median


class Budget:
    """Shares what is left of a time limit among the trainings still to come."""

    def __init__(self, seconds: float, trainings: int) -> None:
        self._deadline = time.perf_counter() + seconds
        self._left = trainings
        self._overhead = 0.0

    def next_share(self) -> float:
        """Seconds the next training may take, its process's start-up apart."""
        remaining = self._deadline - time.perf_counter()
        share = remaining / max(self._left, 1) - self._overhead
        self._left -= 1
        return max(share, 1.0)

    def note_overhead(self, seconds: float) -> None:
        """Allow for the longest start-up so far."""
        self._overhead = max(self._overhead, seconds)


def run_demo(
    sources: Sequence[str],
    *,
    epochs: int | None = None,
    seed: int = 0,
    seconds: float = 240.0,
) -> list[Comparison]:
    """Train each model on each source by both paths and return the pairs.

    Args:
        sources: What `gnnkern.data.load` takes.
        epochs: Epochs of each training; the recipe's by default.
        seed: Seed of every training.
        seconds: Time limit for all trainings. Each gets an equal share of what is left; one that
            runs out stops early, and the plain path never trains for more epochs than gnnkern.
    """
    for source in sources:
        check_trainable(load(source))
    budget = Budget(seconds, 2 * len(sources) * len(MODELS))
    comparisons = []
    for source in sources:
        for model in MODELS:
            fast = _train(source, model, epochs, seed, budget, plain=False)
            plain = _train(source, model, fast.epochs, seed, budget, plain=True)
            comparisons.append(Comparison(fast, plain))
    return comparisons


def _train(
    source: str, model: str, epochs: int | None, seed: int, budget: Budget, *, plain: bool
) -> TrainResult:
    start = time.perf_counter()
    name = source if source.isidentifier() else Path(source).stem
    title = f"{name} {model.upper()} {'plain torch' if plain else 'gnnkern'}"
    with training_progress(title) as report:
        result = measured_training(
            source,
            model,
            epochs=epochs,
            seed=seed,
            max_seconds=budget.next_share(),
            plain=plain,
            on_epoch=report,
        )
    budget.note_overhead(time.perf_counter() - start - result.train_seconds)
    return result


def print_table(comparisons: Sequence[Comparison], console: Console) -> None:
    """Print a row per training, and what the columns mean."""
    table = Table(title="gnnkern beside plain torch: the same network, seed and threads")
    table.add_column("graph")
    table.add_column("model")
    table.add_column("path")
    for heading in ("test", "ms / epoch", "quartiles", "peak MiB", "epochs", "speed-up"):
        table.add_column(heading, justify="right")
    for comparison in comparisons:
        for result in comparison:
            fast = result is comparison.fast
            table.add_row(
                result.data if fast else "",
                result.model.upper() if fast else "",
                "gnnkern" if fast else "plain torch",
                f"{100 * result.test:.1f} %",
                f"{1e3 * result.epoch_median:.2f}",
                " - ".join(f"{1e3 * quartile:.2f}" for quartile in result.epoch_quartiles),
                f"{result.peak_memory / 2**20:.1f}",
                f"{result.epochs}{' *' if result.stopped == 'time' else ''}",
                f"{comparison.speedup:.2f} x" if fast else "",
                end_section=not fast,
            )
    console.print(table)
    results = [result for comparison in comparisons for result in comparison]
    metrics = {result.data: result.metric for result in results}
    scores = ", ".join(f"{metric} on {data}" for data, metric in metrics.items())
    notes = [
        f"test: {scores}, at the epoch that was best on the validation nodes",
        "ms / epoch: median of forward, backward and step, evaluation apart; "
        f"{results[0].threads} threads",
        "peak MiB: memory added by preparing and training, each training in a fresh process",
    ]
    if any(result.stopped == "time" for result in results):
        notes.append("*: stopped at its share of the time limit; more with --seconds")
    for note in notes:
        console.print(note, style="dim", highlight=False)
