"""Exchanges that implicit diffusion takes over parts, by method: (1 + tau) x - tau S x = b.

    python -m bench.diffusion [--case NAME] [--parts 8] [--ranks] [--json FILE]

With `--ranks` every part is a process of its own (gloo); without, parts are worked on one after
another in this process, by the same code and with the same counts. Only exchanges and bytes are
counted; nothing is timed. Every answer is compared with one that is far more precise.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import gnnkern
from bench.on_parts import communities, on_parts
from gnnkern.bench import report
from gnnkern.bench.results import write
from gnnkern.data import grid
from gnnkern.distributed import (
    DiffusionSystem,
    Partition,
    PartitionedGraph,
    Solver,
    SolveStats,
    partition,
)
from gnnkern.progress import steps_progress

TOLERANCE = 1e-6
# Two orders below the tolerance, times the condition of the largest tau.
PRECISE = 1e-12


def _grid(side: int) -> gnnkern.Graph:
    return gnnkern.Graph.from_edge_index(grid(side, side).edge_index, side * side)


@dataclass(frozen=True)
class Case:
    """A graph and how far to diffuse."""

    graph: str
    tau: float


GRAPHS: dict[str, Callable[[], gnnkern.Graph]] = {
    "communities-500k": lambda: communities(500_000, 5_000_000, 5_000),
    "communities-50k": lambda: communities(50_000, 500_000, 2_000),
    # Few communities with hardly an edge between them: parts that know little of each other.
    "islands-50k": lambda: communities(50_000, 500_000, 2_000, 0.99, 16),
    "grid-200": lambda: _grid(200),
}
CASES = {
    f"{graph}-tau{tau}": Case(graph, float(tau))
    for graph, taus in {
        "communities-500k": (100,),
        "communities-50k": (10, 100),
        "islands-50k": (10, 100),
        "grid-200": (10, 100),
    }.items()
    for tau in taus
}

_COMMON: dict[str, Any] = {"tol": TOLERANCE, "max_iter": 5000, "must_converge": False}
_SCHWARZ = _COMMON | {"preconditioner": "schwarz"}
METHODS = {
    "Jacobi": Solver(method="stationary", preconditioner="none", **_COMMON),
    "conjugate gradients": Solver(method="cg", preconditioner="none", **_COMMON),
    "Schwarz": Solver(method="cg", coarse=0, **_SCHWARZ),
    "Schwarz, coarse": Solver(method="cg", **_SCHWARZ),
    "Schwarz, 16 coarse per part": Solver(method="cg", coarse=16, **_SCHWARZ),
    "Schwarz, GMRES": Solver(method="gmres", coarse=0, **_SCHWARZ),
    "Schwarz, coarse, GMRES": Solver(method="gmres", **_SCHWARZ),
    "Schwarz, stationary": Solver(method="stationary", coarse=0, **_SCHWARZ),
    "Schwarz, coarse, stationary": Solver(method="stationary", **_SCHWARZ),
}


def right_sides(num_nodes: int) -> Tensor:  # float64 [N, 2]
    """A column of mean zero, and one of positive values, whose mean diffusion keeps."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(num_nodes, generator=generator, dtype=torch.float64)
    positive = torch.rand(num_nodes, generator=generator, dtype=torch.float64)
    return torch.stack([normal, positive], dim=1)


def precise(graph: gnnkern.Graph, b: Tensor, tau: float) -> tuple[Tensor, str]:
    """The answer, and how it was found: a direct solve where its fill-in is small."""
    if graph.max_degree <= 8:
        import scipy.sparse
        import scipy.sparse.linalg

        src, dst = graph.edge_index.numpy()
        share = 1.0 / graph.in_degree.double().numpy()[dst]
        size = (graph.num_dst, graph.num_dst)
        s = scipy.sparse.coo_array((share, (dst, src)), shape=size).tocsc()
        matrix = (1 + tau) * scipy.sparse.eye_array(graph.num_dst, format="csc") - tau * s
        return torch.from_numpy(
            scipy.sparse.linalg.splu(matrix).solve(b.numpy())
        ), "direct (SuperLU)"
    system = DiffusionSystem(graph, dtype=b.dtype)
    x, stats = system.solve(b, torch.tensor([tau], dtype=b.dtype), Solver(tol=PRECISE))
    residual = float(stats.residuals[-1].max())
    return x, f"conjugate gradients in one process, residual {residual:.1e}"


def solve(
    graph: gnnkern.Graph,
    parts: Partition | None,
    b: Tensor,  # [n, 2]
    exact: Tensor,  # [n, 2]
    tau: float,
    names: Sequence[str],
) -> list[dict[str, Any]]:
    """A row of the table for each method, the same on every rank but for `bytes`."""
    system = DiffusionSystem(graph, partition=parts, dtype=b.dtype)
    rows = []
    for name in names:
        x, stats = system.solve(b, torch.tensor([tau], dtype=b.dtype), METHODS[name])
        squares = torch.stack([(x - exact).square().sum(0), exact.square().sum(0)])
        error = system.blocks.sum(squares)
        rows.append(_row(name, stats, (error[0] / error[1]).sqrt()))
    return rows


def _row(name: str, stats: SolveStats, error: Tensor) -> dict[str, Any]:
    history = stats.residuals  # [steps, 2]
    steps = [int((column > TOLERANCE).sum()) for column in history.T]
    return {
        "method": name,
        "exchanges": stats.exchanges,
        "setup_exchanges": stats.setup_exchanges,
        "iterations": stats.iterations,
        "iterations_by_column": steps,
        "sweeps": stats.sweeps,
        "coarse": stats.coarse,
        "bytes": stats.bytes,
        "reductions": stats.reductions,
        "residual": float(history[-1].max()),
        "error": error.tolist(),
        "converged": bool(stats.converged.all()),
    }


def _on_rank(
    graph: PartitionedGraph, rows: dict[str, Tensor], tau: float, names: Sequence[str]
) -> list[dict[str, Any]]:
    found = solve(graph, None, rows["b"], rows["exact"], tau, names)
    counts = graph.sum_over_ranks(torch.tensor([row["bytes"] for row in found]))
    for row, count in zip(found, counts.tolist(), strict=True):
        row["bytes"] = count
    return found


def measure(case: Case, parts: int, names: Sequence[str], ranks: bool) -> dict[str, Any]:
    """All methods on one graph."""
    graph = GRAPHS[case.graph]()
    divided = partition(graph, parts, "metis")
    b = right_sides(graph.num_dst)
    exact, how = precise(graph, b, case.tau)
    if ranks:
        rows = on_parts(_on_rank, graph, divided, {"b": b, "exact": exact}, case.tau, names)
    else:
        rows = solve(graph, divided, b, exact, case.tau, names)
    return {
        "graph": case.graph,
        "nodes": graph.num_dst,
        "edges": graph.num_edges,
        "tau": case.tau,
        "parts": parts,
        "processes": parts if ranks else 1,
        "cut": divided.quality.cut,
        "rows_per_exchange": sum(divided.quality.ghosts.values()),
        "answer": how,
        "rows": rows,
    }


def table(results: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of markdown: exchanges by method and case."""
    return report.markdown(
        {
            "graph": result["graph"],
            "tau": f"{result['tau']:g}",
            "method": row["method"],
            "exchanges": row["exchanges"] if row["converged"] else f"> {row['exchanges']}",
            "before the first": row["setup_exchanges"],
            "sweeps": row["sweeps"],
            "MB": f"{row['bytes'] / 1e6:.1f}",
            "residual": f"{row['residual']:.1e}",
            "error": f"{max(row['error']):.1e}",
        }
        for result in results
        for row in result["rows"]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser("bench.diffusion", description=__doc__)
    parser.add_argument("--case", action="append", choices=[*CASES], help="default: all")
    parser.add_argument("--method", action="append", choices=[*METHODS], help="default: all")
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--ranks", action="store_true", help="a process for every part")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    head = [
        f"machine: {report.machine_line()}",
        f"commit: {report.commit()}",
        f"command: python -m bench.diffusion {shlex.join(arguments or sys.argv[1:])}",
        f"two columns of float64 to a residual of {TOLERANCE:g}; S is the mean over in-neighbours; "
        "METIS parts; exchanges counted, nothing timed",
    ]
    results: list[dict[str, Any]] = []
    names = options.case or [*CASES]
    with steps_progress("cases", len(names), enabled=sys.stderr.isatty()) as steps:
        for name in names:
            steps.begin(name)
            methods = options.method or [*METHODS]
            results.append(measure(CASES[name], options.parts, methods, options.ranks))
            steps.end(str(results[-1]["rows"][-1]["exchanges"]))
            if options.json is not None:
                # After every case, so that the last one may take its time.
                write(options.json, {"header": head, "cases": results})
    print("\n".join([*(f"- {line}" for line in head), "", *table(results)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
