"""The benches of a stage: which cells, and their results as files that grow cell by cell."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bench.gpu.child import parse, short_name
from gnnkern.bench.graphs import forget_graphs
from gnnkern.bench.harness import OURS
from gnnkern.bench.peers import GROUPS
from gnnkern.bench.results import Report
from gnnkern.bench.run import failed, run
from gnnkern.bench.specs import Plan, parse_device

COMPILED = tuple(group for group in GROUPS if group.endswith(" compiled"))
EAGER = tuple(group for group in GROUPS if group not in COMPILED)

_SUMS = ("spmm_sum", "spmm_weighted", "spmm_max")
_ATTENTION = ("edge_softmax", "gat_attention", "gatv2_attention", "dot_attention")
_SEGMENTS = ("segment_sum", "segment_max")
_LAYERS = ("gat_layer", "gatv2_layer", "transformer_layer")
_OTHERS = (
    "scatter_sum",
    "scatter_max",
    "segment_softmax",
    "segment_gather",
    "sddmm_dot",
    "sddmm_heads",
    "multi_reduce_pna",
    "spmm_edge_rows",
    "spmm_add_max",
    "segment_matmul_8",
    "gather_matmul_8",
    "segment_logsumexp",
    "scatter_logsumexp",
    "scatter_std",
)


def plans(stage: str) -> list[Plan]:
    """What a stage measures on a GPU, the most important first.

    Features are as wide as those of the graphs' own data sets, about. What stores messages of every
    edge is measured where these fit into the memory.
    """
    arxiv = Plan(graphs=("arxiv_like",), widths=(128,), heads=(4,), packages=EAGER, cell_seconds=3)
    if stage == "headline":
        return [
            replace(arxiv, ops=(*_SUMS, *_ATTENTION, *_SEGMENTS)),
            replace(
                arxiv,
                ops=(*_SUMS, *_ATTENTION, "segment_sum"),
                graphs=("products_quarter",),
                widths=(64,),
            ),
            replace(arxiv, ops=_SUMS[:2], graphs=("proteins_like",), widths=(64,)),
            replace(arxiv, ops=_SUMS[:2], graphs=("reddit_like",), widths=(64,)),
            replace(arxiv, ops=_SUMS[:2], graphs=("products_like",), widths=(64,)),
        ]
    if stage == "hub":
        ops = ("spmm_sum", "spmm_max", "segment_sum", "edge_softmax", "gat_attention")
        hub = replace(arxiv, ops=ops, packages=("torch", "cusparse"), widths=(64,))
        return [replace(hub, graphs=("hub", "hub_even"))]
    if stage == "compiled":
        # Compiling takes seconds for each direction.
        ops = ("gat_attention", "spmm_max", "edge_softmax", "gatv2_attention", "dot_attention")
        of_torch, of_pyg = COMPILED
        return [
            replace(arxiv, ops=ops, packages=(of_pyg,)),
            replace(arxiv, ops=_LAYERS, packages=(of_pyg,)),
            replace(arxiv, ops=ops, packages=(of_torch,)),
        ]
    assert stage == "more", stage
    return [
        replace(arxiv, ops=(*_LAYERS, *_OTHERS)),
        replace(arxiv, ops=(*_SUMS, *_ATTENTION), dtypes=("bfloat16",)),
    ]


def rehearsal(stage: str) -> list[Plan]:
    """The same in a few seconds each, on a processor."""
    ops = {
        "headline": ("spmm_sum", "segment_sum"),
        "hub": ("spmm_sum",),
        "compiled": ("edge_softmax",),
        "more": ("scatter_max",),
    }[stage]
    graphs = ("tiny_hub", "tiny_even") if stage == "hub" else ("tiny",)
    return [
        Plan(
            ops=ops,
            graphs=graphs,
            widths=(4,),
            heads=(1,),
            packages=EAGER,
            backend="triton",
            threads=1,
            rounds=3,
            cell_seconds=0.1,
        )
    ]


def in_order(stage: str, device: str, folder: Path) -> Iterator[Plan]:
    """The plans of a stage, each with the file of its results."""
    used: dict[str, int] = {}
    for plan in rehearsal(stage) if device == "cpu" else plans(stage):
        words = [short_name(device), stage, plan.graphs[0], *plan.dtypes]
        if plan.dtypes == ("float32",):
            words.pop()
        name = "_".join(words)
        used[name] = used.get(name, 0) + 1
        if used[name] > 1:
            name = f"{name}_{used[name]}"
        yield replace(plan, device=parse_device(device), json=folder / f"{name}.json")


def measure(
    stage: str, device: str, folder: Path, seconds: float, command: str, commit: str | None
) -> list[Report]:
    """Measure every plan, each with its part of what is left of the time."""
    end = time.monotonic() + seconds
    reports = []
    todo = list(in_order(stage, device, folder))
    cells = [len(list(plan.cells())) for plan in todo]
    for number, plan in enumerate(todo):
        left = max(end - time.monotonic(), 0.0)
        share = left * cells[number] / sum(cells[number:])
        reports.append(run(replace(plan, budget=share, commit=commit), command))
        forget_graphs()
    return reports


def wrong(reports: Sequence[Report]) -> list[str]:
    """What is wrong with results of gnnkern."""
    return [
        f"{row['op']} {row['graph']} {row['width']} {row['dtype']} {row['direction']}: {why}"
        for report in reports
        if failed(report)
        for row in report["cells"]
        for why in [row["failed"].get(OURS)]
        if why is not None
    ]


def _main() -> int:
    options = parse()
    command = f"python -m bench.gpu --stage {options.stage}"
    reports = measure(
        options.stage, options.device, options.out, options.seconds, command, options.commit
    )
    found = wrong(reports)
    for line in found:
        print(f"wrong: {line}")
    done = sum(len(report["cells"]) for report in reports)
    left = sum(len(report["not_measured"]) for report in reports)
    print(f"{done} cells measured, {left} not, {len(found)} wrong")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(_main())
