"""What changed from one file of results to another, beyond noise.

A contender in a cell is faster or slower when its medians differ by more than the larger of

- 5% of the first median, and
- the joint interquartile range, sqrt(a**2 + b**2) of the two ranges: that of the difference of two
  measurements that spread like these;

and noise otherwise, as it is where one of them has fewer than three rounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from gnnkern.bench.harness import OURS
from gnnkern.bench.results import Key, Report, geometric_mean, key, number, time_unit

LEAST_CHANGE = 0.05
LEAST_ROUNDS = 3

Verdict = Literal["faster", "slower", "noise"]

RULE = (
    f"noise: medians differ by no more than the larger of {LEAST_CHANGE:.0%} and the joint "
    f"interquartile range, or fewer than {LEAST_ROUNDS} rounds"
)
# What should agree for times to be comparable.
_CONDITIONS = ("machine", "threads", "versions")


class Change(NamedTuple):
    """One contender in one cell, before and after."""

    cell: Key
    contender: str
    before_ms: float
    after_ms: float
    verdict: Verdict
    unit: tuple[str, float]

    @property
    def ratio(self) -> float:
        """The old time by the new one: above 1 is faster."""
        return self.before_ms / self.after_ms


@dataclass(frozen=True)
class Comparison:
    """Everything that two files have in common, and what one of them lacks."""

    changes: list[Change]
    warnings: list[str]
    only: tuple[int, int] = (0, 0)  # measurements in the first or second file alone
    slower: list[Change] = field(default_factory=list)  # of gnnkern


def compare(before: Report, after: Report) -> Comparison:
    """Join two reports by (op, graph, width, dtype, direction, contender)."""
    old, new = _measurements(before), _measurements(after)
    changes = []
    for place in new:
        if place in old:
            a, b = old[place], new[place]
            times = a.result["median_ms"], b.result["median_ms"]
            changes.append(Change(*place, *times, verdict(a.result, b.result), b.unit))
    only = len(old.keys() - new.keys()), len(new.keys() - old.keys())
    slower = [c for c in changes if c.verdict == "slower" and c.contender.startswith(OURS)]
    return Comparison(changes, _warnings(before, after), only, slower)


def verdict(before: dict[str, Any], after: dict[str, Any]) -> Verdict:
    """Apply the rule of this module to two results."""
    difference = after["median_ms"] - before["median_ms"]
    spread = math.hypot(_range(before), _range(after))
    few = min(before["rounds"], after["rounds"]) < LEAST_ROUNDS
    if few or abs(difference) <= max(LEAST_CHANGE * before["median_ms"], spread):
        return "noise"
    return "slower" if difference > 0 else "faster"


class _Measurement(NamedTuple):
    result: dict[str, Any]
    unit: tuple[str, float]


def _measurements(report: Report) -> dict[tuple[Key, str], _Measurement]:
    return {
        (key(row), name): _Measurement(result, time_unit(row))
        for row in report["cells"]
        for name, result in row["results"].items()
    }


def _range(result: dict[str, Any]) -> float:
    first, third = result["quartiles_ms"]
    return float(third - first)


def _warnings(before: Report, after: Report) -> list[str]:
    found = [
        f"{name} differs: {before.get(name)} before, {after.get(name)} after"
        for name in _CONDITIONS[:2]
        if before.get(name) != after.get(name)
    ]
    old, new = before["versions"], after["versions"]
    found += [
        f"version of {package} differs: {old.get(package)} before, {new.get(package)} after"
        for package in {**old, **new}
        if old.get(package) != new.get(package)
    ]
    found += [
        f"the {place} file is of a run that did not finish"
        for place, report in (("first", before), ("second", after))
        if not report.get("finished", False)
    ]
    return found


# -- on the terminal -------------------------------------------------------------------------------


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print what changed, and per contender how much in all."""
    for warning in comparison.warnings:
        console.print(f"warning: {warning}", style="yellow", highlight=False, soft_wrap=True)
    changed = [change for change in comparison.changes if change.verdict != "noise"]
    if changed:
        console.print(_changes(changed))
    if comparison.changes:
        console.print(_totals(comparison.changes))
    else:
        console.print("the files have no measurement in common")
    console.print(RULE, highlight=False)
    for count, place in zip(comparison.only, ("first", "second"), strict=True):
        if count:
            console.print(f"{count} measurements in the {place} file alone", highlight=False)


def _changes(changes: list[Change]) -> Table:
    table = Table(title="changed", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("op, graph, width, dtype, direction")
    table.add_column("contender", no_wrap=True)
    for heading in ("before", "after", "before / after"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for change in changes:
        unit, scale = change.unit
        table.add_row(
            ", ".join(map(str, change.cell)),
            change.contender,
            f"{number(change.before_ms * scale)} {unit}",
            f"{number(change.after_ms * scale)} {unit}",
            f"{change.ratio:.2f}",
            change.verdict,
            style="red" if change.verdict == "slower" else "green",
        )
    return table


def _totals(changes: list[Change]) -> Table:
    table = Table(title="in all", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("contender")
    verdicts: tuple[Verdict, ...] = ("faster", "slower", "noise")
    for heading in (*verdicts, "before / after, geometric mean"):
        table.add_column(heading, justify="right")
    for name in dict.fromkeys(change.contender for change in changes):
        own = [change for change in changes if change.contender == name]
        counts = (sum(change.verdict == verdict for change in own) for verdict in verdicts)
        mean = geometric_mean([change.ratio for change in own])
        table.add_row(name, *map(str, counts), f"{mean:.2f}")
    return table
