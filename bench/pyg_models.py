"""Models of PyG as they are, and the same models after one line: `gnnkern.accelerate(model)`.

    python -m bench.pyg_models [--graph tolokers.npz] [--graph powerlaw_1m] [--json FILE]

Two layers each, forward and backward, in one process and in turns, after a comparison of results
and gradients. Three times are told apart: a step on a graph that was seen before, the first step on
it, which sorts, and a step on a new `edge_index` every time, as sampled mini-batches are.

The products of dense matrices are torch's on both sides. Their share of a step says how much of it
is left to gnnkern, and the ratio that they allow what would be reached if the rest took no time.
"""

from __future__ import annotations

import argparse
import copy
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import gnnkern
from gnnkern.bench import report
from gnnkern.bench.graphs import BenchGraph, bench_graph
from gnnkern.bench.harness import steady_process
from gnnkern.bench.results import geometric_mean, write
from gnnkern.bench.timing import MAX_ROUNDS, seconds_of, time_in_turns
from gnnkern.progress import steps_progress

WIDTH = 64
CLASSES = 16
HEADS = 4
RELATIONS = 8
AGGREGATORS = ["mean", "max", "min", "std"]
SCALERS = ["identity", "amplification", "attenuation"]
# Of the largest element. Gradients are allowed more: where a score is zero but for rounding, leaky
# ReLU takes one slope or the other.
TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-2


# Torch's products of dense matrices.
DENSE = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}


class TwoLayers(nn.Module):
    """Layer, tanh, layer: without a kink, where rounding would turn a gradient on or off."""

    def __init__(self, layer: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.first, self.second = layer(WIDTH, WIDTH), layer(WIDTH, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor, *more: Tensor) -> Tensor:
        """[N, F] -> [N, CLASSES]."""
        out: Tensor = self.second(self.first(x, edge_index, *more).tanh(), edge_index, *more)
        return out


def _mlp(width: int, out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, out), nn.Tanh(), nn.Linear(out, out))


def models(graph: BenchGraph) -> dict[str, Callable[[], TwoLayers]]:
    """Constructors by name, in PyG's own classes."""
    from torch_geometric import nn as pyg

    degrees = torch.bincount(graph.graph.in_degree.long())
    layers: dict[str, Callable[[int, int], nn.Module]] = {
        "GCN": lambda a, b: pyg.GCNConv(a, b),
        "SAGE": lambda a, b: pyg.SAGEConv(a, b),
        "GAT": lambda a, b: pyg.GATConv(a, b // HEADS, HEADS),
        "GATv2": lambda a, b: pyg.GATv2Conv(a, b // HEADS, HEADS),
        "Transformer": lambda a, b: pyg.TransformerConv(a, b // HEADS, HEADS),
        "GIN": lambda a, b: pyg.GINConv(_mlp(a, b)),
        "PNA": lambda a, b: pyg.PNAConv(a, b, AGGREGATORS, SCALERS, degrees),
        "RGCN": lambda a, b: pyg.RGCNConv(a, b, RELATIONS),
    }
    return {name: lambda layer=layer: TwoLayers(layer) for name, layer in layers.items()}  # type: ignore[misc]


def step(model: nn.Module, x: Tensor, inputs: Sequence[Tensor], weight: Tensor) -> list[Tensor]:
    """The result and the gradients of the features and of all parameters."""
    x = x.detach().requires_grad_()
    out = model(x, *inputs)
    leaves = [x, *model.parameters()]
    return [out.detach(), *torch.autograd.grad((out * weight).sum(), leaves)]


def furthest(results: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference, of the largest element of each tensor.

    A gradient that is zero but for rounding, as that of a bias which softmax cancels, is held
    against a thousandth of the largest of all.
    """
    sizes = [float(b.abs().max()) for b in expected]
    least = max(sizes) / 1000
    return max(
        float((a - b).abs().max()) / max(size, least)
        for a, b, size in zip(results, expected, sizes, strict=True)
    )


def dense_share(run: Callable[[], object]) -> float:
    """The share of products of dense matrices in the time that torch's profiler sees."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    events = profile.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    dense = sum(event.self_cpu_time_total for event in events if event.key in DENSE)
    return float(dense) / max(float(total), 1e-9)


def measure(graph: BenchGraph, name: str, seconds: float, rounds: int) -> dict[str, Any]:
    """One model on one graph: a row of the table."""
    torch.manual_seed(0)
    plain = models(graph)[name]()
    ours = gnnkern.accelerate(copy.deepcopy(plain))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(graph.num_nodes, WIDTH, generator=generator)
    weight = torch.randn(graph.num_nodes, CLASSES, generator=generator)
    more: tuple[Tensor, ...] = ()
    if name == "RGCN":
        more = (torch.randint(0, RELATIONS, (graph.num_edges,), generator=generator),)

    def inputs() -> tuple[Tensor, ...]:
        return graph.edge_index.clone(), *(tensor.clone() for tensor in more)

    seen = inputs()
    # What only the first call of a process pays is no part of the first call on a graph.
    expected, _ = step(plain, x, seen, weight), step(ours, x, inputs(), weight)
    first = seconds_of(lambda: step(ours, x, seen, weight))
    results = step(ours, x, seen, weight)
    difference = furthest(results[:1], expected[:1])
    of_gradients = furthest(results[1:], expected[1:])
    if difference > TOLERANCE or of_gradients > GRADIENT_TOLERANCE:
        exact = step(copy.deepcopy(plain).double(), x.double(), seen, weight.double())
        for what, part in (("results", slice(1)), ("gradients", slice(1, None))):
            mine, theirs = (furthest(of[part], exact[part]) for of in (results, expected))
            if mine > theirs:
                raise AssertionError(
                    f"{name} on {graph.name}: {what} are off by {mine:.1e}, PyG's by {theirs:.1e}"
                )
        del exact
    del expected, results
    runs = {
        "pyg": lambda: step(plain, x, seen, weight),
        "gnnkern": lambda: step(ours, x, seen, weight),
        "pyg, new edges": lambda: step(plain, x, inputs(), weight),
        "gnnkern, new edges": lambda: step(ours, x, inputs(), weight),
    }
    timings = time_in_turns(runs, seconds, rounds)
    share = dense_share(runs["gnnkern"])
    ratio = timings["pyg"].median / timings["gnnkern"].median
    return {
        "model": name,
        "graph": graph.name,
        "first_ms": first * 1e3,
        "difference": difference,
        "difference_of_gradients": of_gradients,
        "ratio": ratio,
        "dense_share": share,
        "ratio_allowed": ratio / share,
        "ratio_new_edges": timings["pyg, new edges"].median / timings["gnnkern, new edges"].median,
        "memory_ratio": timings["gnnkern"].peak_bytes / max(timings["pyg"].peak_bytes, 1),
        "results": {
            run: {
                "median_ms": t.median * 1e3,
                "quartiles_ms": [t.first_quartile * 1e3, t.third_quartile * 1e3],
                "rounds": t.rounds,
                "peak_mb": t.peak_bytes / 1e6,
            }
            for run, t in timings.items()
        },
    }


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of markdown."""
    lines = report.markdown(
        {
            "model": row["model"],
            "graph": row["graph"],
            "PyG ms": round(row["results"]["pyg"]["median_ms"], 1),
            "gnnkern ms": round(row["results"]["gnnkern"]["median_ms"], 1),
            "ratio": f"{row['ratio']:.2f}",
            "dense products": f"{row['dense_share']:.0%}",
            "ratio they allow": f"{row['ratio_allowed']:.1f}",
            "first step ms": round(row["first_ms"], 1),
            "ratio, new edges every step": f"{row['ratio_new_edges']:.2f}",
            "PyG MB": round(row["results"]["pyg"]["peak_mb"]),
            "gnnkern MB": round(row["results"]["gnnkern"]["peak_mb"]),
        }
        for row in rows
    )
    mean = geometric_mean([row["ratio"] for row in rows])
    return [*lines, "", f"geometric mean of the ratios: {mean:.2f}"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser("bench.pyg_models", description=__doc__)
    parser.add_argument("--graph", action="append", metavar="SPEC", help="default: powerlaw_1m")
    parser.add_argument("--model", action="append", metavar="NAME", help="default: all")
    parser.add_argument("--seconds", type=float, default=16.0, help="per model and graph")
    parser.add_argument("--rounds", type=int, default=MAX_ROUNDS, help="at most")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    steady_process()
    graphs = [bench_graph(spec) for spec in options.graph or ["powerlaw_1m"]]
    cells = [(graph, name) for graph in graphs for name in options.model or models(graph)]
    rows = []
    with steps_progress("models", len(cells), enabled=sys.stderr.isatty()) as steps:
        for graph, name in cells:
            steps.begin(f"{name} {graph.name}")
            rows.append(measure(graph, name, options.seconds, options.rounds))
            steps.end(f"{rows[-1]['ratio']:.2f}")
    import torch_geometric

    head = [
        f"machine: {report.machine_line()}",
        f"torch_geometric {torch_geometric.__version__}, Python {platform.python_version()}",
        f"commit: {report.commit()}",
        f"command: python -m bench.pyg_models {' '.join(arguments or sys.argv[1:])}",
        *(f"graph {graph.description}" for graph in graphs),
        f"two layers of width {WIDTH}, float32, forward and backward of the features and all "
        "parameters; medians",
    ]
    print("\n".join([*(f"- {line}" for line in head), "", *table(rows)]))
    if options.json is not None:
        write(options.json, {"header": head, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
