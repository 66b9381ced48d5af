"""Plots of trainings, to PNG files; and the figures that every plot begins with."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gnnkern.demo import Comparison
    from gnnkern.train import TrainResult

# Two colours that differ in brightness too, for print and for colour-blind readers.
_FAST, _PLAIN = "#1b6ca8", "#e8a33d"
# Of kinds of links, the cheapest first.
_LINKS = ("#8fbc5a", _FAST, _PLAIN)


def new_figure(columns: int, width: float, height: float, rows: int = 1) -> tuple[Any, Any]:
    """A figure of so many inches, and its axes by row and column."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'gnnkern[plot]'") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def plot_trainings(results: Sequence["TrainResult"], path: Path) -> None:
    """Draw loss and validation score by epoch, one line per training.

    Of a training on ranks also what they sent in each epoch, by kind of link.
    """
    sent = results[0].settings.get("bytes_by_epoch", {}) if len(results) == 1 else {}
    sent = {level: counts for level, counts in sent.items() if any(counts)}
    columns = 3 if sent else 2
    figure, ((left, right, *others),) = new_figure(columns, 5 * columns, 4)
    label_each = len(results) <= 10
    for result in results:
        epochs = range(1, result.epochs + 1)
        label = f"seed {result.seed}, split {result.split}" if label_each else None
        left.plot(epochs, result.losses, linewidth=1, label=label)
        right.plot(epochs, result.val_scores, linewidth=1, label=label)
        right.plot(result.best_epoch, result.val, "o", markersize=4, color="black")
    first = results[0]
    left.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
    right.set(xlabel="epoch", ylabel=f"validation {first.metric}")
    for axis in others:
        _bytes_by_epoch(axis, results[0], sent)
    for axis in (left, right, *others):
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
    if label_each:
        left.legend(fontsize=8)
    mean = sum(result.test for result in results) / len(results)
    figure.suptitle(
        f"{first.model.upper()} on {first.data}: test {first.metric} {100 * mean:.1f} % "
        f"at the best validation (dots), {len(results)} training{'s' * (len(results) > 1)}"
    )
    figure.savefig(path, dpi=130)


def _bytes_by_epoch(axis: Any, result: "TrainResult", sent: dict[str, list[int]]) -> None:
    """One line per kind of link, over the epochs that this run trained: the last ones."""
    for (level, counts), color in zip(sent.items(), _LINKS, strict=False):
        first = result.epochs - len(counts) + 1
        epochs = range(first, result.epochs + 1)
        mebibytes = [count / 2**20 for count in counts]
        axis.step(epochs, mebibytes, where="mid", linewidth=1, color=color, label=level)
    axis.set(xlabel="epoch", ylabel="MiB sent by all ranks, evaluation included", ylim=(0, None))
    axis.legend(fontsize=8, title="link")


def plot_comparisons(comparisons: Sequence["Comparison"], path: Path) -> None:
    """Draw time per epoch, peak memory and test score of both paths, a pair of dots per training.

    Time and memory are on logarithmic axes, since graphs differ by orders of magnitude.
    """
    figure, ((times, memory, test),) = new_figure(3, 13, 1.9 + 0.6 * len(comparisons))
    _dots(times, comparisons, lambda result: 1e3 * result.epoch_median, "{:.1f}")
    _dots(memory, comparisons, lambda result: result.peak_memory / 2**20, "{:.1f}")
    _dots(test, comparisons, lambda result: 100 * result.test, "{:.1f}")
    times.set_yticks(
        range(len(comparisons)),
        [
            f"{pair.fast.data}, {pair.fast.model.upper()}\n{pair.speedup:.2f} x as fast"
            for pair in comparisons
        ],
    )
    for axis, label in ((times, "ms per epoch, median"), (memory, "peak memory, MiB")):
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_xlabel(f"{label} (log scale)")
    metrics = sorted({pair.fast.metric for pair in comparisons})
    test.set_xlabel(f"test {' or '.join(metrics)}, %")
    for axis in (memory, test):
        axis.tick_params(axis="y", left=False, labelleft=False)
    figure.legend(*times.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=130)


def _dots(
    axis: Any,
    comparisons: Sequence["Comparison"],
    value: Callable[["TrainResult"], float],
    text: str,
) -> None:
    rows = range(len(comparisons))
    sides = (("gnnkern", _FAST, "o", -0.15), ("plain torch", _PLAIN, "s", 0.15))
    for side, (label, color, marker, shift) in enumerate(sides):
        values = [value(pair[side]) for pair in comparisons]
        places = [row + shift for row in rows]
        axis.plot(values, places, marker, color=color, markersize=8, label=label)
        for x, y in zip(values, places, strict=True):
            place = {"xytext": (8, 0), "textcoords": "offset points", "va": "center"}
            axis.annotate(text.format(x), (x, y), fontsize=8, **place)
    for row in rows[1:]:
        axis.axhline(row - 0.5, color="0.85", linewidth=0.8)
    axis.set_ylim(len(comparisons) - 0.5, -0.5)
    # Room for the text beside the rightmost dot.
    axis.margins(x=0.24)
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
