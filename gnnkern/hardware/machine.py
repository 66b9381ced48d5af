"""`Machine`: what the probe measured, as plain numbers with their units in the names."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

__all__ = ["CACHE_LINE_BYTES", "Machine"]

# What moves for a row, at least.
CACHE_LINE_BYTES = 64


@dataclass(frozen=True)
class Machine:
    """One device of one machine, as fast as it was when it was measured.

    Attributes:
        device: "cpu" or "cuda".
        name: The model of the processor.
        cores: Cores that this process may use; multiprocessors of a GPU.
        threads: Threads that the rates below were measured on; 1 on a GPU.
        isa: Instruction set of the C++ kernels; the compute capability of a GPU.
        vector_bits: Width of the vectors of that set; of a warp of float32 on a GPU.
        cache_bytes: Size of each cache by its name ("L1d", "L2", ...), as the system reports it.
            A virtual machine may share the largest with others: the curves below count.
        memory_bytes: Size of the memory.
        copy_bytes_per_s: Rate of copies, read + written, by their size, read + written.
        gather_bytes_per_s: Rate of reading random rows, by the bytes of a row and those of the
            table it lies in. Nothing but the bytes of the rows counts.
        matmul_flops_per_s: Rate of torch's square matrix products, by dtype: "float32", "bfloat16".
        op_call_s: Seconds of an op of gnnkern that has next to nothing to do.
        torch_call_s: The same of an op of torch.
        measured_s: Seconds that measuring took.
        measured_at: When, UTC.
    """

    device: str
    name: str
    cores: int
    threads: int
    isa: str
    vector_bits: int
    cache_bytes: dict[str, int]
    memory_bytes: int
    copy_bytes_per_s: dict[int, float]
    gather_bytes_per_s: dict[int, dict[int, float]]
    matmul_flops_per_s: dict[str, float]
    op_call_s: float
    torch_call_s: float
    measured_s: float
    measured_at: str

    def copy_bandwidth(self, copied_bytes: float | None = None) -> float:
        """Bytes read + written per second by a copy.

        Args:
            copied_bytes: Read + written, which may lie in a cache; None: as much as lies in none.
        """
        if copied_bytes is None:
            return self.copy_bytes_per_s[max(self.copy_bytes_per_s)]
        return _interpolate(self.copy_bytes_per_s, copied_bytes)

    def gather_bandwidth(self, row_bytes: float, table_bytes: float) -> float:
        """Bytes per second of rows of `row_bytes` read at random from a table of `table_bytes`.

        Interpolated between the sizes measured in the logarithms of all three; beyond the ends the
        nearest one counts, but a row narrower than a cache line costs the time of a whole line.
        """
        part_of_line = min(row_bytes / CACHE_LINE_BYTES, 1.0)
        rates = {
            row: _interpolate(by_table, table_bytes)
            for row, by_table in self.gather_bytes_per_s.items()
        }
        return part_of_line * _interpolate(rates, max(row_bytes, CACHE_LINE_BYTES))

    def cache_holding(self, num_bytes: int) -> str | None:
        """The smallest cache that `num_bytes` fit into; None: they fit into none."""
        sizes = sorted(
            (size, name) for name, size in self.cache_bytes.items() if not name.endswith("i")
        )
        return next((name for size, name in sizes if num_bytes <= size), None)

    def summary(self) -> str:
        """The main numbers in one line."""
        low, high = (
            self.gather_bandwidth(256, table) / 1e9
            for table in (max(self.copy_bytes_per_s), min(self.copy_bytes_per_s))
        )
        products = ", ".join(
            f"{rate / 1e9:.0f} Gflop/s in {dtype}"
            for dtype, rate in self.matmul_flops_per_s.items()
        )
        return (
            f"copies {self.copy_bandwidth() / 1e9:.1f} GB/s, random rows of 256 B {low:.1f} to "
            f"{high:.1f} GB/s, products {products}, {self.threads} threads, {self.measured_at}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Machine:
        """Return the machine that `to_dict` described, also after JSON turned sizes to strings.

        Raises:
            ValueError: a field is missing, unknown or not what it should be.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(values, Mapping) or set(values) != set(names):
            raise ValueError("Machine: the fields are not those of this version")
        try:
            converted = {
                **values,
                "cache_bytes": {str(name): int(n) for name, n in values["cache_bytes"].items()},
                "copy_bytes_per_s": _rates(values["copy_bytes_per_s"]),
                "gather_bytes_per_s": {
                    int(row): _rates(by_table)
                    for row, by_table in values["gather_bytes_per_s"].items()
                },
                "matmul_flops_per_s": {
                    str(name): _positive(rate)
                    for name, rate in values["matmul_flops_per_s"].items()
                },
            }
            for name in ("cores", "threads", "vector_bits", "memory_bytes"):
                converted[name] = int(values[name])
            for name in ("op_call_s", "torch_call_s", "measured_s"):
                converted[name] = _positive(values[name])
            for name in ("device", "name", "isa", "measured_at"):
                converted[name] = str(values[name])
        except (TypeError, AttributeError, KeyError) as error:
            raise ValueError(f"Machine: {error}") from None
        if not converted["gather_bytes_per_s"]:
            raise ValueError("Machine: gather_bytes_per_s is empty")
        return cls(**converted)


def _rates(values: Mapping[Any, Any]) -> dict[int, float]:
    rates = {int(size): _positive(rate) for size, rate in values.items()}
    if not rates:
        raise ValueError("Machine: a curve has no points")
    return rates


def _positive(value: Any) -> float:
    number = float(value)
    if not 0 < number < math.inf:
        raise ValueError(f"Machine: a measured number must be positive and finite, got {value!r}")
    return number


def _interpolate(curve: Mapping[int, float], at: float) -> float:
    """The curve at a place, linear in the logarithms of both; constant beyond its ends."""
    sizes: Sequence[int] = sorted(curve)
    right = bisect.bisect_left(sizes, at)
    if right == 0:
        return curve[sizes[0]]
    if right == len(sizes):
        return curve[sizes[-1]]
    low, high = sizes[right - 1], sizes[right]
    part = math.log(at / low) / math.log(high / low)
    return math.exp((1 - part) * math.log(curve[low]) + part * math.log(curve[high]))
