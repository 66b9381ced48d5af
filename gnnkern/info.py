"""What `gnnkern info` says: the machine, versions, the build, and which backends run and why."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import TYPE_CHECKING, Any

import torch

from gnnkern import __version__, _native, backends
from gnnkern.hardware import Machine, cached_probe, system

if TYPE_CHECKING:
    from rich.console import Console

# Distribution by what it is for; none is needed to import gnnkern.
_EXTRAS = {
    "triton": "Triton kernels",
    "torch_geometric": "the PyG integration",
    "dgl": "the DGL integration",
    "pymetis": "partitioning by METIS",
    "matplotlib": "plots",
    "scipy": "Matrix Market files, Graph.from_scipy",
    "scikit-learn": "the digits graph",
}
_BUILD_NAMES = {
    "compiled_isas": "instruction_sets_compiled",
    "isas": "instruction_sets_runnable",
    "isa": "instruction_set_chosen",
    "sanitize": "sanitizers",
}


def collect() -> dict[str, Any]:
    """Return everything that `gnnkern info` prints, ready for JSON."""
    return {
        "machine": _machine(),
        "versions": {
            "gnnkern": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "triton": _version("triton"),
            "numpy": _version("numpy"),
        },
        "extras": {
            name: {"version": _version(name), "for": purpose} for name, purpose in _EXTRAS.items()
        },
        "build": _build(),
        "probe": {device: machine.to_dict() for device, machine in _probes().items()},
        "backends": [
            {"op": op, "backend": backend, "runs": not reasons, "reasons": list(reasons)}
            for op, backend, reasons in backends.report()
        ],
    }


def print_info(facts: dict[str, Any], console: Console) -> None:
    """Print what `collect` returned, for people."""
    # Not at the top: measuring asks for facts where there may be no rich.
    from rich import box
    from rich.table import Table

    for section in ("machine", "versions", "build"):
        _print_section(console, section, facts[section])
    extras = {
        name: f"{extra['version'] or 'absent'} ({extra['for']})"
        for name, extra in facts["extras"].items()
    }
    _print_section(console, "optional packages", extras)
    probes = [Machine.from_dict(values) for values in facts["probe"].values()]
    _print_section(
        console,
        "probe",
        {machine.device: machine.summary() for machine in probes}
        or {"cpu": "not measured yet: `gnnkern probe` measures it"},
    )

    table = Table(title="backends", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for heading in ("op", "backend", "runs", "why not"):
        table.add_column(heading)
    previous = None
    for row in facts["backends"]:
        op = "" if row["op"] == previous else row["op"]
        if op and previous is not None:
            table.add_section()
        previous = row["op"]
        table.add_row(op, row["backend"], "yes" if row["runs"] else "no", "; ".join(row["reasons"]))
    console.print(table)


def _print_section(console: Console, title: str, values: dict[str, Any]) -> None:
    console.print(title, style="bold")
    width = max(map(len, values), default=0)
    for name, value in values.items():
        if isinstance(value, list):
            value = ", ".join(map(str, value)) or "none"
        elif isinstance(value, dict):
            value = ", ".join(f"{key} {item}" for key, item in value.items()) or "unknown"
        elif isinstance(value, bool):
            value = "yes" if value else "no"
        elif value is None:
            value = "absent"
        elif value == "":
            value = "none"
        name = name.replace("_", " ")
        console.print(f"  {name:{width}}  {value}", highlight=False, markup=False)
    console.print()


def _machine() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cpu": system.cpu_model(),
        "cores": f"{system.usable_cores()} usable of {os.cpu_count()}",
        "caches": {name: f"{size >> 10}K" for name, size in system.cache_sizes().items()},
        "memory": _size(system.memory_bytes()),
        "gpu": gpus,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "torch_threads": torch.get_num_threads(),
    }


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _probes() -> dict[str, Machine]:
    """What was measured before, by device."""
    devices = ["cpu", "cuda"] if torch.cuda.device_count() else ["cpu"]
    found = {device: cached_probe(device) for device in devices}
    return {device: machine for device, machine in found.items() if machine is not None}


def _build() -> dict[str, Any]:
    if _native.native is None:
        return {"native": f"not available: {_native.native_error}"}
    facts: dict[str, Any] = _native.native.build_info()
    return {_BUILD_NAMES.get(name, name): value for name, value in facts.items()}
