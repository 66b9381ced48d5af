"""How far propagation with few exchanges is from exact propagation, and from the diffusion meant.

    python -m bench.multirate [--graph NAME] [--parts 8] [--time 16] [--period 10] [--json FILE]

Euler's diffusion x' = S x - x over METIS parts, one process per part (gloo), in float64; S is the
mean over in-neighbours. For several steps: the error of exact exchanges against the exponential of
S - 1 (Euler's own), that of one exchange every `period` steps against exact exchanges, and the
bound on it that senders know. Errors are relative, in the 2-norm, but for those beside the bound,
which are the largest of any element. Nothing is timed.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.diffusion import GRAPHS
from bench.on_parts import on_parts
from gnnkern import spmm
from gnnkern.bench import report
from gnnkern.bench.results import write
from gnnkern.distributed import (
    PartitionedGraph,
    partition,
    propagate,
)

# Steps per unit of time.
RATES = (5, 10, 20)
PREDICTORS = ("hold", "linear")
COLUMNS = 4
# Terms of the exponential's series are left out below this.
_NEGLIGIBLE = 1e-16


def diffused(graph: PartitionedGraph, x: Tensor, weight: Tensor, time: float) -> Tensor:
    """exp(time (S - 1)) x, by the series whose weights are those of a Poisson distribution."""
    out, term, log_share, count = torch.zeros_like(x), x, -time, 0
    while count < time or log_share > math.log(_NEGLIGIBLE):
        out = out + math.exp(log_share) * term
        count += 1
        log_share += math.log(time / count)
        term = spmm(graph, term, weight)
    return out


def _on_rank(
    graph: PartitionedGraph, tensors: dict[str, Tensor], time: float, period: int
) -> list[dict[str, Any]]:
    x = tensors["x"]
    weight = graph.in_degree.double().reciprocal()[graph.edge_index[1]]  # [E_local]
    truth = diffused(graph, x, weight, time)
    rows = []
    for rate in RATES:
        steps = round(time * rate)
        euler: dict[str, Any] = {"weight": weight, "keep": 1 - time / steps, "mix": time / steps}
        exact, _ = propagate(graph, x, steps, **euler)
        row: dict[str, Any] = {"steps": steps, "step": time / steps}
        row["euler"] = _error(graph, exact, truth)
        # As many exchanges, and steps that are as much longer.
        if steps % period == 0 and time * period <= steps:
            longer: dict[str, Any] = {"weight": weight, "keep": 1 - time * period / steps}
            longer |= {"mix": time * period / steps}
            coarse, _ = propagate(graph, x, steps // period, **longer)
            row["longer_steps"] = _error(graph, coarse, truth)
        for predictor in PREDICTORS:
            graph.traffic.reset()
            few, seen = propagate(
                graph, x, steps, period=period, predictor=predictor, measure=True, **euler
            )
            assert seen is not None
            largest = graph.largest_over_ranks([float((few - exact).abs().max())])[0]
            row[predictor] = {
                "error": _error(graph, few, exact),
                "largest": largest,
                "bound": seen.bound,
                "exchanges": graph.traffic.exchanges,
            }
        rows.append(row)
    return rows


def _error(graph: PartitionedGraph, x: Tensor, exact: Tensor) -> float:
    squares = torch.stack([(x - exact).square().sum(), exact.square().sum()])
    wrong, size = graph.sum_over_ranks(squares).tolist()
    return math.sqrt(wrong / size)


def measure(name: str, parts: int, time: float, period: int) -> dict[str, Any]:
    """All steps and predictors on one graph."""
    graph = GRAPHS[name]()
    divided = partition(graph, parts, "metis")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(graph.num_dst, COLUMNS, generator=generator, dtype=torch.float64)
    rows = on_parts(_on_rank, graph, divided, {"x": x}, time, period)
    return {
        "graph": name,
        "nodes": graph.num_dst,
        "edges": graph.num_edges,
        "parts": parts,
        "cut": divided.quality.cut,
        "time": time,
        "period": period,
        "rows": rows,
        "orders": {predictor: orders(rows, predictor) for predictor in PREDICTORS},
    }


def orders(rows: Sequence[dict[str, Any]], predictor: str) -> list[float]:
    """By what power of the step the error falls, from each step to the next shorter one."""
    pairs = zip(rows, rows[1:], strict=False)
    return [
        math.log(a[predictor]["error"] / b[predictor]["error"]) / math.log(a["step"] / b["step"])
        for a, b in pairs
    ]


def table(results: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of markdown: errors by graph, step and predictor."""
    return report.markdown(
        {
            "graph": result["graph"],
            "step": f"{row['step']:g}",
            "Euler": f"{row['euler']:.1e}",
            "longer steps": f"{row['longer_steps']:.1e}" if "longer_steps" in row else "-",
            "predictor": predictor,
            "exchanges": row[predictor]["exchanges"],
            "error": f"{row[predictor]['error']:.1e}",
            "largest": f"{row[predictor]['largest']:.1e}",
            "bound": f"{row[predictor]['bound']:.1e}",
        }
        for result in results
        for row in result["rows"]
        for predictor in PREDICTORS
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser("bench.multirate", description=__doc__)
    parser.add_argument("--graph", action="append", choices=[*GRAPHS], help="default: all")
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--time", type=float, default=16.0)
    parser.add_argument("--period", type=int, default=10)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    names = options.graph or [*GRAPHS]
    results = [measure(name, options.parts, options.time, options.period) for name in names]
    head = [
        f"machine: {report.machine_line()}",
        f"commit: {report.commit()}",
        f"command: python -m bench.multirate {shlex.join(arguments or sys.argv[1:])}",
        f"time {options.time:g}, one exchange every {options.period} steps, METIS parts, float64",
    ]
    if options.json is not None:
        write(options.json, {"header": head, "cases": results})
    found = [f"{r['graph']}: order {p}: {r['orders'][p]}" for r in results for p in PREDICTORS]
    print("\n".join([*(f"- {line}" for line in [*head, *found]), "", *table(results)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
