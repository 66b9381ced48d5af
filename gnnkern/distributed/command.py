"""`gnnkern partition`: divide a graph from a file and write the parts."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from gnnkern.data import load
from gnnkern.data.graph_data import GraphData
from gnnkern.distributed.cut import cut
from gnnkern.distributed.hierarchy import LEVELS
from gnnkern.distributed.methods import METHODS
from gnnkern.distributed.partition import Partition, partition
from gnnkern.distributed.storage import Manifest, save_parts
from gnnkern.distributed.vertex_cover import with_covered_rows
from gnnkern.progress import step_progress

__all__ = ["add_partition", "node_tensors_of", "read"]

_EXAMPLES = """
examples:
  gnnkern partition --data tolokers.npz --parts 4 --out parts
  gnnkern partition --data big.npz --parts 16 --method fennel --out parts
  gnnkern partition --data cora.npz --parts 8 --hierarchy 2,4 --balance nodes+training --out parts
"""


def add_partition(commands: Any, data_help: str) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "partition",
        help="divide a graph among ranks and write the parts",
        description="Divide the nodes of a graph among ranks, so that few edges are cut and parts "
        "are even, and write a folder with a manifest and a file per rank, with its rows of the "
        "features, labels and splits. Prints what an exchange between the parts costs.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", default="digits", metavar="SOURCE", help=data_help)
    parser.add_argument("--parts", type=int, required=True, metavar="P", help="number of ranks")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--method", choices=list(METHODS), default="metis", help="default: metis")
    parser.add_argument(
        "--hierarchy",
        type=_counts,
        metavar="H,D",
        help="hosts and devices per host, and ranks per device; default: one host",
    )
    parser.add_argument(
        "--balance",
        default="nodes",
        metavar="WHAT",
        help='what parts are even in: "nodes", "edges", "training", or several joined by "+"',
    )
    parser.add_argument(
        "--split", type=int, default=0, metavar="N", help="split whose training nodes count"
    )
    parser.add_argument(
        "--reverse", action="store_true", help="keep the out-edges too (directed graphs)"
    )
    parser.add_argument(
        "--cover",
        action="store_true",
        help="count as well the rows that sums and means exchange under a vertex cover",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=_run)


def node_tensors_of(data: GraphData) -> dict[str, Tensor]:
    """What of a graph's data has a row per node: features, labels and splits as columns."""
    tensors = {"x": data.x, "y": data.y}
    for name in ("train_mask", "val_mask", "test_mask"):
        mask = getattr(data, name)
        tensors[name] = None if mask is None else mask.T
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def read(source: str, say: Callable[[int, int, str], None]) -> GraphData:
    """A graph that can be divided, for a command that tells what it does.

    Raises:
        ValueError: it is bipartite, or there is none.
    """
    say(0, 1, f"reading {source}")
    data = load(source)
    if data.is_bipartite:
        raise ValueError(f"{source}: a bipartite graph has no parts")
    return data


def _run(options: argparse.Namespace) -> None:
    begin = time.perf_counter()
    with step_progress("partition") as say:
        data = read(options.data, say)
        graph = data.graph()
        train_mask = None if data.train_mask is None else data.train_mask[options.split]
        parts = partition(
            graph,
            options.parts,
            options.method,
            hierarchy=options.hierarchy,
            balance=options.balance,
            train_mask=train_mask,
            seed=options.seed,
            report=say,
        )
        if options.cover:
            parts = with_covered_rows(graph, parts)
        manifest = save_parts(
            options.out,
            cut(graph, parts, reverse=options.reverse),
            parts,
            node_tensors=node_tensors_of(data),
            edge_tensors={} if data.edge_weight is None else {"edge_weight": data.edge_weight},
            extra={"data": data.name, "num_classes": data.num_classes},
            report=say,
        )
    seconds = time.perf_counter() - begin
    if options.json:
        print(json.dumps(manifest.quality | {"seconds": seconds}, indent=2))
        return
    _print(parts, manifest, Console() if sys.stdout.isatty() else Console(width=120))
    print(f"{options.out.resolve()}: {manifest.num_parts} parts in {seconds:.1f} s")


def _print(parts: Partition, manifest: Manifest, console: Console) -> None:
    quality = parts.quality
    console.print(repr(parts), highlight=False, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    headings = ["part", "nodes", "edges", "ghosts"]
    columns = [quality.nodes, quality.edges, quality.part_ghosts]
    if quality.training is not None:
        headings.append("training nodes")
        columns.append(quality.training)
    headings.append("MiB")
    for heading in headings:
        table.add_column(heading, justify="right")
    for rank, entry in enumerate(manifest.files):
        counts = [f"{column[rank]:,}" for column in columns]
        table.add_row(str(rank), *counts, f"{entry['bytes'] / 2**20:.1f}")
    console.print(table)
    for level in LEVELS:
        rows, edges = quality.ghosts[level], quality.cut_edges[level]
        if edges:
            text = f"{level:>8}: {rows:,} rows per exchange, for {edges:,} edges"
            if quality.cover is not None:
                text += f"; {quality.cover[level]:,} under a cover"
            console.print(text, highlight=False)


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be like 2,4, got {text!r}") from None
