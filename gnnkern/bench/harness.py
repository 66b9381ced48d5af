"""Who is measured, bound to a problem and checked against float64."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gnnkern.bench import ours
from gnnkern.bench.peers import Peer, absent, peers
from gnnkern.bench.problems import Problem
from gnnkern.bench.runners import Runner, graphs_compiled
from gnnkern.bench.timing import seconds_of
from gnnkern.memory import PeakMemory, give_back_freed_memory, keep_freed_memory

THREADS = 2

# In L2, against float64 on the same inputs. One wrong row among a million would be 1e-3, which the
# halves cannot show: they are allowed four units in the last place, for the steps of an attention,
# or as many times the error of the reference in halves, for a gradient that nearly cancels.
TIMES_PLAIN = 3
TOLERANCE = {
    torch.float64: 1e-10,
    torch.float32: 1e-4,
    torch.float16: 4e-3,
    torch.bfloat16: 3e-2,
}

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
            reasons = ours.reasons_against(
                problem.op, self.backend, problem.dtype, problem.device.type
            )
            reason = "; ".join(reasons) or None
            rows = ours.REFERENCE_EDGE_ROWS[bool(problem.directions[direction])]
            elements = problem.graph.num_edges * problem.width
            in_rows = problem.dtype.itemsize * rows * elements
            needed = in_rows if self.backend == "reference" else 0.0
        if reason is None and needed > memory_limit:
            return f"needs about {needed / 1e9:.0f} GB of {memory_limit / 1e9:.0f}"
        return reason

    def build(self, problem: Problem) -> Runner:
        """Everything that is prepared outside of timing."""
        if self.peer is not None:
            return self.peer.build(problem)
        assert self.backend is not None
        return ours.build(problem, self.backend)


def contenders(
    op: str,
    reduce: str,
    *,
    backend: str = "auto",
    packages: Collection[str] | None = None,
    dtype: torch.dtype = torch.float32,
    device_type: str = "cpu",
) -> list[Contender]:
    """Gnnkern first, then its peers, present or absent.

    Args:
        op: The public op, or a layer.
        reduce: Its reduction; peers that lack it are left out.
        backend: "auto" is the best that runs here, "all" is each in a column of its own.
        packages: The packages of the peers (`Peer.group`); None is every one.
        dtype: Of the inputs.
        device_type: Where they lie; peers that do not run there are left out.
    """
    if backend == "all":
        mine = [Contender(f"{OURS} {i.backend}", i.backend) for i in ours.table(op)]
    else:
        best = ours.best_backend(op, dtype, device_type) if backend == "auto" else backend
        mine = [Contender(OURS, best)]
    return mine + [
        Contender(peer.name, peer=peer)
        for peer in peers(op, reduce, device_type)
        if packages is None or peer.group in packages
    ]


def pin_threads(threads: int = THREADS) -> None:
    """Torch's pool, MKL's and gnnkern's are one."""
    torch.set_num_threads(threads)


def steady_process(threads: int = THREADS) -> None:
    """Pinned threads, and memory that stays once it is had, as in the middle of a training."""
    pin_threads(threads)
    keep_freed_memory()


def available_memory(device: torch.device | str = "cpu") -> float:
    """Bytes that can be had now, of which an estimate may use nine tenths."""
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
        return 0.9 * torch.cuda.mem_get_info(device)[0]
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


class Checked(NamedTuple):
    """A call whose results are right.

    Attributes:
        error: The largest relative error.
        peak_bytes: What the call added at its peak.
        seconds: What it took on the processor; None for one that has compiled something.
    """

    error: float
    peak_bytes: int
    seconds: float | None


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


def check(problem: Problem, runner: Runner, timed: Timed) -> Checked:
    """Compare a call with float64 and assert which backend ran.

    Raises:
        WrongResult: a value or a gradient is wrong, another backend ran than was asked for, or
            nothing was compiled where it should be.
    """
    exact = problem.exact
    results: dict[str, Tensor] = {}
    seconds = None

    def call() -> None:
        results.update(timed.results(exact.upstream))

    memory = PeakMemory(problem.device)
    if runner.graphs_before is None:
        with memory, _Backends() as backends:
            seconds = seconds_of(call)
        expected = set() if runner.backend in (None, "reference") else {runner.backend}
        if backends.seen != expected:
            raise WrongResult(f"ran on {sorted(backends.seen)}, asked for {runner.backend}")
    else:
        # torch.compile gives a function up for good that it first sees inside of a dispatch mode.
        with memory:
            call()
        if graphs_compiled() <= runner.graphs_before:
            raise WrongResult("torch.compile has compiled nothing of it")
    largest = 0.0
    for name, result in results.items():
        actual = problem.part(name, _by_caller(problem, runner, name, result))
        error = _relative_error(*_comparable(problem, name, actual, exact.values[name]))
        # A NaN fails the comparison.
        if not (error <= TOLERANCE[problem.dtype] or error <= _allowed_halves(problem, name)):
            raise WrongResult(f"{name}: relative error {error:.2g} against float64")
        largest = max(largest, error)
    return Checked(largest, memory.added, seconds)


def _allowed_halves(problem: Problem, name: str) -> float:
    """What the reference in halves makes of a result, where the inputs are halves."""
    if problem.dtype.itemsize >= 4:
        return 0.0
    plain, exact = problem.plain.values[name], problem.exact.values[name]
    return TIMES_PLAIN * _relative_error(*_comparable(problem, name, plain, exact))


def _comparable(
    problem: Problem, name: str, actual: Tensor, exact: Tensor
) -> tuple[Tensor, Tensor]:
    """Both as they are; of gradients that ties may share out in any way, the sums of columns."""
    if name != "out" and problem.has_ties:
        return actual.double().sum(0), exact.sum(0)
    return actual, exact


def _relative_error(actual: Tensor, exact: Tensor) -> float:
    if actual.shape != exact.shape:
        return float("inf")
    scale = float(exact.norm())
    error = float((actual.double() - exact).norm())
    return error if scale == 0 else error / scale
