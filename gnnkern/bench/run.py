"""A run: every cell checked and timed, written to its file as it is made."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

from gnnkern.bench.graphs import bench_graph
from gnnkern.bench.harness import (
    OURS,
    Checked,
    Contender,
    Timed,
    available_memory,
    bind,
    check,
    contenders,
    steady_process,
)
from gnnkern.bench.limits import limits_of, machine_limits, memory_line
from gnnkern.bench.peers import PYG_DEFAULT, absent, versions
from gnnkern.bench.problems import Problem, make_problem
from gnnkern.bench.report import commit, machine_line
from gnnkern.bench.results import (
    SCHEMA,
    Report,
    Row,
    key,
    number,
    ratio_to,
    read,
    time_unit,
    write,
)
from gnnkern.bench.specs import DTYPES, Cell, Plan
from gnnkern.bench.timing import HOST, Clock, Timing, time_in_turns
from gnnkern.bench.timing_cuda import DeviceClock
from gnnkern.progress import steps_progress

# The part of what is left of a budget that timing may take; the rest is for checks and warm-ups.
_TIMED_PART = 0.6

_PREPARED = (
    "Prepared outside of timing, for all alike: gnnkern's graph (sorted, reversed, self loops), "
    "the peers' CSR tensors with their values, sorted indices, permutations and EdgeIndex caches. "
    "PyG's GATConv replaces the self loops at every call, as it does for its users; "
    "'pyg loops ready' is given edges that have them. The C library keeps freed memory (mallopt), "
    "so that nobody's results pay for fresh pages at every call."
)
_PREPARED_CUDA = _PREPARED.partition(" The C library")[0] + (
    " Of cuSPARSE: the handle, descriptors, buffer and preprocessing of both directions. What is "
    "compiled is compiled by a call before."
)
_FORWARD = (
    "'forward' runs under no_grad; 'forward + backward' adds the gradients of x (of the layer: of "
    "x and all parameters). Results are freed inside of the timed part. Calls shorter than 2 ms "
    "are timed in batches. A peer whose checked call took more than twice the fastest peer's, and "
    "longer than its share of a cell's time, is not called again: that call is its time."
)
_FORWARD_CUDA = _FORWARD.partition(" Calls shorter")[0] + (
    " Each call is timed alone by CUDA events, after its warm-up, on an L2 cache that was written "
    "over outside of the timed part, and with half a millisecond's start for the processor, which "
    "enqueues it. Peak memory is what torch's allocator handed out."
)
_BYTES = (
    "Width of edge_softmax: heads. GB/s: the bytes gathered (E x width x itemsize per gather; what "
    "gathers nothing: the bytes streamed) by the time. floor: the largest of T_comp, T_cache and "
    "T_compute."
)
# A peer that is left out for being slow took this long at least: what is shorter costs little.
_LONG_SECONDS = 0.1
# And one whose checked call took so many times the fastest peer's decides nothing by its median.
_FAR_BEHIND = 2.0
# What has to agree for a file to be continued.
_SAME = ("schema", "commit", "machine", "versions", "threads", "rounds", "backend")


def run(plan: Plan, command: str, *, progress: bool = True) -> Report:
    """Measure a plan; the result is that of `gnnkern.bench.results`.

    Raises:
        FileNotFoundError: A graph is nowhere.
        ValueError: A graph is malformed, two have one name, or a file that was made otherwise is
            to be continued.
    """
    steady_process(plan.threads)
    if plan.is_cuda:
        torch.cuda.set_device(plan.device)
    clock = DeviceClock(torch.device(plan.device)) if plan.is_cuda else HOST
    report = _begin(plan, command)
    done = {key(row)[:4] for row in report["cells"]}
    cells = [cell for cell in plan.cells() if _known_as(plan, cell) not in done]
    deadline = time.monotonic() + plan.budget
    with steps_progress("bench", len(cells), enabled=progress) as steps:
        for position, cell in enumerate(cells):
            graph = bench_graph(cell.graph, plan.device).name
            steps.begin(f"{cell.op} {graph} {cell.width} {cell.dtype}")
            left = deadline - time.monotonic()
            # As much for each cell that is left to do.
            seconds = min(plan.cell_seconds, _TIMED_PART * left / (len(cells) - position))
            reason: str | None = "the budget is spent"
            if left > 0:
                reason = _measure(plan, cell, seconds, report, clock)
            if reason is not None:
                entry = {**cell._asdict(), "graph": graph, "reason": reason}
                report["not_measured"].append(entry)
            _save(plan, report)
            steps.end(_summary(plan, report, cell) if reason is None else f"not measured: {reason}")
    report["finished"] = True
    _save(plan, report)
    return report


def failed(report: Report) -> bool:
    """Whether a result of gnnkern is wrong, or missing for another reason than memory."""
    return any(OURS in row["failed"] for row in report["cells"])


def _known_as(plan: Plan, cell: Cell) -> tuple[str, str, int, str]:
    return cell.op, bench_graph(cell.graph, plan.device).name, cell.width, cell.dtype


def _measure(
    plan: Plan, cell: Cell, seconds: float, report: Report, clock: Clock = HOST
) -> str | None:
    """Add a row per direction; return why there is none."""
    graph = bench_graph(cell.graph, plan.device)
    if plan.is_cuda:
        # What was compiled for other cells is not needed again.
        torch.compiler.reset()
    try:
        problem = make_problem(cell.op, graph, cell.width, DTYPES[cell.dtype])
    except ValueError as error:
        return str(error)
    built: dict[str, Any] = {}
    # All directions or none, so that a run continued later begins with a whole cell.
    rows = [
        _row_of(
            plan,
            problem,
            direction,
            seconds / len(problem.directions),
            built,
            _far_behind(plan, report, cell, direction),
            clock,
        )
        for direction in problem.directions
    ]
    report["cells"] += rows
    return None


def _far_behind(plan: Plan, report: Report, cell: Cell, direction: str) -> dict[str, str]:
    """The peers that were too slow at another width to be measured again, with how slow they were.

    PyG's default path is always measured, since every cell is compared with it.
    """
    left_out: dict[str, str] = {}
    op, graph, _, dtype = _known_as(plan, cell)
    for row in report["cells"]:
        if key(row) != (op, graph, row["width"], dtype, direction):
            continue
        times = {name: r["median_ms"] for name, r in row["results"].items() if name != OURS}
        best = min(times.values(), default=0.0)
        for name, time_ms in times.items():
            if time_ms > plan.leave_out * best and time_ms > 1e3 * _LONG_SECONDS:
                left_out[name] = f"{time_ms / best:.1f} times the best peer at {row['width']}"
    left_out.pop(PYG_DEFAULT, None)
    return left_out


def _row_of(
    plan: Plan,
    problem: Problem,
    direction: str,
    seconds: float,
    built: dict[str, Any],
    far_behind: dict[str, str],
    clock: Clock,
) -> Row:
    everybody = contenders(
        problem.op,
        problem.reduce,
        backend=plan.backend,
        packages=plan.packages,
        dtype=problem.dtype,
        device_type=problem.device.type,
    )
    runs: dict[str, Timed] = {}
    skipped: dict[str, str] = {}
    wrong: dict[str, str] = {}
    checked: dict[str, Checked] = {}
    for contender in everybody:
        name = contender.name
        limit = min(available_memory(problem.device), plan.memory_gb * 1e9)
        obstacle = far_behind.get(name) or contender.obstacle(problem, direction, limit)
        if obstacle is not None:
            skipped[name] = obstacle
            continue
        try:
            runs[name], checked[name] = _prepare(problem, contender, direction, built)
        except Exception as error:  # noqa: BLE001  a peer may fail in any way; the row says how
            reason = (str(error).splitlines() or [""])[0]
            wrong[name] = f"{type(error).__name__}: {reason}"
    timings = time_in_turns(
        {name: timed.run for name, timed in runs.items()},
        seconds,
        plan.rounds,
        clock,
        {} if plan.is_cuda else _timed_already(checked, seconds),
    )
    row = _row(problem, direction, timings, {name: each.error for name, each in checked.items()})
    row["backend"] = everybody[0].backend
    row["contenders"] = [contender.name for contender in everybody]
    return {**row, "skipped": skipped, "failed": wrong}


def _prepare(
    problem: Problem, contender: Contender, direction: str, built: dict[str, Any]
) -> tuple[Timed, Checked]:
    if contender.name not in built:
        built[contender.name] = contender.build(problem)
    runner = built[contender.name]
    timed = bind(problem, runner, direction)
    return timed, check(problem, runner, timed)


def _timed_already(checked: Mapping[str, Checked], seconds: float) -> dict[str, tuple[int, float]]:
    """Peak bytes and seconds of the peers that are too slow for another call."""
    known = {
        name: (each.peak_bytes, each.seconds)
        for name, each in checked.items()
        if name != OURS and each.seconds is not None
    }
    fastest = min((each for _, each in known.values()), default=0.0)
    least = max(_FAR_BEHIND * fastest, seconds / max(len(checked), 1))
    return {name: (peak, each) for name, (peak, each) in known.items() if each > least}


# -- rows ------------------------------------------------------------------------------------------


def _row(
    problem: Problem, direction: str, timings: dict[str, Timing], errors: dict[str, float]
) -> Row:
    limits = limits_of(problem, direction)
    row: Row = {
        "op": problem.kind,
        "graph": problem.graph.name,
        "width": problem.width,
        "dtype": str(problem.dtype).removeprefix("torch."),
        "direction": direction,
        "heads": problem.heads,
        "num_nodes": problem.graph.num_nodes,
        "num_edges": problem.graph.num_edges,
        "compulsory_bytes": limits.compulsory_bytes,
        "gathered_bytes": limits.gathered_bytes,
        "floor_ms": {name: seconds * 1e3 for name, seconds in limits.floors.items()},
        "results": {name: _result(timing, errors[name]) for name, timing in timings.items()},
    }
    others = {name: timing.median for name, timing in timings.items() if name != OURS}
    row["best_peer"] = min(others, key=lambda name: others[name], default=None)
    row["ratio"] = None if row["best_peer"] is None else ratio_to(row, row["best_peer"])
    row["ratio_pyg"] = ratio_to(row, PYG_DEFAULT)
    if OURS in timings:
        mine = timings[OURS].median
        row["gb_per_s"] = limits.moved_bytes / mine / 1e9
        row["of_copy"] = limits.moved_bytes / mine / limits.copy_bytes_per_second
        row["floor_over_t"] = limits.least / mine
        row["edges_per_s"] = problem.graph.num_edges / mine
    return row


def _result(timing: Timing, error: float) -> dict[str, Any]:
    return {
        "median_ms": timing.median * 1e3,
        "quartiles_ms": [timing.first_quartile * 1e3, timing.third_quartile * 1e3],
        "rounds": timing.rounds,
        "calls": timing.calls,
        "peak_mb": timing.peak_bytes / 1e6,
        "relative_error": error,
    }


def _summary(plan: Plan, report: Report, cell: Cell) -> str:
    rows = [row for row in report["cells"] if key(row)[:4] == _known_as(plan, cell)]
    return "; ".join(map(_in_short, rows))


def _in_short(row: Row) -> str:
    if OURS not in row["results"]:
        reason = row["failed"].get(OURS) or row["skipped"].get(OURS)
        return f"{row['direction']}: {OURS} not measured: {reason}"
    unit, scale = time_unit(row)
    said = f"{row['direction']} {number(row['results'][OURS]['median_ms'] * scale)} {unit}"
    if row["ratio"] is None:
        return said
    return f"{said} (best peer {row['best_peer']}, ratio {row['ratio']:.2f})"


# -- the head of the file --------------------------------------------------------------------------


def _begin(plan: Plan, command: str) -> Report:
    report = _header(plan, command)
    if not plan.resume:
        return report
    if plan.json is None:
        raise ValueError("bench: resume needs the file to continue, got none")
    if not plan.json.exists():
        return report
    old = read(plan.json)
    for field in _SAME:
        if old.get(field) != report[field]:
            raise ValueError(
                f"bench: cannot continue {plan.json}: its {field} must be {report[field]!r}, "
                f"got {old.get(field)!r}"
            )
    report["cells"] = old["cells"]
    report["graphs"] = {**old["graphs"], **report["graphs"]}
    return report


def _header(plan: Plan, command: str) -> Report:
    graphs: dict[str, Any] = {}
    lines = []
    for name in plan.graphs:
        graph = bench_graph(name, plan.device)
        if graph.name in graphs:
            raise ValueError(f"bench: graphs must have different names, got {graph.name!r} twice")
        graphs[graph.name] = graph.facts
        lines.append(f"graph {graph.description}")
    known = versions("cuda" if plan.is_cuda else "cpu")
    packages = list(known if plan.packages is None else plan.packages)
    here = {package: version for package, version in known.items() if package in packages}
    measured = plan.commit or commit()
    machine = machine_line(plan.device)
    told = [v if absent(package) else f"{package} {v}" for package, v in here.items()]
    return {
        "schema": SCHEMA,
        "header": [
            f"machine: {machine}",
            f"peers: {', '.join(told) or 'none'}",
            f"commit: {measured}",
            f"command: {command}",
            memory_line(plan.widths, plan.device),
            *lines,
            _BYTES,
            _PREPARED_CUDA if plan.is_cuda else _PREPARED,
            _FORWARD_CUDA if plan.is_cuda else _FORWARD,
        ],
        "command": command,
        "commit": measured,
        "machine": machine,
        "versions": here,
        "threads": plan.threads,
        "rounds": plan.rounds,
        "backend": plan.backend,
        **machine_limits(plan.device),
        "graphs": graphs,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "finished": False,
        "cells": [],
        "not_measured": [],
    }


def _save(plan: Plan, report: Report) -> None:
    if plan.json is not None:
        write(plan.json, report)
