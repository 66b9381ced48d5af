"""What a probe measured, as a table for people."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from gnnkern.hardware.machine import Machine

__all__ = ["print_machine"]


def print_machine(machine: Machine, console: Console) -> None:
    """Print every number of a machine with its unit."""
    caches = ", ".join(f"{name} {_size(size)}" for name, size in machine.cache_bytes.items())
    lines = [
        f"{machine.name}: {machine.cores} cores, {machine.threads} threads, {machine.isa} "
        f"({machine.vector_bits} bits), {caches}, memory {_size(machine.memory_bytes)}",
        f"measured {machine.measured_at} in {machine.measured_s:.1f} s",
        "matrix products: "
        + ", ".join(
            f"{rate / 1e9:,.0f} Gflop/s in {dtype}"
            for dtype, rate in machine.matmul_flops_per_s.items()
        ),
        f"small calls: gnnkern {machine.op_call_s * 1e6:.1f} µs, torch "
        f"{machine.torch_call_s * 1e6:.2f} µs",
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False)
    title = "GB/s by the size of the table (of a copy: read + written)"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("")
    for size in machine.copy_bytes_per_s:
        table.add_column(_size(size), justify="right")
    rows = {"copy": machine.copy_bytes_per_s}
    for row_bytes, rates in machine.gather_bytes_per_s.items():
        rows[f"random rows of {_size(row_bytes)}"] = rates
    for name, rates in rows.items():
        table.add_row(name, *(f"{rate / 1e9:.1f}" for rate in rates.values()))
    console.print(table)


def _size(num_bytes: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if num_bytes >= size:
            return f"{num_bytes / size:.4g} {unit}"
    return f"{num_bytes} B"
