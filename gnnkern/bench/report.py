"""Where and how numbers were made, and tables of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gnnkern.hardware import Machine
from gnnkern.info import collect

_ROOT = Path(__file__).parent.parent


def machine_line(device: str = "cpu") -> str:
    """The machine and its versions in one line, the GPU in front where that is measured."""
    if torch.device(device).type == "cuda":
        return f"{_gpu(device)}; {machine_line()}"
    facts = collect()
    machine = facts["machine"]
    caches = ", ".join(f"{name} {size}" for name, size in machine["caches"].items())
    isa = facts["build"].get("instruction_set_chosen", "no native build")
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {caches}, {machine['memory']}, "
        f"{machine['torch_threads']} threads, {isa}; gnnkern {facts['versions']['gnnkern']}, "
        f"torch {facts['versions']['torch']}, Python {facts['versions']['python']}"
    )


def _gpu(device: str) -> str:
    properties = torch.cuda.get_device_properties(device)
    return (
        f"{properties.name}, sm_{properties.major}{properties.minor}, "
        f"{properties.multi_processor_count} multiprocessors, "
        f"{properties.total_memory / 2**30:.0f} GiB, "
        f"L2 {properties.L2_cache_size / 2**20:.0f} MiB, CUDA {torch.version.cuda}"
    )


def memory_line(machine: Machine, row_bytes: Sequence[int]) -> str:
    """What the probe measured of memory, in one line."""
    tables = sorted(next(iter(machine.gather_bytes_per_s.values())))
    curves = []
    for row in row_bytes:
        rates = (f"{machine.gather_bandwidth(row, table) / 1e9:.1f}" for table in tables)
        curves.append(f"of {row} B at {', '.join(rates)}")
    sizes = ", ".join(f"{table / 2**20:.4g}" for table in tables)
    return (
        f"memory: copies at {machine.copy_bandwidth() / 1e9:.1f} GB/s (read + written); random "
        f"rows {', '.join(curves)} GB/s from tables of {sizes} MiB"
    )


def commit() -> str:
    """The commit measured, with a mark where files differ from it."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + (" + local changes" if _git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=_ROOT, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def markdown(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """A markdown table with the columns of the first row."""
    rows = list(rows)
    columns = list(rows[0])
    lines = [_line(columns), _line(["---"] * len(columns))]
    return lines + [_line([_cell(row.get(column)) for column in columns]) for row in rows]


def _cell(value: Any) -> str:
    return "-" if value is None else str(value)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
