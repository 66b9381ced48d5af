"""Tiles beside those of the rule: what `gnnkern._triton.configs` is to be corrected by.

Nothing is chosen here. The numbers of the rule are one table for all sizes, and change by hand,
with the device and the bench that they come from.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

from bench.gpu.child import parse
from bench.gpu.runner import replace_file
from gnnkern._triton.configs import ELEMENTS, Tiles, configured, tiles_for
from gnnkern.bench.graphs import BenchGraph, bench_graph
from gnnkern.bench.harness import bind
from gnnkern.bench.ours import build, reasons_against
from gnnkern.bench.problems import BACKWARD, FORWARD, make_problem
from gnnkern.bench.report import markdown
from gnnkern.bench.specs import OF_HEADS
from gnnkern.bench.timing import HOST, Clock
from gnnkern.bench.timing_cuda import DeviceClock


class Family(NamedTuple):
    """A family of tiles, and an op whose time is that of its kernel."""

    op: str
    direction: str = FORWARD
    per_head: bool = False  # a tile has groups of columns, one for each head


# Families that this version does not have are passed over.
FAMILIES = {
    "sum": Family("spmm_sum"),
    "select": Family("spmm_max"),
    "softmax": Family("edge_softmax"),
    "edges": Family("sddmm_add"),
    "attention": Family("gat_attention", FORWARD, per_head=True),
    "attention_backward": Family("gat_attention", BACKWARD, per_head=True),
    "multi": Family("multi_reduce_pna"),
}
_ROUNDS = 15
_FACTORS = (0.5, 1, 2)
_WARPS = (4, 8)


class Trial(NamedTuple):
    """One configuration of one family."""

    family: str
    tiles: Tiles
    microseconds: float | None
    why: str = ""


def candidates(rule: Tiles) -> list[Tiles]:
    """The rule's tiles first, then half and twice as many rows and edges, and more warps."""
    found = {rule: None}
    for rows, edges, warps in product(_FACTORS, _FACTORS, _WARPS):
        if rows * edges <= 2 and rule.rows * rows >= 1 and rule.edges * edges >= 1:
            tiles = rule._replace(
                rows=int(rule.rows * rows), edges=int(rule.edges * edges), warps=warps
            )
            found[tiles] = None
    return list(found)


def trials(
    graph: BenchGraph,
    width: int,
    heads: int,
    clock: Clock,
    end: float,
    rounds: int = _ROUNDS,
    most: int | None = None,
) -> Iterator[Trial]:
    """Time every candidate of every family, at most so many, until the time is spent."""
    degree = graph.num_edges / max(graph.num_nodes, 1)
    for family, (op, direction, per_head) in FAMILIES.items():
        problem = make_problem(op, graph, heads if op in OF_HEADS else width)
        reasons = reasons_against(problem.op, "triton", device_type=problem.device.type)
        if family not in ELEMENTS or reasons:
            continue
        run = bind(problem, build(problem, "triton"), direction).run
        groups = problem.heads if per_head else 1
        rule = tiles_for(family, problem.width // groups, degree, False, groups)
        for tiles in candidates(rule)[:most]:
            if time.monotonic() > end:
                return
            forced: dict[str, Any] = {family: tiles}
            with configured(**forced):
                try:
                    run()
                    samples = sorted(clock.seconds_of(run) for _ in range(rounds))
                except Exception as error:  # noqa: BLE001  such tiles do not fit
                    reason = (str(error).splitlines() or [""])[0]
                    yield Trial(family, tiles, None, f"{type(error).__name__}: {reason}")
                    continue
            yield Trial(family, tiles, 1e6 * samples[len(samples) // 2])


def table(found: list[Trial]) -> list[str]:
    """The lines of a page: families in order, in each the fastest first."""
    lines = []
    for family in dict.fromkeys(trial.family for trial in found):
        own = [trial for trial in found if trial.family == family]
        # The rule's are tried first.
        rule = own[0]
        rows: list[dict[str, Any]] = [
            {
                **trial.tiles._asdict(),
                "µs": trial.why if trial.microseconds is None else f"{trial.microseconds:.1f}",
                "": "the rule" if trial is rule else None,
            }
            for trial in sorted(own, key=lambda trial: trial.microseconds or float("inf"))
        ]
        op, direction, _ = FAMILIES[family]
        lines += ["", f"## {family}: {op}, {direction}", "", *markdown(rows)]
    return lines


def _main() -> None:
    options = parse()
    end = time.monotonic() + options.seconds
    gpu = options.device.startswith("cuda")
    graph = bench_graph("arxiv_like" if gpu else "tiny", options.device)
    clock: Clock = DeviceClock(graph.device) if gpu else HOST
    found: list[Trial] = []
    width, heads, rounds, most = (128, 4, _ROUNDS, None) if gpu else (4, 1, 1, 2)
    title = f"# Tiles of Triton's kernels on {graph.name}, medians of {rounds}"
    for trial in trials(graph, width, heads, clock, end, rounds, most):
        found.append(trial)
        replace_file(options.out / "tuning.md", "\n".join([title, *table(found)]) + "\n")
    print(f"{len(found)} configurations")


if __name__ == "__main__":
    _main()
