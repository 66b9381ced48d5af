"""Where the time of gnnkern's calls goes: kernels by name, and how long the processor takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from bench.gpu.child import parse
from bench.gpu.measure import in_order
from bench.gpu.runner import replace_file
from gnnkern.bench.graphs import bench_graph
from gnnkern.bench.harness import bind, contenders
from gnnkern.bench.problems import make_problem
from gnnkern.bench.report import markdown
from gnnkern.bench.specs import DTYPES

_WARM_UPS = 3
_CALLS = 10
_KERNELS = 12


def _main() -> None:
    options = parse()
    end = time.monotonic() + options.seconds
    path = options.out / "profiles.md"
    lines = ["# Kernels of gnnkern's calls, per call"]
    for plan in in_order("headline", options.device, options.out):
        for cell in plan.cells():
            graph = bench_graph(cell.graph, plan.device)
            problem = make_problem(cell.op, graph, cell.width, DTYPES[cell.dtype])
            on = problem.device.type
            (mine,) = contenders(
                problem.op, problem.reduce, backend=plan.backend, packages=(), device_type=on
            )
            try:
                runner = mine.build(problem)
                for direction in problem.directions:
                    if time.monotonic() > end:
                        return
                    run = bind(problem, runner, direction).run
                    title = f"{cell.op} on {graph.name}, width {cell.width}, {direction}"
                    lines += ["", f"## {title} ({mine.backend})", "", *profile_of(run, on)]
                    replace_file(path, "\n".join(lines) + "\n")
                    print(title)
            except Exception as error:  # noqa: BLE001  the others are looked at nevertheless
                lines += ["", f"{cell.op} on {graph.name}: {type(error).__name__}: {error}"]


def profile_of(run: Callable[[], object], device_type: str) -> list[str]:
    """What a call does, as lines of markdown."""
    gpu = device_type == "cuda"
    wait = torch.cuda.synchronize if gpu else _nothing
    # Triton's interpreter takes a second for a call.
    warm_ups, calls = (_WARM_UPS, _CALLS) if gpu else (0, 1)
    for _ in range(warm_ups):
        run()
    wait()
    hosts = []
    for _ in range(calls):
        begin = time.perf_counter()
        run()
        hosts.append(time.perf_counter() - begin)
        wait()
    activities = [ProfilerActivity.CPU]
    if gpu:
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        for _ in range(calls):
            run()
        wait()
    rows = kernels(profiler.key_averages(), gpu, calls)
    host = f"the processor enqueues a call in {statistics.median(hosts) * 1e6:.0f} µs"
    return [host, "", *(markdown(rows) if rows else ["no kernel was seen"])]


def kernels(events: Any, gpu: bool, calls: int) -> list[dict[str, Any]]:
    """The kernels that take the most time, per call."""
    field = "self_device_time_total" if gpu else "self_cpu_time_total"
    timed = [(float(getattr(event, field)), event) for event in events]
    timed = [(total, event) for total, event in timed if total > 0]
    if gpu:
        # What the processor does besides has the time of the kernels that it starts.
        timed = [(t, e) for t, e in timed if str(e.device_type).endswith("CUDA")]
    whole = sum(total for total, _ in timed)
    return [
        {
            "kernel": event.key[:90].replace("|", "\\|"),
            "µs": f"{total / calls:.1f}",
            "launches": f"{event.count / calls:g}",
            "part": f"{total / whole:.0%}",
        }
        for total, event in sorted(timed, key=lambda pair: -pair[0])[:_KERNELS]
    ]


def _nothing() -> None:
    """On a processor nothing has to be waited for."""


if __name__ == "__main__":
    _main()
