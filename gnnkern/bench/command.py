"""`gnnkern bench`: its options, and what it does with them."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from gnnkern.bench.compare import compare, print_comparison
from gnnkern.bench.graphs import RECIPES
from gnnkern.bench.harness import OURS
from gnnkern.bench.plots import need_matplotlib
from gnnkern.bench.problems import KINDS
from gnnkern.bench.render import print_report
from gnnkern.bench.report_page import write_report
from gnnkern.bench.results import read
from gnnkern.bench.run import failed, run
from gnnkern.bench.specs import (
    BACKENDS,
    DEFAULT_GRAPHS,
    DEFAULT_HEADS,
    DEFAULT_OPS,
    DEFAULT_WIDTHS,
    DTYPES,
    NO_PEERS,
    PEER_PACKAGES,
    Plan,
    parse_counts,
    parse_device,
    parse_dtypes,
    parse_ops,
    parse_peers,
)

if TYPE_CHECKING:
    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_DESCRIPTION = """
Measure gnnkern beside its peers, in one process: every result is checked against float64, then
all take turns. Prints medians, ratios, achieved bandwidth and the floor that it stands against;
exits with 1 where a result of gnnkern is wrong.
"""

_EPILOG = f"""
ops: {", ".join(KINDS)};
the first words of several name them all (spmm), and so does "all"
graphs: a recipe ({", ".join(RECIPES)}),
a generated graph (powerlaw:nodes,edges,max_degree rmat:nodes,edges uniform:nodes,edges
hub:nodes,edges,hub_degree grid:rows,cols star:leaves), or a file that gnnkern.data.load reads

examples:
  gnnkern bench                                            {", ".join(DEFAULT_OPS)}
  gnnkern bench spmm --graph cora.npz --width 16,64        every spmm on a graph from a file
  gnnkern bench all --graph tiny --width 8 --rounds 3      a quick look at everything
  gnnkern bench spmm_sum --dtype float32,bfloat16 --peer torch,pyg
  gnnkern bench --json out.json --budget 600               stop after ten minutes
  gnnkern bench --json out.json --resume                   go on where that stopped
  gnnkern bench --json out.json --report report            plots and one HTML page
  gnnkern bench --from out.json --report report            the same from a file
  gnnkern bench --compare before.json after.json           what changed beyond noise
"""


def add_bench(commands: _Commands) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "bench",
        help="every op beside its peers",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group("what").add_argument
    parser.add_argument("ops", nargs="*", metavar="OP", help="what to measure, see below")
    add(
        "--graph",
        action="append",
        metavar="SPEC",
        help=f"may be repeated; default: {', '.join(DEFAULT_GRAPHS)}",
    )
    add("--width", default=_list(DEFAULT_WIDTHS), metavar="LIST", help="default: %(default)s")
    add(
        "--heads",
        default=_list(DEFAULT_HEADS),
        metavar="LIST",
        help="of edge_softmax, in place of its width; default: %(default)s",
    )
    add(
        "--dtype",
        default="float32",
        metavar="LIST",
        help=f"some of {', '.join(DTYPES)}; default: %(default)s",
    )
    add("--backend", choices=BACKENDS, default="auto", help=f"of {OURS}; default: %(default)s")
    add(
        "--peer",
        metavar="LIST",
        help=f"some of {', '.join(PEER_PACKAGES)}, or {NO_PEERS}; default: all",
    )
    add("--device", default="cpu", metavar="DEV", help="cpu or cuda; default: %(default)s")
    add = parser.add_argument_group("how long").add_argument
    plan = Plan()
    add("--threads", type=_positive, default=plan.threads, metavar="N", help="default: %(default)s")
    add(
        "--rounds",
        type=_positive,
        default=plan.rounds,
        metavar="N",
        help="at most, per contender; default: %(default)s",
    )
    add(
        "--cell-seconds",
        type=_seconds,
        default=plan.cell_seconds,
        metavar="X",
        help="of timing, per op, graph, width and dtype; default: %(default)s",
    )
    add(
        "--budget",
        type=_seconds,
        default=plan.budget,
        metavar="X",
        help="seconds in all; cells beyond are listed as not measured",
    )
    add(
        "--memory-gb",
        type=_seconds,
        default=plan.memory_gb,
        metavar="X",
        help="leave out what would need more",
    )
    add(
        "--leave-out",
        type=_seconds,
        default=plan.leave_out,
        metavar="X",
        help="leave out peers that at another width took X times as long as the best one",
    )
    add = parser.add_argument_group("output").add_argument
    add("--json", type=Path, metavar="FILE", help="write every cell as it is made")
    add("--resume", action="store_true", help="keep the cells that FILE has, measure the others")
    add("--report", type=Path, metavar="DIR", help="write plots and index.html into this folder")
    add("--from", dest="source", type=Path, metavar="FILE", help="show results, measure nothing")
    add("--quiet", action="store_true", help="no progress")
    add = parser.add_argument_group("comparison").add_argument
    add("--compare", nargs=2, type=Path, metavar=("A", "B"), help="what changed from A to B")
    add(
        "--fail-on-slower",
        action="store_true",
        help=f"exit with 1 where {OURS} is slower in B, beyond noise",
    )
    parser.set_defaults(run=_bench)


def _bench(options: argparse.Namespace) -> int:
    _check_together(options)
    console = Console() if sys.stdout.isatty() else Console(width=120)
    if options.compare is not None:
        comparison = compare(*map(read, options.compare))
        print_comparison(comparison, console)
        return int(options.fail_on_slower and bool(comparison.slower))
    for path in (options.json, options.report):
        if path is not None and not path.resolve().parent.is_dir():
            raise ValueError(f"{path}: there is no folder {path.resolve().parent}")
    if options.report is not None:
        need_matplotlib()
    if options.source is not None:
        report = read(options.source)
    else:
        report = run(_plan(options), _command(options), progress=not options.quiet)
    print_report(report, console)
    if options.json is not None:
        _say(f"results: {options.json.resolve()}")
    if options.report is not None:
        _say(f"report: {write_report(report, options.report).resolve()}")
    return int(failed(report))


def _check_together(options: argparse.Namespace) -> None:
    """Raise where one option makes another mean nothing."""
    alone = "--compare" if options.compare is not None else None
    alone = "--from" if alone is None and options.source is not None else alone
    if alone is not None:
        beside = {
            "OP": options.ops,
            "--json": options.json,
            "--resume": options.resume,
            "--graph": options.graph,
            "--peer": options.peer,
            "--report": alone == "--compare" and options.report,
            "--from": alone == "--compare" and options.source,
        }
        for name, given in beside.items():
            if given:
                raise ValueError(f"bench: {name} must not stand beside {alone}")
    if options.fail_on_slower and options.compare is None:
        raise ValueError("bench: --fail-on-slower must stand beside --compare")
    if options.resume and options.json is None:
        raise ValueError("bench: --resume must stand beside --json, the file to continue")


def _plan(options: argparse.Namespace) -> Plan:
    return Plan(
        ops=parse_ops(options.ops or DEFAULT_OPS),
        graphs=list(dict.fromkeys(options.graph or DEFAULT_GRAPHS)),
        widths=parse_counts("width", options.width),
        heads=parse_counts("heads", options.heads),
        dtypes=parse_dtypes(options.dtype),
        backend=options.backend,
        packages=None if options.peer is None else parse_peers(options.peer),
        device=parse_device(options.device),
        threads=options.threads,
        rounds=options.rounds,
        cell_seconds=options.cell_seconds,
        budget=options.budget,
        memory_gb=options.memory_gb,
        leave_out=options.leave_out,
        json=options.json,
        resume=options.resume,
    )


def _command(options: argparse.Namespace) -> str:
    return shlex.join(["gnnkern", *options.arguments])


def _list(values: tuple[int, ...]) -> str:
    return ",".join(map(str, values))


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be >= 1, got {value}")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be > 0, got {value}")
    return value


def _say(line: str) -> None:
    print(line, file=sys.stderr)
