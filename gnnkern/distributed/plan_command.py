"""`gnnkern plan`: what a training on more ranks and hosts would cost, before there are any."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from gnnkern.distributed.command import read
from gnnkern.distributed.forecast import Compute, LinkSpeeds, Workload
from gnnkern.distributed.hierarchy import LEVELS
from gnnkern.distributed.link_schedule import parse_period
from gnnkern.distributed.methods import METHODS
from gnnkern.distributed.planning import Prospect, prospects
from gnnkern.graph import Graph
from gnnkern.hardware import Machine, probe
from gnnkern.progress import step_progress

__all__ = ["add_plan"]

_DESCRIPTION = """
Divide a graph for each number of ranks, place the parts on hosts so that few rows go from host to
host, and predict the rows, bytes and seconds of every exchange, the time of an epoch and the
memory that a rank holds in a step. The network is a GCN: each layer maps its rows, exchanges them
and sums over neighbours; the rows that need no other rank are computed meanwhile. Nothing is
trained.
"""

_EPILOG = """
"abroad" is the share of rows that go from host to host: with parts placed by chance, with part r on
rank r, and as they are placed here. "waits" is the share of an exact epoch that communication adds
to computing. "K" is the smallest period at which waiting for a kind of link takes no longer than
computing (--period of gnnkern train). docs/planning.md says what the predictions are made of.

examples:
  gnnkern plan --data cora.npz --parts 2..16
  gnnkern plan --data powerlaw:500_000,5_000_000,5000 --parts 8,64 --devices 8 --widths 256,256,64
  gnnkern plan --parts 4 --devices 2 --bandwidth network:0.025 --period host:2,network:8
  gnnkern plan --epoch-seconds 0.8 --machine node.json --json
"""

_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


def add_plan(commands: Any, data_help: str) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "plan",
        help="what a training on more ranks would cost, from real partitions",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group("what").add_argument
    add("--data", default="digits", metavar="SOURCE", help=data_help)
    add(
        "--widths",
        default="64,64",
        metavar="LIST",
        help="elements of the rows that each layer exchanges; default: %(default)s",
    )
    add(
        "--in-width",
        type=int,
        metavar="N",
        help="elements of an input row; default: the data's, or the first of --widths",
    )
    add("--dtype", choices=list(_DTYPES), default="float32", help="default: %(default)s")
    add(
        "--wire-bytes",
        type=int,
        metavar="N",
        help="bytes of an element on a link; default: those of the dtype",
    )
    add(
        "--period",
        default="1",
        metavar="K",
        help="epochs from one exchange to the next, for all links or by kind: host:2,network:8",
    )
    add = parser.add_argument_group("ranks").add_argument
    add(
        "--parts",
        default="2..32",
        metavar="LIST",
        help="numbers of ranks, like 4,12,32 or 2..1024 (doubling); default: %(default)s",
    )
    add("--devices", type=int, default=8, metavar="N", help="per host; default: %(default)s")
    add("--ranks", type=int, default=1, metavar="N", help="per device; default: %(default)s")
    add("--method", choices=list(METHODS), default="metis", help="default: %(default)s")
    add(
        "--nested",
        action="store_true",
        help="divide among hosts first and then among their devices; default: among all at once, "
        "and place the parts",
    )
    add("--seed", type=int, default=0, metavar="N", help="default: 0")
    usual = LinkSpeeds()
    add = parser.add_argument_group("links and devices").add_argument
    add(
        "--bandwidth",
        default="",
        metavar="LIST",
        help="GB/s (1e9 bytes) in each direction: of a rank for device and host, of a host for "
        f"network; default: {_numbers(usual.bytes_per_s, 1e-9)}",
    )
    add(
        "--latency",
        default="",
        metavar="LIST",
        help=f"microseconds per message; default: {_numbers(usual.latency_s, 1e6)}",
    )
    add(
        "--epoch-seconds",
        type=float,
        metavar="X",
        help="measured, of one process on the device of a rank with the whole graph; default: by "
        "the cost model",
    )
    add(
        "--machine",
        type=Path,
        metavar="FILE",
        help="what `gnnkern probe --json` said on the device of a rank; default: this machine, "
        "probed if it was not yet",
    )
    add("--threads", type=int, metavar="N", help="of a rank on this machine; default: torch's")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    parts, period = parse_parts(options.parts), parse_period(options.period)
    speeds = LinkSpeeds().updated(
        {level: 1e-6 * us for level, us in parse_numbers("latency", options.latency).items()},
        {level: 1e9 * gb for level, gb in parse_numbers("bandwidth", options.bandwidth).items()},
    )
    widths = tuple(_counts("widths", options.widths))
    with step_progress("plan") as say:
        data = read(options.data, say)
        width = options.in_width
        if width is None:
            width = widths[0] if data.x is None else data.num_features
        workload = Workload(width, widths, _DTYPES[options.dtype], options.wire_bytes)
        graph = data.graph()
        found = prospects(
            graph,
            parts,
            workload,
            _computing(options, graph, workload),
            speeds,
            method=options.method,
            devices=options.devices,
            ranks=options.ranks,
            nested=options.nested,
            period=period,
            seed=options.seed,
            report=say,
        )
    if options.json:
        print(json.dumps([each.to_dict() for each in found], indent=2))
        return
    console = Console() if sys.stdout.isatty() else Console(width=120)
    title = f"{data.name}: {graph.num_dst:,} nodes, {graph.num_edges:,} edges, {options.method}"
    print_prospects(title, found, console)


def _computing(options: argparse.Namespace, graph: Graph, workload: Workload) -> Compute | Machine:
    """The machine of a rank; or its rates, where an epoch was measured."""
    if options.machine is None:
        machine = probe()
    else:
        try:
            machine = Machine.from_dict(json.loads(options.machine.read_text()))
        except ValueError as error:
            raise ValueError(f"plan: {options.machine} is of no machine: {error}") from None
    if options.epoch_seconds is None:
        return machine
    rates = Compute.modelled(graph, workload, machine)
    return rates.scaled(options.epoch_seconds, graph.num_dst, graph.num_edges)


def print_prospects(title: str, found: Sequence[Prospect], console: Console) -> None:
    """Two tables: what an exchange moves, and how long an epoch takes."""
    results = [each.to_dict() for each in found]
    levels = [level for level in LEVELS if any(level in result["links"] for result in results)]
    moved = _table(
        f"{title}; of a rank: rows per exchange (mean / largest), MB (1e6 bytes) at most",
        ["ranks", "hosts", "cut"]
        + [f"{level}: {what}" for level in levels for what in ("rows", "MB per epoch")]
        + ["abroad by chance", "as numbered", "placed", "MB held"],
    )
    times = _table(
        "milliseconds of an epoch",
        ["ranks", "computing"]
        + [f"{level} exchanges" for level in levels]
        + ["exact", "waits"]
        + [f"K {level}" for level in levels]
        + ["period", "with it"],
    )
    for each, result in zip(found, results, strict=True):
        links, seconds = result["links"], result["seconds"]
        row = [f"{result['parts']:,}", f"{each.hierarchy.hosts:,}", f"{100 * result['cut']:.1f} %"]
        for level in levels:
            row += _moved(links[level]) if level in links else ["", ""]
        share, memory = result["network_share"], result["memory_bytes"]
        row += [f"{100 * part:.0f} %" for part in share.values()]
        moved.add_row(*row, f"{memory['max'] / 1e6:,.1f}")
        row = [f"{result['parts']:,}", _ms(seconds["computing"])]
        # Every layer's, there and back.
        row += [
            _ms(2 * sum(links[level]["exchange_s"])) if level in links else "" for level in levels
        ]
        row += [
            _ms(seconds["exact"]),
            f"{100 * (1 - seconds['computing'] / seconds['exact']):.0f} %",
        ]
        row += [
            f"{links[level]['balancing_period']:,}" if level in links else "" for level in levels
        ]
        row += [",".join(f"{level}:{steps}" for level, steps in each.period.items())]
        times.add_row(*row, _ms(seconds["with_period"]))
    console.print(moved)
    console.print(times)


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _moved(link: Mapping[str, Any]) -> list[str]:
    """Rows of an exchange, and megabytes of an epoch: every layer's, there and back."""
    rows, sizes = link["rows_per_exchange"], link["bytes_per_exchange"]
    most = 2e-6 * sum(size["max"] for size in sizes)
    return [f"{rows['mean']:,.0f} / {rows['max']:,}", f"{most:,.2f}"]


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.2f}"


def _numbers(by_level: Mapping[str, float], unit: float) -> str:
    return ",".join(f"{level}:{value * unit:g}" for level, value in by_level.items())


def parse_numbers(who: str, text: str) -> dict[str, float]:
    """Numbers by kind of link, of "host:10,network:1.25"; of "" none.

    Raises:
        ValueError: it is not like that, or there is no such kind of link.
    """
    numbers: dict[str, float] = {}
    for pair in text.split(",") if text else []:
        level, _, value = pair.partition(":")
        try:
            numbers[level] = float(value)
        except ValueError:
            level = ""
        if level not in LEVELS:
            raise ValueError(
                f"plan: {who} must be numbers of {', '.join(LEVELS)}, like host:10,network:1.25, "
                f"got {text!r}"
            )
    return numbers


def parse_parts(text: str) -> list[int]:
    """Numbers of ranks, of "4,12" or "2..1024", which doubles."""
    first, dots, last = text.partition("..")
    if not dots:
        return _counts("parts", text)
    (count,), (most,) = _counts("parts", first), _counts("parts", last)
    return [count << double for double in range((most // count).bit_length())]


def _counts(who: str, text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise ValueError(f"plan: {who} must be numbers >= 1, got {text!r}")
    return counts
