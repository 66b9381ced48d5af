"""Trainings on ranks by policy: test scores beside those of exact exchanges, and bytes sent.

    python -m bench.partitioned_training [--graph NAME] [--policy TEXT] [--parts 4] [--json FILE]

Every run trains a two-layer GCN on one process per part (gloo, METIS parts). The score is that of
the test nodes after the last epoch, by exact inference. Bytes are those of the training steps,
forward and backward, as they were handed to the process group; evaluation is not counted. Nothing
is timed.
"""

from __future__ import annotations

import argparse
import math
import shlex
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bench.on_parts import on_parts
from gnnkern.bench import report
from gnnkern.bench.results import write
from gnnkern.data import GraphData, load, power_law
from gnnkern.distributed import (
    PartitionedGraph,
    PartTraining,
    parse_policy,
    partition,
)
from gnnkern.distributed.command import node_tensors_of
from gnnkern.distributed.wire import as_wire
from gnnkern.progress import steps_progress
from gnnkern.recipes import RECIPES, Recipe
from gnnkern.train import network, optimizer_for, seeded, to_sum_one

MODEL = "gcn"
EXACT = "exact"
# Behind "@" the wire type of rows, and of gradients.
FEW = (EXACT, "anneal:16,8,4,1", "anneal:8,4,2,1@bfloat16,bfloat16")
MANY = (
    *FEW,
    "anneal:8,4,2,1",
    "hold:4",
    "drift:0.1",
    "sampled:0.3",
    "pipelined",
    "exact@int8,int8",
)
# Exact epochs at first: one of so many.
WARMUP_SHARE = 40
SEEDS = 5

_CLASSES, _FEATURES = 16, 32


def communities(nodes: int = 500_000, edges: int = 5_000_000, hub: int = 5_000) -> GraphData:
    """A power law with communities; a node's class is its community's, its features hardly tell.

    Every edge in both directions, nodes in random order, a tenth of them to train on.
    """
    data = power_law(nodes, edges, hub, 0.8, shuffle=False, seed=0)
    generator = torch.Generator().manual_seed(0)
    count = math.isqrt(nodes)
    community = torch.arange(nodes) * count // nodes  # [N]
    classes = torch.randint(_CLASSES, (count,), generator=generator)
    y = classes[community]
    # Half a standard deviation from the mean of the others: one node's features say little.
    centres = torch.randn(_CLASSES, _FEATURES, generator=generator)
    centres = 2.0 * centres / centres.norm(dim=1, keepdim=True)
    x = 0.5 * centres[y] + torch.randn(nodes, _FEATURES, generator=generator)
    order = torch.randperm(nodes, generator=generator)  # new id of each node
    edge_index = torch.cat([data.edge_index, data.edge_index.flip(0)], dim=1)
    part = torch.randint(10, (nodes,), generator=generator)
    back = order.argsort()
    return GraphData(
        name=f"communities-{nodes}",
        edge_index=order[edge_index],
        num_nodes=nodes,
        x=x[back],
        y=y[back],
        train_mask=(part == 0)[None],
        val_mask=(part == 1)[None],
        test_mask=(part > 1)[None],
    )


class Case(NamedTuple):
    """The data, what is compared, and the epochs where the recipe's would take hours."""

    make: Callable[[], GraphData]
    policies: Sequence[str]
    epochs: int | None = None


GRAPHS = {
    "cora": Case(lambda: load("cora.npz"), MANY),
    "tolokers": Case(lambda: load("tolokers.npz"), FEW),
    "communities-20k": Case(lambda: communities(20_000, 200_000, 1_000), MANY, 60),
    "communities-500k": Case(communities, FEW[:2], 60),
}


def _on_rank(
    graph: PartitionedGraph,
    rows: dict[str, torch.Tensor],
    recipe: Recipe,
    policies: Sequence[str],
    seeds: int,
    facts: dict[str, Any],
) -> list[dict[str, Any]]:
    return [
        _train(graph, rows, recipe, policy, seed, facts)
        for policy in policies
        for seed in range(seeds)
    ]


def _train(
    graph: PartitionedGraph,
    rows: dict[str, torch.Tensor],
    recipe: Recipe,
    policy: str,
    seed: int,
    facts: dict[str, Any],
) -> dict[str, Any]:
    with seeded(seed, torch.device("cpu")):
        net = network(MODEL, rows["x"].shape[1], facts["num_classes"], recipe)
        training = PartTraining(
            graph,
            rows,
            net,
            optimizer_for(net, recipe),
            recipe,
            **facts,
            policy=parse_policy(policy.partition("@")[0]),
            wire=policy.partition("@")[2] or None,
            warmup=max(recipe.epochs // WARMUP_SHARE, 1),
            seed=seed,
        )
        before = sum(graph.traffic.bytes.values())
        losses = [training.step(step) for step in range(recipe.epochs)]
        sent = sum(graph.traffic.bytes.values()) - before
        scores = training.evaluate()
    total = graph.sum_over_ranks(torch.tensor([float(sent)], dtype=torch.float64))
    return {
        "policy": policy,
        "seed": seed,
        "test": scores.test,
        "val": scores.val,
        "loss": losses[-1],
        "bytes": int(total),
    }


def measure(
    name: str, parts: int, policies: Sequence[str] | None, seeds: int, epochs: int | None = None
) -> dict[str, Any]:
    """All policies and seeds on one graph."""
    case = GRAPHS[name]
    policies = case.policies if policies is None else policies
    data = case.make()
    recipe = RECIPES[MODEL]
    recipe = replace(recipe, epochs=epochs or case.epochs or recipe.epochs)
    graph = data.graph()
    divided = partition(graph, parts, "metis")
    rows = node_tensors_of(data)
    if name == "cora":
        rows["x"] = to_sum_one(rows["x"])
    facts = {"num_nodes": data.num_nodes, "num_classes": data.num_classes}
    runs = on_parts(_on_rank, graph, divided, rows, recipe, policies, seeds, facts)
    return {
        "graph": data.name,
        "nodes": graph.num_dst,
        "edges": graph.num_edges,
        "parts": parts,
        "cut": divided.quality.cut,
        "epochs": recipe.epochs,
        "hidden": recipe.hidden,
        "metric": "ROC AUC" if data.num_classes == 2 else "accuracy",
        "rows": summarise(runs),
        "runs": runs,
    }


def summarise(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per policy: mean score, its standard error, bytes, and both beside exact."""
    by_policy: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        by_policy.setdefault(run["policy"], []).append(run)
    rows = []
    for policy, mine in by_policy.items():
        scores = [run["test"] for run in mine]
        error = statistics.stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else 0.0
        row = {
            "policy": policy,
            "test": statistics.mean(scores),
            "standard_error": error,
            "bytes": statistics.mean(run["bytes"] for run in mine),
        }
        rows.append(row)
    exact = next((row for row in rows if row["policy"] == EXACT), None)
    for row in rows:
        row["bytes_of_exact"] = row["bytes"] / exact["bytes"] if exact else None
        row["points_from_exact"] = 100 * (row["test"] - exact["test"]) if exact else None
    return rows


def table(results: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of markdown: scores and bytes by graph and policy."""
    return report.markdown(
        {
            "graph": result["graph"],
            "metric": result["metric"],
            "policy": row["policy"],
            "test, %": f"{100 * row['test']:.2f} ± {100 * row['standard_error']:.2f}",
            "from exact": _or_dash(row["points_from_exact"], "{:+.2f}"),
            "MB sent": f"{row['bytes'] / 1e6:.1f}",
            "of exact": _or_dash(row["bytes_of_exact"], "{:.2f}"),
        }
        for result in results
        for row in result["rows"]
    )


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser("bench.partitioned_training", description=__doc__)
    parser.add_argument("--graph", action="append", choices=[*GRAPHS], help="default: all")
    parser.add_argument(
        "--policy",
        action="append",
        metavar="TEXT",
        help="such as hold:4 or exact@int8; default: several",
    )
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--epochs", type=int, help="default: the recipe's, 60 on large graphs")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    for text in options.policy or []:
        policy, _, wire = text.partition("@")
        parse_policy(policy)
        as_wire(wire or None)
    head = [
        f"machine: {report.machine_line()}",
        f"commit: {report.commit()}",
        f"command: python -m bench.partitioned_training {shlex.join(arguments or sys.argv[1:])}",
        f"{MODEL} by its recipe, {options.seeds} seeds, METIS parts, one epoch in "
        f"{WARMUP_SHARE} exact at first; test score after the last epoch by exact inference; "
        "± standard error; bytes of the training steps, all ranks",
    ]
    results: list[dict[str, Any]] = []
    names = options.graph or [*GRAPHS]
    with steps_progress("graphs", len(names), enabled=sys.stderr.isatty()) as steps:
        for name in names:
            steps.begin(name)
            results.append(
                measure(name, options.parts, options.policy, options.seeds, epochs=options.epochs)
            )
            steps.end(f"{len(results[-1]['runs'])} runs")
            if options.json is not None:
                # After every graph, so that the last one may take its time.
                write(options.json, {"header": head, "graphs": results})
    print("\n".join([*(f"- {line}" for line in head), "", *table(results)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
