"""Epochs over a link of imposed bandwidth, beside what `gnnkern plan` predicts of them.

    python -m bench.namespaces [--mbit 200] [--period host:2,network:8] [--json FILE]

Makes two network namespaces, joined by a veth pair with a token bucket filter at both ends, starts
two ranks in each (gloo over the pair), and trains a GCN exactly and with a period for each kind of
link. The prediction knows the partition, the bandwidth, and an epoch of one process on one thread;
nothing of the runs that it predicts. Needs the right to make namespaces. They are removed at the
end, whatever that is, but for a SIGKILL.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import gnnkern
from bench.on_parts import communities
from gnnkern.bench import report
from gnnkern.bench.results import write
from gnnkern.distributed import PartitionedGraph, by_link, cut, load_part, partition, save_parts
from gnnkern.distributed.forecast import Compute, LinkSpeeds, Workload
from gnnkern.distributed.link_schedule import parse_period
from gnnkern.distributed.planning import Prospect, prospects
from gnnkern.distributed.policies import Exact
from gnnkern.distributed.training import PartTraining
from gnnkern.hardware import probe
from gnnkern.recipes import RECIPES
from gnnkern.train import network, optimizer_for

HOSTS, RANKS_PER_HOST = 2, 2
RANKS = HOSTS * RANKS_PER_HOST
WIDTH, CLASSES = 64, 16
# Seconds after which ranks give up, and are given up.
TIMEOUT = 120
# Of TCP over a host's own address, taken from no run: a tenth of a copy.
LOOPBACK_BYTES_PER_S = 1e9
# At the filter: above the 64 KiB of an offloaded segment, and a queue that drops nothing.
BUCKET = ("burst", "128kb", "latency", "2000ms")


def unavailable() -> str | None:
    """Why there can be no namespaces here; None: there can."""
    for program in ("ip", "tc"):
        if shutil.which(program) is None:
            return f"there is no {program}"
    name = f"gnnkern-try-{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if tried.returncode:
        return f"namespaces are not permitted: {tried.stderr.strip()}"
    _call("ip", "netns", "del", name)
    return None


@contextlib.contextmanager
def joined_namespaces(mbit: float) -> Iterator[list[tuple[str, str]]]:
    """Yield (namespace, interface) of two hosts with a link of so many Mbit/s each way.

    Raises:
        ValueError: mbit is not positive.
        OSError: a command failed; what was made is removed.
    """
    if not mbit > 0:
        raise ValueError(f"bench.namespaces: mbit must be > 0, got {mbit}")
    names = [f"gnnkern-{os.getpid()}-{host}" for host in range(HOSTS)]
    with contextlib.ExitStack() as undo:
        for name in names:
            _call("ip", "netns", "add", name)
            # The interfaces go with their namespaces.
            undo.callback(subprocess.run, ["ip", "netns", "del", name], check=False)
        ends = [f"gnn{os.getpid()}-{host}" for host in range(HOSTS)]
        pair = ("type", "veth", "peer", "name", ends[1], "netns", names[1])
        _call("ip", "link", "add", ends[0], "netns", names[0], *pair)
        for host, (name, end) in enumerate(zip(names, ends, strict=True)):
            _call("ip", "-n", name, "addr", "add", f"10.77.0.{host + 1}/24", "dev", end)
            for interface in (end, "lo"):
                _call("ip", "-n", name, "link", "set", interface, "up")
            rate = ("tbf", "rate", f"{mbit}mbit", *BUCKET)
            _call("tc", "-n", name, "qdisc", "add", "dev", end, "root", *rate)
        yield list(zip(names, ends, strict=True))


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{shlex.join(command)}: {done.stderr.strip()}")


# -- on a rank -------------------------------------------------------------------------------------


def training_of(
    graph: PartitionedGraph, rows: Mapping[str, Tensor], num_nodes: int, policy: Any
) -> PartTraining:
    """A GCN of two layers."""
    recipe = replace(RECIPES["gcn"], hidden=WIDTH)
    torch.manual_seed(0)
    net = network("gcn", WIDTH, CLASSES, recipe)
    return PartTraining(
        graph,
        rows,
        net,
        optimizer_for(net, recipe),
        recipe,
        num_nodes=num_nodes,
        num_classes=CLASSES,
        policy=policy,
    )


def seconds_of(training: PartTraining, steps: int, skipped: int) -> list[float]:
    """Seconds of `steps` steps behind the first ones; each ends with a sum over ranks."""
    seconds = []
    for step in range(skipped + steps):
        begin = time.perf_counter()
        training.step(step)
        seconds.append(time.perf_counter() - begin)
    return seconds[skipped:]


def events_of(graph: PartitionedGraph) -> dict[str, list[str]]:
    """In which order an op's exchange and its two halves begin and end, forward and backward."""
    traffic = graph.traffic

    def op(half: gnnkern.Graph, x: Tensor) -> Tensor:
        name = "interior" if half.num_src == graph.num_dst else "boundary"
        out = gnnkern.spmm(half, x)
        traffic.note(f"{name} computed")
        out.register_hook(lambda grad: traffic.note(f"gradient of {name}"))
        return out

    traffic.events = []
    x = torch.ones(graph.num_dst, WIDTH, requires_grad=True)
    out = graph.run_op(op, {"x": x}, {"x": "src"}, "dst")
    forward = list(traffic.events)
    traffic.events.clear()
    out.sum().backward()
    events = {"forward": forward, "backward": list(traffic.events)}
    traffic.events = None
    return events


def run_rank(options: argparse.Namespace) -> None:
    """Train exactly and with periods; the first rank writes seconds, bytes and events."""
    torch.set_num_threads(1)
    folder = Path(options.folder)
    alone = options.rank < 0
    if not alone:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder / 'store'}",
            rank=options.rank,
            world_size=RANKS,
            timeout=datetime.timedelta(seconds=TIMEOUT),
        )
    part, rows = load_part(folder / ("whole" if alone else "parts"), max(options.rank, 0))
    graph = PartitionedGraph.from_part(part)
    graph.prepare()
    result: dict[str, Any] = {}
    policies: dict[str, Any] = {"exact": Exact()}
    if not alone:
        result["events"] = events_of(graph)
        period = parse_period(options.period)
        policies["with_period"] = by_link(Exact(), period, part.hierarchy)
    for name, policy in policies.items():
        training = training_of(graph, rows, part.num_nodes, policy)
        # Whole windows: steps with and without an exchange count as often as they come.
        steps = options.steps * (options.window if name == "with_period" else 1)
        # The first step exchanges degrees; the second finds everything in place.
        skipped = options.window if name == "with_period" else 2
        graph.traffic.reset()
        result[name] = {"seconds": seconds_of(training, steps, skipped)}
        result[name] |= {"steps": steps + skipped, "bytes": dict(graph.traffic.bytes)}
    if options.rank <= 0:
        (folder / ("whole.json" if alone else "ranks.json")).write_text(json.dumps(result))
    if not alone:
        dist.destroy_process_group()


# -- beside it -------------------------------------------------------------------------------------


def start_ranks(arguments: Sequence[str], hosts: Sequence[tuple[str, str]] = ()) -> None:
    """Run the ranks, or one process alone, to their end; a failure ends all.

    Raises:
        RuntimeError: one failed, or the time was up.
    """
    processes = []
    for rank in range(RANKS if hosts else 1):
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "bench.namespaces", *arguments]
        command += ["--rank", str(rank if hosts else -1)]
        if hosts:
            namespace, interface = hosts[rank // RANKS_PER_HOST]
            environment["GLOO_SOCKET_IFNAME"] = interface
            command = ["ip", "netns", "exec", namespace, *command]
        processes.append(subprocess.Popen(command, env=environment))
    deadline = time.monotonic() + 2 * TIMEOUT
    try:
        while any(process.poll() is None for process in processes):
            if any(process.poll() for process in processes) or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        codes = [process.poll() for process in processes]
        if any(codes) or None in codes:
            raise RuntimeError(f"bench.namespaces: ranks ended with {codes} (None: still running)")
    finally:
        for process in processes:
            process.kill()
            process.wait()


def write_parts(folder: Path, graph: gnnkern.Graph, seed: int = 0) -> None:
    """The graph in one part and in one for each rank, with features, labels and a split."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.randint(4, (graph.num_dst, 1), generator=generator)
    rows = {
        "x": torch.randn(graph.num_dst, WIDTH, generator=generator),
        "y": torch.randint(CLASSES, (graph.num_dst,), generator=generator),
    }
    rows |= {"train_mask": kind < 2, "val_mask": kind == 2, "test_mask": kind == 3}
    for name, hierarchy in (("whole", (1, 1)), ("parts", (HOSTS, RANKS_PER_HOST))):
        parts = partition(
            graph,
            hierarchy[0] * hierarchy[1],
            "metis",
            hierarchy=hierarchy,
            balance="nodes+edges",
        )
        save_parts(folder / name, cut(graph, parts), parts, node_tensors=rows)


def predicted(graph: gnnkern.Graph, mbit: float, period: str, alone_s: float) -> Prospect:
    """What the plan says of the same parts.

    `alone_s` is an epoch of one process on one thread; a rank has its share of the cores.
    """
    workload = Workload(WIDTH, (WIDTH, CLASSES))
    share = max(RANKS / len(os.sched_getaffinity(0)), 1.0)
    rates = Compute.modelled(graph, workload, probe())
    rates = rates.scaled(share * alone_s, graph.num_dst, graph.num_edges)
    speeds = LinkSpeeds().updated({}, {"host": LOOPBACK_BYTES_PER_S, "network": mbit * 1e6 / 8})
    options: dict[str, Any] = {"devices": RANKS_PER_HOST, "nested": True}
    (prospect,) = prospects(
        graph, [RANKS], workload, rates, speeds, period=parse_period(period), **options
    )
    return prospect


def measure(graph: gnnkern.Graph, *, mbit: float, period: str, steps: int) -> dict[str, Any]:
    """Measured and predicted milliseconds of an epoch, exact and with periods."""
    periods = parse_period(period)
    window = max(periods.values()) if isinstance(periods, Mapping) else periods
    with tempfile.TemporaryDirectory(prefix="gnnkern-namespaces-") as name:
        folder = Path(name)
        write_parts(folder, graph)
        arguments = ["--folder", name, "--period", period]
        arguments += ["--steps", str(steps), "--window", str(window)]
        start_ranks(arguments)
        alone = json.loads((folder / "whole.json").read_text())
        alone_s = statistics.median(alone["exact"]["seconds"])
        prospect = predicted(graph, mbit, period, alone_s)
        with joined_namespaces(mbit) as hosts:
            start_ranks(arguments, hosts)
        ranks = json.loads((folder / "ranks.json").read_text())
    plan = prospect.to_dict()
    result: dict[str, Any] = {
        "nodes": graph.num_dst,
        "edges": graph.num_edges,
        "mbit_per_s": mbit,
        "period": prospect.period,
        "one_process_ms": 1e3 * alone_s,
        "events": ranks["events"],
        "plan": plan,
    }
    for kind in ("exact", "with_period"):
        measured = statistics.fmean(ranks[kind]["seconds"])
        expected = plan["seconds"][kind]
        result[kind] = {
            "measured_ms": 1e3 * measured,
            "predicted_ms": 1e3 * expected,
            "predicted_over_measured": expected / measured,
            "seconds": ranks[kind]["seconds"],
            "abroad_mb": 1e-6 * ranks[kind]["bytes"]["network"] / ranks[kind]["steps"],
        }
    result["speedup"] = {
        which: result["exact"][f"{which}_ms"] / result["with_period"][f"{which}_ms"]
        for which in ("measured", "predicted")
    }
    return result


def table(result: Mapping[str, Any]) -> list[str]:
    """Lines of markdown."""
    return report.markdown(
        {
            "epochs": name,
            "measured, ms": f"{result[kind]['measured_ms']:.0f}",
            "predicted, ms": f"{result[kind]['predicted_ms']:.0f}",
            "predicted / measured": f"{result[kind]['predicted_over_measured']:.2f}",
            "MB per epoch from rank 0 abroad": f"{result[kind]['abroad_mb']:.2f}",
        }
        for name, kind in (("exact", "exact"), (f"period {result['period']}", "with_period"))
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("bench.namespaces", description=__doc__.splitlines()[0])
    add: Callable[..., Any] = parser.add_argument
    add("--nodes", type=int, default=60_000)
    add("--edges", type=int, default=600_000, help="each counts in both directions")
    add("--mbit", type=float, default=200.0, help="of the link, in each direction")
    add("--period", default="host:2,network:8")
    add("--steps", type=int, default=4, help="exact epochs, and windows with periods")
    add("--json", type=Path, metavar="FILE")
    # Of the processes that this one starts.
    for name in ("--rank", "--window"):
        add(name, type=int, help=argparse.SUPPRESS)
    add("--folder", help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    options = _parser().parse_args(arguments)
    if options.folder is not None:
        run_rank(options)
        return 0
    # Namespaces are removed where this process is asked to end, too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    reason = unavailable()
    if reason is not None:
        print(f"bench.namespaces: {reason}", file=sys.stderr)
        return 3
    graph = communities(options.nodes, options.edges, options.nodes // 100, 0.9)
    result = measure(graph, mbit=options.mbit, period=options.period, steps=options.steps)
    head = [
        f"machine: {report.machine_line()}",
        f"commit: {report.commit()}",
        f"command: python -m bench.namespaces {shlex.join(arguments or sys.argv[1:])}",
        f"{HOSTS} namespaces with {RANKS_PER_HOST} ranks each, {options.mbit:g} Mbit/s; "
        f"{graph.num_dst:,} nodes, {graph.num_edges:,} edges; one process on one thread: "
        f"{result['one_process_ms']:.0f} ms",
        f"faster by {result['speedup']['measured']:.2f}, predicted "
        f"{result['speedup']['predicted']:.2f}",
    ]
    if options.json is not None:
        write(options.json, {"header": head, **result})
    print("\n".join([*(f"- {line}" for line in head), "", *table(result)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
