"""`python -m gnnkern.bench.table`: gnnkern beside every peer, in one process, as a markdown table.

Every implementation is checked against float64 first. Times are medians of rounds in which all
take turns (A B C A B C), each after a warm-up. Results are written to the JSON file as they come.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gnnkern.bench.cost import cost, limits, machine
from gnnkern.bench.graphs import RECIPES, bench_graph
from gnnkern.bench.harness import (
    MAX_ROUNDS,
    OURS,
    THREADS,
    Contender,
    Timed,
    Timing,
    available_memory,
    bind,
    check,
    contenders,
    steady_process,
    time_in_turns,
)
from gnnkern.bench.ours import best_backend
from gnnkern.bench.peers import versions
from gnnkern.bench.problems import KINDS, Problem, make_problem
from gnnkern.bench.report import commit, machine_line, markdown, memory_line

DEFAULT_OPS = ("spmm_sum", "spmm_weighted", "spmm_max", "edge_softmax", "gat_layer")
SOFTMAX_HEADS = (1, 4)
SECONDS_PER_CELL = 20.0
# The part of what is left of a budget that timing may take; the rest is for checks and warm-ups.
_TIMED_PART = 0.6

_PREPARED = (
    "Prepared outside of timing, for all alike: gnnkern's graph (sorted, reversed, self loops), "
    "the peers' CSR tensors with their values, sorted indices, permutations and EdgeIndex caches. "
    "PyG's GATConv replaces the self loops at every call, as it does for its users; "
    "'pyg loops ready' is given edges that have them. The C library keeps freed memory (mallopt), "
    "so that nobody's results pay for fresh pages at every call."
)
_FORWARD = (
    "'forward' runs under no_grad; 'forward + backward' adds the gradients of x (of the layer: of "
    "x and all parameters). Results are freed inside of the timed part."
)


class Cell(NamedTuple):
    """A line of the table to be."""

    kind: str
    graph: str
    width: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 where a result of gnnkern is wrong."""
    options = _parser().parse_args(arguments)
    steady_process(options.threads)
    report = _header(options, sys.argv[1:] if arguments is None else arguments)
    cells = [
        Cell(kind, graph, width)
        for graph in options.graphs
        for kind in options.ops
        for width in (SOFTMAX_HEADS if kind == "edge_softmax" else options.width)
    ]
    deadline = time.monotonic() + options.budget
    for position, cell in enumerate(cells):
        _say(f"{position + 1}/{len(cells)} {cell.kind} {cell.graph} {cell.width}")
        left = deadline - time.monotonic()
        if left <= 0:
            report["not_measured"].append({**cell._asdict(), "reason": "the budget is spent"})
            _save(options.json, report)
            continue
        problem = make_problem(cell.kind, bench_graph(cell.graph), cell.width)
        seconds = min(options.cell_seconds, _TIMED_PART * left / (len(cells) - position))
        _measure(problem, seconds / len(problem.directions), options, report)
    report["finished"] = True
    _save(options.json, report)
    print("\n".join(render(report)))
    return int(any(OURS in row["failed"] for row in report["cells"]))


def _measure(
    problem: Problem, seconds: float, options: argparse.Namespace, report: dict[str, Any]
) -> None:
    built: dict[str, Any] = {}
    for direction in problem.directions:
        runs: dict[str, Timed] = {}
        skipped: dict[str, str] = {}
        failed: dict[str, str] = {}
        errors: dict[str, float] = {}
        for contender in contenders(problem.op, problem.reduce):
            name = contender.name
            limit = min(available_memory(), options.memory_gb * 1e9)
            obstacle = contender.obstacle(problem, direction, limit)
            if obstacle is not None:
                skipped[name] = obstacle
                continue
            try:
                runs[name], errors[name] = _prepare(problem, contender, direction, built)
            except Exception as error:  # a peer may fail in any way; the table says how
                reason = (str(error).splitlines() or [""])[0]
                failed[name] = f"{type(error).__name__}: {reason}"
        timings = time_in_turns(
            {name: timed.run for name, timed in runs.items()}, seconds, options.rounds
        )
        row = _row(problem, direction, timings, errors)
        report["cells"].append({**row, "skipped": skipped, "failed": failed})
        _save(options.json, report)
        _say(_summary(row))


def _prepare(
    problem: Problem, contender: Contender, direction: str, built: dict[str, Any]
) -> tuple[Timed, float]:
    if contender.name not in built:
        built[contender.name] = contender.build(problem)
    runner = built[contender.name]
    timed = bind(problem, runner, direction)
    return timed, check(problem, runner, timed)


# -- rows ------------------------------------------------------------------------------------------


def _row(
    problem: Problem, direction: str, timings: dict[str, Timing], errors: dict[str, float]
) -> dict[str, Any]:
    moved = cost(problem, direction)
    least = limits(problem, moved)
    results = {
        name: {
            "median_ms": timing.median * 1e3,
            "quartiles_ms": [timing.first_quartile * 1e3, timing.third_quartile * 1e3],
            "rounds": timing.rounds,
            "peak_mb": timing.peak_bytes / 1e6,
            "relative_error": errors[name],
        }
        for name, timing in timings.items()
    }
    row: dict[str, Any] = {
        "op": problem.kind,
        "graph": problem.graph.name,
        "width": problem.width,
        "heads": problem.heads,
        "direction": direction,
        "dtype": "float32",
        "backend": best_backend(problem.op),
        "compulsory_bytes": moved.compulsory_bytes,
        "gathered_bytes": moved.gathered_bytes,
        "floor_ms": {
            "T_comp": least.compulsory_s * 1e3,
            "T_gather": least.gather_s * 1e3,
            "T_cache": least.cache_s * 1e3,
            "T_compute": least.compute_s * 1e3,
        },
        "results": results,
    }
    others = {name: timing.median for name, timing in timings.items() if name != OURS}
    best = min(others, key=lambda name: others[name], default=None)
    row["best_peer"] = best
    if OURS in timings:
        mine = timings[OURS].median
        row["gb_per_s"] = moved.moved_bytes / mine / 1e9
        row["of_copy"] = moved.moved_bytes / mine / machine().copy_bandwidth()
        row["floor_over_t"] = least.floor_s / mine
        row["edges_per_s"] = problem.graph.num_edges / mine
        row["ratio"] = None if best is None else others[best] / mine
    return row


def _summary(row: dict[str, Any]) -> str:
    mine = row["results"].get(OURS)
    if mine is None or row.get("ratio") is None:
        return f"  {row['direction']}: nothing to compare"
    return (
        f"  {row['direction']}: {mine['median_ms']:.2f} ms, best peer {row['best_peer']}, "
        f"ratio {row['ratio']:.2f}"
    )


def render(report: dict[str, Any]) -> list[str]:
    """The report as markdown: one table per op, then what was lost and what was not measured."""
    lines = [f"- {line}" for line in report["header"]]
    cells = report["cells"]
    for op in dict.fromkeys(cell["op"] for cell in cells):
        rows = [cell for cell in cells if cell["op"] == op]
        names = dict.fromkeys(name for row in rows for name in _names(row) if name != OURS)
        lines += ["", f"### {op}", "", *markdown([_columns(row, list(names)) for row in rows])]
    compared = [cell for cell in cells if cell.get("ratio") is not None]
    lost = [cell for cell in compared if cell["ratio"] < 1]
    lines += ["", f"{len(compared)} cells compared, {len(lost)} of them slower than the best peer."]
    notes = {
        f"{cell['op']}, {cell['graph']}, {cell['width']}, {cell['direction']}: {name}: {reason}"
        for cell in cells
        for kind in ("skipped", "failed")
        for name, reason in cell[kind].items()
    }
    notes |= {
        f"{cell['kind']}, {cell['graph']}, {cell['width']}: {cell['reason']}"
        for cell in report["not_measured"]
    }
    if notes:
        lines += ["", "Not measured:", "", *(f"- {note}" for note in sorted(notes))]
    return lines


def _names(row: dict[str, Any]) -> list[str]:
    order = [*row["results"], *row["skipped"], *row["failed"]]
    known = {c.name: i for i, c in enumerate(contenders(*_op_of(row["op"])))}
    return sorted(order, key=lambda name: known.get(name, len(known)))


def _op_of(kind: str) -> tuple[str, str]:
    sample = make_problem(kind, bench_graph("tiny"), 4)
    return sample.op, sample.reduce


def _columns(row: dict[str, Any], names: list[str]) -> dict[str, str]:
    mine = row["results"].get(OURS)
    columns = {
        "op": row["op"],
        "graph": row["graph"],
        "width": str(row["width"]),
        "direction": row["direction"],
        "gnnkern ms (quartiles)": _status(row, OURS),
    }
    if mine is not None:
        low, high = mine["quartiles_ms"]
        columns["gnnkern ms (quartiles)"] += f" ({_number(low)}-{_number(high)})"
    columns |= {f"{name} ms": _status(row, name) for name in names}
    ratio = row.get("ratio")
    columns["best peer"] = row["best_peer"] or "-"
    columns["best peer / gnnkern"] = (
        "-" if ratio is None else f"{ratio:.2f}" if ratio >= 1 else f"**{ratio:.2f} slower**"
    )
    for title, key in (("GB/s", "gb_per_s"), ("floor / T", "floor_over_t")):
        columns[title] = _number(row[key]) if key in row else "-"
    columns["peak MB"] = "-" if mine is None else f"{mine['peak_mb']:.0f}"
    return columns


def _status(row: dict[str, Any], name: str) -> str:
    if name in row["results"]:
        return _number(row["results"][name]["median_ms"])
    if name in row["failed"]:
        return "failed"
    reason = row["skipped"].get(name)
    return "-" if reason is None else "absent" if "absent" in reason else "no memory"


def _number(value: float) -> str:
    """Three figures."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


# -- the rest --------------------------------------------------------------------------------------


def _header(options: argparse.Namespace, arguments: Sequence[str]) -> dict[str, Any]:
    command = shlex.join(["python", "-m", "gnnkern.bench.table", *arguments])
    packages = ", ".join(
        version if "absent" in version else f"{package} {version}"
        for package, version in versions().items()
    )
    graphs = [bench_graph(name).description for name in options.graphs]
    return {
        "header": [
            f"machine: {machine_line()}",
            f"peers: {packages}",
            f"commit: {commit()}",
            f"command: `{command}`",
            memory_line(machine(), [4 * width for width in options.width]),
            *(f"graph {line}" for line in graphs),
            "float32; width of edge_softmax: heads. GB/s: the bytes gathered (E x width x 4 per "
            "gather; edge_softmax: the bytes streamed) by the time. floor: the largest of T_comp, "
            "T_cache and T_compute (gnnkern/hardware/cost.py).",
            _PREPARED,
            _FORWARD,
        ],
        "command": command,
        "commit": commit(),
        "machine": machine_line(),
        "versions": versions(),
        "threads": options.threads,
        "probe": machine().to_dict(),
        "graphs": graphs,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "finished": False,
        "cells": [],
        "not_measured": [],
    }


def _save(path: Path | None, report: dict[str, Any]) -> None:
    """Replace the file in one step: an interrupted run keeps every cell made so far."""
    if path is None:
        return
    draft = path.with_name(path.name + ".part")
    draft.write_text(json.dumps(report, indent=1) + "\n")
    os.replace(draft, path)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    def names(known: Sequence[str]) -> Any:
        def parse(text: str) -> list[str]:
            chosen = text.split(",")
            for name in chosen:
                if name not in known:
                    raise argparse.ArgumentTypeError(
                        f"must be some of {', '.join(known)}, got {name!r}"
                    )
            return chosen

        return parse

    def widths(text: str) -> list[int]:
        return [int(width) for width in text.split(",")]

    parser = argparse.ArgumentParser(prog="python -m gnnkern.bench.table", description=__doc__)
    add = parser.add_argument
    add("--graphs", type=names(list(RECIPES)), default=["powerlaw_1m", "powerlaw_10m"])
    add("--width", type=widths, default=[64, 128], help="feature widths, e.g. 64,128")
    add("--ops", type=names(list(KINDS)), default=list(DEFAULT_OPS), help="some of the benches'")
    add("--threads", type=int, default=THREADS)
    add("--rounds", type=int, default=MAX_ROUNDS, help="at most, per implementation; at least 3")
    add("--json", type=Path, help="where to write every cell, as it is made")
    add("--budget", type=float, default=float("inf"), help="seconds in all; the rest is left out")
    add("--cell-seconds", type=float, default=SECONDS_PER_CELL, help="of timing, per op and width")
    add("--memory-gb", type=float, default=float("inf"), help="leave out what would need more")
    return parser


if __name__ == "__main__":
    sys.exit(main())
