"""Options of the benches, and the fixture that checks and times a case."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import pytest

from bench.cases import Case
from gnnkern.bench.cost import cost, limits, machine
from gnnkern.bench.graphs import RECIPES, bench_graph
from gnnkern.bench.harness import (
    OURS,
    THREADS,
    available_memory,
    bind,
    check,
    pin_threads,
)
from gnnkern.bench.peers import versions
from gnnkern.bench.problems import Problem, make_problem
from gnnkern.bench.report import commit, machine_line, markdown
from gnnkern.bench.timing import calls_for, peak_bytes, rounds_for

_ROWS: list[dict[str, Any]] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bench")
    group.addoption("--bench-graph", default="tiny", choices=sorted(RECIPES))
    group.addoption("--bench-threads", type=int, default=THREADS)
    group.addoption("--bench-seconds", type=float, default=5.0, help="of timing, per case")


def pytest_configure(config: pytest.Config) -> None:
    # torch says at every first use that its CSR support is in beta, PyG that it will be compiled.
    config.addinivalue_line("filterwarnings", "ignore:Sparse:UserWarning")
    config.addinivalue_line("filterwarnings", "ignore:.*torch.jit:DeprecationWarning")


@lru_cache(maxsize=1)
def _problem(kind: str, graph: str, width: int) -> Problem:
    return make_problem(kind, bench_graph(graph), width)


@pytest.fixture
def measure(request: pytest.FixtureRequest, benchmark: Any) -> Iterator[Callable[[Case], None]]:
    """Check a case against float64, then time it; a case that cannot run is skipped with why."""

    # Untimed on one thread: tiny calls spend all their time at the barriers of a busy machine.
    pin_threads(1 if benchmark.disabled else request.config.getoption("--bench-threads"))

    def run(case: Case) -> None:
        problem = _problem(case.kind, request.config.getoption("--bench-graph"), case.width)
        obstacle = case.contender.obstacle(problem, case.direction, available_memory())
        if obstacle is not None:
            pytest.skip(obstacle)
        runner = case.contender.build(problem)
        timed = bind(problem, runner, case.direction)
        try:
            check(problem, runner, timed)
        except NotImplementedError as reason:
            pytest.skip(f"{case.contender.name}: {reason}")
        if benchmark.disabled:
            benchmark.pedantic(timed.run)
            return
        peak, warm = peak_bytes(timed.run)
        calls, warm = calls_for(timed.run, warm)
        rounds = rounds_for(calls * warm, request.config.getoption("--bench-seconds"))
        benchmark.group = f"{case.kind} {case.width} {case.direction}"
        benchmark.pedantic(timed.run, rounds=rounds, iterations=calls, warmup_rounds=1)
        stats = benchmark.stats.stats
        row = _row(case, problem, stats.median, stats.iqr, rounds, peak)
        benchmark.extra_info.update(row)
        _ROWS.append(row)

    yield run


def _row(
    case: Case, problem: Problem, median: float, iqr: float, rounds: int, peak: int
) -> dict[str, Any]:
    moved = cost(problem, case.direction)
    least = limits(problem, moved)
    return {
        "op": case.kind,
        "width": case.width,
        "direction": case.direction,
        "implementation": case.contender.name,
        "median ms": round(median * 1e3, 3),
        "IQR ms": round(iqr * 1e3, 3),
        "rounds": rounds,
        "GB/s": round(moved.moved_bytes / median / 1e9, 2),
        "of copy": round(moved.moved_bytes / median / machine().copy_bandwidth(), 3),
        "floor / T": round(least.floor_s / median, 3),
        "Medges/s": round(problem.graph.num_edges / median / 1e6, 1),
        "peak MB": round(peak / 1e6, 1),
    }


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    write = terminalreporter.write_line
    missing = [version for version in versions().values() if "absent" in version]
    for line in missing:
        write(f"peer {line}")
    if not _ROWS:
        return
    ours = {
        (row["op"], row["width"], row["direction"]): row["median ms"]
        for row in reversed(_ROWS)
        if row["implementation"].startswith(f"{OURS} ")
    }
    for row in _ROWS:
        mine = ours.get((row["op"], row["width"], row["direction"]))
        row["ratio to gnnkern"] = round(row["median ms"] / mine, 2) if mine else None
    write(f"\n{machine_line()}; commit {commit()}; {bench_graph(_graph_name(config)).description}")
    for line in markdown(_ROWS):
        write(line)


def _graph_name(config: pytest.Config) -> str:
    name: str = config.getoption("--bench-graph")
    return name
