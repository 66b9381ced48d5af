"""How a machine is measured: copies, gathers of random rows, matrix products, small calls.

A number is the median of several repeats, each on rows that the one before did not read. Where a
table is read far more slowly than a larger one, something else ran meanwhile: it is measured again.

Gathers run on the fastest way there is: on a CPU our own row sum over a graph of constant degree
or torch's embedding_bag, on a GPU embedding_bag or index_select, whichever is faster for the size.
Sums of 32 rows write one, so that nearly all of what moves is read.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from gnnkern import _native
from gnnkern._cpu.row_reduce import row_reduce
from gnnkern._native import Csr
from gnnkern.backends import Query
from gnnkern.graph import Graph

__all__ = ["FULL", "Effort", "Measurement", "Progress"]

# Called before each step with the number of steps done, that of all, and what comes.
Progress = Callable[[int, int, str], object]

# Rows summed per output row.
_BAG = 32
_SMALLEST_TABLE = 256 << 10
_STEP = 4
# Of the memory, at most, for a table, or for both sides of a copy.
_MEMORY_PART = 4
# A step ends after this time, with the repeats that it has.
_STEP_SECONDS = 0.5
# A rate below this part of that of a larger size is measured again, so many times at most. On a
# shared machine a disturbed rate was a quarter to a half of the others.
_DISTURBED_PART = 0.8
_MORE_TRIES = 3


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    row_bytes: tuple[int, ...] = (64, 256, 512, 1024, 2048)
    largest_bytes: int = 1 << 30  # of a table, and of both sides of a copy
    moved_bytes: int = 1 << 27  # in one repeat, at least
    repeats: int = 9
    matrix: int = 1024  # rows and columns; four times as many on a GPU
    calls: int = 500


FULL = Effort()


class Measurement:
    """The measures of one device, step by step."""

    def __init__(
        self, device: torch.device, memory_bytes: int, effort: Effort, progress: Progress | None
    ) -> None:
        self._device = device
        self._effort = effort
        self._progress = progress
        self._gpu = device.type == "cuda"
        largest = min(effort.largest_bytes, memory_bytes // _MEMORY_PART)
        self._sizes = [_SMALLEST_TABLE]
        while self._sizes[-1] * _STEP <= largest:
            self._sizes.append(self._sizes[-1] * _STEP)
        # A GPU moves a hundred times as much in the same time.
        self._moved_bytes = effort.moved_bytes * (8 if self._gpu else 1)
        self._matrix = effort.matrix * (4 if self._gpu else 1)
        self._done = 0
        self._steps = len(self._sizes) * (1 + len(effort.row_bytes)) + 4

    def _step(self, what: str) -> None:
        if self._progress is not None:
            self._progress(self._done, self._steps, what)
        self._done += 1

    def finish(self) -> None:
        """Report the end."""
        if self._progress is not None:
            self._progress(self._steps, self._steps, "done")

    # -- clocks ------------------------------------------------------------------------------------

    def _seconds(self, run: Callable[[int], object], calls: int = 1) -> float:
        """The median time of a call; `run` is told which repeat it is, the first a warm-up."""
        self._clock(run, 0, calls)
        samples: list[float] = []
        end = time.perf_counter() + _STEP_SECONDS
        for repeat in range(1, self._effort.repeats + 1):
            samples.append(self._clock(run, repeat, calls))
            if len(samples) >= 3 and time.perf_counter() > end:
                break
        return statistics.median(samples)

    def _clock(self, run: Callable[[int], object], repeat: int, calls: int) -> float:
        if self._gpu:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for _ in range(calls):
                run(repeat)
            end.record()
            end.synchronize()
            return float(begin.elapsed_time(end)) / 1e3 / calls
        start = time.perf_counter()
        for _ in range(calls):
            run(repeat)
        return (time.perf_counter() - start) / calls

    # -- memory ------------------------------------------------------------------------------------

    def copies(self) -> dict[int, float]:
        """Bytes read + written per second, by bytes read + written."""
        elements = self._sizes[-1] // 2 // 4
        source = torch.ones(elements, device=self._device)
        target = torch.ones(elements, device=self._device)

        def rate(size: int) -> float:
            part = size // 2 // 4
            calls = max(self._moved_bytes // size, 1)
            return size / self._seconds(partial(_copy, target[:part], source[:part]), calls)

        return self._by_size("copies of {}", rate)

    def gathers(self) -> dict[int, dict[int, float]]:
        """Bytes of rows per second, by the bytes of a row and those of the table."""
        memory = torch.ones(self._sizes[-1] // 4, device=self._device)

        def rate(row_bytes: int, size: int) -> float:
            return self._gather(memory[: size // 4].view(-1, row_bytes // 4))

        return {
            row_bytes: self._by_size(
                f"rows of {row_bytes} B from a table of {{}}", partial(rate, row_bytes)
            )
            for row_bytes in self._effort.row_bytes
        }

    def _by_size(self, what: str, rate: Callable[[int], float]) -> dict[int, float]:
        """A rate for each size, and again where a larger size beats it by far.

        Of several rates the best is the machine's. A GPU is slower at small sizes indeed, since its
        kernels are short.
        """
        rates = {}
        for size in self._sizes:
            self._step(what.format(_say(size)))
            rates[size] = rate(size)
        neighbours = zip(self._sizes[-2::-1], self._sizes[:0:-1], strict=True)
        for size, larger in () if self._gpu else neighbours:
            for _ in range(_MORE_TRIES):
                if rates[size] < _DISTURBED_PART * rates[larger]:
                    rates[size] = max(rates[size], rate(size))
        return rates

    def _gather(self, table: Tensor) -> float:
        rows, row_bytes = table.shape[0], table.shape[1] * table.element_size()
        count = max(self._moved_bytes // row_bytes // _BAG, 1) * _BAG
        # Repeats read other rows: the same again would lie in a cache, however large the table.
        generator = torch.Generator(self._device).manual_seed(0)
        shape = (self._effort.repeats + 1, count)
        index = torch.randint(
            rows, shape, generator=generator, dtype=torch.int32, device=self._device
        )
        with torch.no_grad():
            seconds = min(self._seconds(way) for way in self._ways(table, index))
        return count * row_bytes / seconds

    def _ways(self, table: Tensor, index: Tensor) -> list[Callable[[int], object]]:
        bags = index.view(index.shape[0], -1, _BAG)
        ways: list[Callable[[int], object]] = [
            lambda repeat: F.embedding_bag(bags[repeat], table, mode="sum")
        ]
        if self._gpu:
            ways.append(lambda repeat: table.index_select(0, index[repeat]))
        elif _native.native is not None:
            indptr = torch.arange(0, index.shape[1] + 1, _BAG, dtype=torch.int32)
            plan = _native.make_plan(indptr, index.shape[1])
            ways.append(
                lambda repeat: row_reduce(
                    Csr(indptr, index[repeat], None, plan), table, None, "sum"
                )
            )
        return ways

    # -- arithmetic and calls ----------------------------------------------------------------------

    def matmuls(self) -> dict[str, float]:
        """Operations per second of torch's product of square matrices, by dtype."""
        size = self._matrix
        rates = {}
        for dtype in (torch.float32, torch.bfloat16):
            name = str(dtype).removeprefix("torch.")
            self._step(f"matrix products in {name}")
            left = torch.ones(size, size, dtype=dtype, device=self._device)
            rates[name] = 2 * size**3 / self._seconds(partial(_multiply, left))
        return rates

    def op_call(self) -> float:
        """Seconds of an op of gnnkern on a graph of one edge."""
        from gnnkern.ops.spmm import IMPLEMENTATIONS, spmm

        self._step("a small call of gnnkern")
        edge = torch.zeros(2, 1, dtype=torch.int64, device=self._device)
        graph = Graph.from_edge_index(edge, 1)
        x = torch.ones(1, 8, device=self._device)
        query = Query(self._device.type, x.dtype)
        backend = next(i.backend for i in IMPLEMENTATIONS if not i.unsupported(query))
        return self._seconds(lambda _: spmm(graph, x, backend=backend), self._effort.calls)

    def torch_call(self) -> float:
        """Seconds of an op of torch on one number."""
        self._step("a small call of torch")
        x = torch.ones(1, device=self._device)
        return self._seconds(lambda _: torch.add(x, x), self._effort.calls)


def _copy(to: Tensor, of: Tensor, repeat: int) -> None:
    to.copy_(of)


def _multiply(matrix: Tensor, repeat: int) -> None:
    torch.mm(matrix, matrix)


def _say(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"
