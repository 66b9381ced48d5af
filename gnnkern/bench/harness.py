"""How a case is measured: checked against float64, then timed in turns with the others."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gnnkern.bench import ours
from gnnkern.bench.peers import Peer, absent, peers
from gnnkern.bench.problems import Problem
from gnnkern.bench.runners import Runner
from gnnkern.memory import PeakMemory, give_back_freed_memory, keep_freed_memory

THREADS = 2
MIN_ROUNDS = 3
MAX_ROUNDS = 30

# In L2, of float32 against float64. One wrong row among a million would be 1e-3.
TOLERANCE = 1e-4

OURS = "gnnkern"


class WrongResult(AssertionError):
    """A result is not that of the reference."""


@dataclass(frozen=True)
class Contender:
    """gnnkern on one backend, or a peer: a column of a table."""

    name: str
    backend: str | None = None
    peer: Peer | None = None

    def obstacle(self, problem: Problem, direction: str, memory_limit: float) -> str | None:
        """Why this cannot be measured here; None: it can."""
        if self.peer is not None:
            reason = absent(self.peer.package)
            needed = self.peer.bytes_needed(problem, direction)
        else:
            assert self.backend is not None
            reason = "; ".join(ours.reasons_against(problem.op, self.backend)) or None
            rows = ours.REFERENCE_EDGE_ROWS[bool(problem.directions[direction])]
            elements = problem.graph.num_edges * problem.width
            needed = 4.0 * rows * elements if self.backend == "reference" else 0.0
        if reason is None and needed > memory_limit:
            return f"needs about {needed / 1e9:.0f} GB of {memory_limit / 1e9:.0f}"
        return reason

    def build(self, problem: Problem) -> Runner:
        """Everything that is prepared outside of timing."""
        if self.peer is not None:
            return self.peer.build(problem)
        assert self.backend is not None
        return ours.build(problem, self.backend)


def contenders(op: str, reduce: str, all_backends: bool = False) -> list[Contender]:
    """Gnnkern first, on its best backend or on each, then every peer, present or absent."""
    if all_backends:
        mine = [Contender(f"{OURS} {i.backend}", i.backend) for i in ours.table(op)]
    else:
        mine = [Contender(OURS, ours.best_backend(op))]
    return mine + [Contender(peer.name, peer=peer) for peer in peers(op, reduce)]


def pin_threads(threads: int = THREADS) -> None:
    """Torch's pool, MKL's and gnnkern's are one."""
    torch.set_num_threads(threads)


def steady_process(threads: int = THREADS) -> None:
    """Pinned threads, and memory that stays once it is had, as in the middle of a training."""
    pin_threads(threads)
    keep_freed_memory()


def available_memory() -> float:
    """Bytes that can be had now, of which an estimate may use nine tenths."""
    give_back_freed_memory()
    try:
        with open("/proc/meminfo") as lines:
            fields = dict(line.split(":") for line in lines)
        return 0.9 * 1024 * int(fields["MemAvailable"].split()[0])
    except (OSError, KeyError):
        return float("inf")


# -- one call --------------------------------------------------------------------------------------


class Timed(NamedTuple):
    """What the clock runs around, and how to look at its results."""

    run: Callable[[], object]
    results: Callable[[Tensor], dict[str, Tensor]]  # upstream -> "out" and gradients by name


def bind(problem: Problem, runner: Runner, direction: str) -> Timed:
    """A call in one direction: the forward under `no_grad`, or it and its gradients."""
    wanted = problem.directions[direction]
    leaves = {
        name: value.detach().requires_grad_(name in wanted) for name, value in runner.inputs.items()
    }
    inputs = tuple(leaves.values())
    sources = {**leaves, **runner.parameters}
    targets = [sources[name] for name in wanted]

    def forward() -> Tensor:
        with torch.no_grad():
            return runner.call(*inputs)

    def differentiate(upstream: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        out = runner.call(*inputs)
        return out, torch.autograd.grad(out, targets, upstream)

    def results(upstream: Tensor) -> dict[str, Tensor]:
        if not wanted:
            return {"out": forward()}
        out, gradients = differentiate(_by_runner(problem, runner, upstream))
        return {"out": out.detach(), **dict(zip(wanted, gradients, strict=True))}

    if not wanted:
        return Timed(forward, results)
    upstream = _by_runner(problem, runner, problem.upstream)
    return Timed(lambda: differentiate(upstream), results)


def _by_runner(problem: Problem, runner: Runner, upstream: Tensor) -> Tensor:
    if runner.by_row and "out" in problem.edge_names:
        return problem.graph.by_row(upstream)
    return upstream


def _by_caller(problem: Problem, runner: Runner, name: str, result: Tensor) -> Tensor:
    values = result if result.layout is torch.strided else result.values()
    if runner.by_row and name in problem.edge_names:
        return problem.graph.by_caller(values)
    return values


# -- checks ----------------------------------------------------------------------------------------


class _Backends(TorchDispatchMode):
    """Notes which backend every operator of gnnkern runs on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "gnnkern":
            names = [argument.name for argument in func._schema.arguments]
            bound = {**dict(zip(names, args, strict=False)), **kwargs}
            if "backend" in bound:
                self.seen.add(bound["backend"])
        return func(*args, **kwargs)


def check(problem: Problem, runner: Runner, timed: Timed) -> float:
    """Compare with float64 and assert which backend ran; return the largest relative error.

    Raises:
        WrongResult: a value or a gradient is wrong, or another backend ran than was asked for.
    """
    exact = problem.exact
    with _Backends() as backends:
        results = timed.results(exact.upstream)
    expected = set() if runner.backend in (None, "reference") else {runner.backend}
    if backends.seen != expected:
        raise WrongResult(f"ran on {sorted(backends.seen)}, asked for {runner.backend}")
    largest = 0.0
    for name, result in results.items():
        actual = problem.part(name, _by_caller(problem, runner, name, result))
        error = _relative_error(actual, exact.values[name])
        # A NaN fails the comparison.
        if not error <= TOLERANCE:
            raise WrongResult(f"{name}: relative error {error:.2g} against float64")
        largest = max(largest, error)
    return largest


def _relative_error(actual: Tensor, exact: Tensor) -> float:
    if actual.shape != exact.shape:
        return float("inf")
    scale = float(exact.norm())
    error = float((actual.double() - exact).norm())
    return error if scale == 0 else error / scale


# -- times -----------------------------------------------------------------------------------------


class Timing(NamedTuple):
    """Seconds of a call."""

    median: float
    first_quartile: float
    third_quartile: float
    rounds: int
    peak_bytes: int


def seconds_of(run: Callable[[], object]) -> float:
    """One call by the clock; its result is freed inside, as a training step would."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak_bytes(run: Callable[[], object]) -> tuple[int, float]:
    """The memory a call adds at its peak, and its seconds; the call must have run before."""
    with PeakMemory() as memory:
        seconds = seconds_of(run)
    return memory.added, seconds


def rounds_for(seconds: float, budget: float) -> int:
    """Thirty rounds of short work, as many as fit of longer work, three at least.

    One of work that takes more than the whole budget: its median decides nothing.
    """
    if seconds > budget:
        return 1
    return min(MAX_ROUNDS, max(MIN_ROUNDS, int(budget / max(seconds, 1e-9))))


def time_in_turns(
    runs: Mapping[str, Callable[[], object]], seconds: float, max_rounds: int = MAX_ROUNDS
) -> dict[str, Timing]:
    """Time calls in rounds, A B C A B C, after a warm-up of each.

    Each has an equal share of `seconds`; the slow ones take part in fewer rounds, spread evenly.
    One that takes longer than its share is not run again: its warm-up is its only round.
    The runs must have been called once before.
    """
    peaks, counts = {}, {}
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for name, run in runs.items():
        peaks[name], warm = peak_bytes(run)
        counts[name] = min(rounds_for(warm, seconds / len(runs)), max_rounds)
        if counts[name] == 1:
            samples[name].append(warm)
    # Looking at a peak gave freed memory back.
    runs = {name: run for name, run in runs.items() if counts[name] > 1}
    for run in runs.values():
        run()
    total = max(counts.values(), default=0)
    gc.collect()
    gc.disable()
    try:
        for turn in range(total):
            for name, run in runs.items():
                if (turn + 1) * counts[name] // total > turn * counts[name] // total:
                    samples[name].append(seconds_of(run))
    finally:
        gc.enable()
    return {name: summarise(samples[name], peaks[name]) for name in peaks}


def summarise(samples: Sequence[float], peak: int) -> Timing:
    """Median and quartiles."""
    if len(samples) < 2:
        return Timing(samples[0], samples[0], samples[0], len(samples), peak)
    first, median, third = statistics.quantiles(samples, n=4, method="inclusive")
    return Timing(median, first, third, len(samples), peak)
