"""What is asked of the kernels on a GPU, beside what was measured of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from gnnkern.bench.harness import OURS
from gnnkern.bench.problems import FORWARD
from gnnkern.bench.report import markdown
from gnnkern.bench.results import Report, Row, geometric_mean, ratio_to

NOT_MEASURED = "not measured"

_SUM = ("spmm_sum",)
_SUMS = ("spmm_sum", "spmm_weighted")
_THREE_TIMES = ("spmm_max", "edge_softmax", "gat_attention", "gatv2_attention", "dot_attention")


class Mark(NamedTuple):
    """One thing that is asked for."""

    what: str
    wanted: float
    at_least: bool  # or at most
    measured: Callable[[Sequence[Row]], float | None]  # None: there is nothing to tell it from


def _of(rows: Iterable[Row], ops: Sequence[str], gradients: bool | None = None) -> list[Row]:
    """The cells of some ops in which gnnkern was measured; hubs have marks of their own."""
    return [
        row
        for row in rows
        if row["op"] in ops
        and OURS in row["results"]
        and "hub" not in row["graph"]
        and (gradients is None or gradients == (row["direction"] != FORWARD))
    ]


def _least(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return geometric_mean(known) if known else None


def _three_times(op: str) -> Mark:
    return Mark(
        f"{op}: time of PyG compiled by gnnkern's, with gradients, geometric mean",
        3.0,
        True,
        lambda rows: _mean(ratio_to(row, "pyg compiled") for row in _of(rows, (op,), True)),
    )


def _hub(op: str) -> Mark:
    """The time on the hub by the floor of its even twin."""

    def measured(rows: Sequence[Row]) -> float | None:
        found = {
            row["graph"].removeprefix("tiny_"): row
            for row in rows
            if row["op"] == op and row["direction"] == FORWARD and OURS in row["results"]
        }
        hub = found.get("hub")
        even = found.get("hub_even") or found.get("even")
        if hub is None or even is None or not even.get("floor_over_t"):
            return None
        floor = float(even["floor_over_t"] * even["results"][OURS]["median_ms"])
        return float(hub["results"][OURS]["median_ms"]) / floor

    what = f"{op}, forward, a row of 228,990 edges: time by the floor of the even twin"
    return Mark(what, 1.3, False, measured)


MARKS = (
    Mark(
        "segment_reduce, forward: part of the measured copy bandwidth, least",
        0.9,
        True,
        lambda rows: _least(row.get("of_copy") for row in _of(rows, ("segment_sum",), False)),
    ),
    Mark(
        "spmm sum: time of the best peer by gnnkern's, least of all cells",
        0.95,
        True,
        lambda rows: _least(row["ratio"] for row in _of(rows, _SUM)),
    ),
    Mark(
        "spmm sum and weighted sum: time of cached cuSPARSE by gnnkern's, geometric mean",
        1.2,
        True,
        lambda rows: _mean(ratio_to(row, "cusparse") for row in _of(rows, _SUMS)),
    ),
    *map(_three_times, _THREE_TIMES),
    Mark(
        "the same ops: time of the best peer by gnnkern's, least of all cells",
        1.0,
        True,
        lambda rows: _least(row["ratio"] for row in _of(rows, _THREE_TIMES)),
    ),
    *map(_hub, ("spmm_sum", "spmm_max", "segment_sum", "gat_attention")),
)


def marks_table(reports: Sequence[Report]) -> list[str]:
    """The lines of a markdown page."""
    rows = [row for report in reports for row in report["cells"]]
    lines = []
    for mark in MARKS:
        value = mark.measured(rows)
        met = None
        if value is not None:
            met = value >= mark.wanted if mark.at_least else value <= mark.wanted
        lines.append(
            {
                "what": mark.what,
                "wanted": f"{'at least' if mark.at_least else 'at most'} {mark.wanted:g}",
                "measured": NOT_MEASURED if value is None else f"{value:.2f}",
                "met": NOT_MEASURED if met is None else "yes" if met else "no",
            }
        )
    machines = [f"{line}\n" for line in dict.fromkeys(r["header"][0] for r in reports)]
    return ["# Marks", "", *machines, *markdown(lines)]
