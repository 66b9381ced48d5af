"""What `gnnkern info` says: the machine, versions, the build, and which backends run and why."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from gnnkern import __version__, _native, backends

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
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


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
        "backends": [
            {"op": op, "backend": backend, "runs": not reasons, "reasons": list(reasons)}
            for op, backend, reasons in backends.report()
        ],
    }


def print_info(facts: dict[str, Any], console: Console) -> None:
    """Print what `collect` returned, for people."""
    for section in ("machine", "versions", "build"):
        _print_section(console, section, facts[section])
    extras = {
        name: f"{extra['version'] or 'absent'} ({extra['for']})"
        for name, extra in facts["extras"].items()
    }
    _print_section(console, "optional packages", extras)

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
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cpu": _cpu_model(),
        "cores": f"{usable} usable of {os.cpu_count()}",
        "caches": _caches(),
        "memory": _size(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "gpu": gpus,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "torch_threads": torch.get_num_threads(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _caches() -> dict[str, str]:
    """Return the first core's caches, e.g. {"L1d": "32K", "L2": "1024K", "L3": "32768K"}."""
    caches = {}
    for index in sorted(_CACHES.glob("index*")):
        try:
            level, kind, size = (
                (index / name).read_text().strip() for name in ("level", "type", "size")
            )
        except OSError:
            continue
        suffix = {"Data": "d", "Instruction": "i"}.get(kind, "")
        caches[f"L{level}{suffix}"] = size
    return caches


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _build() -> dict[str, Any]:
    if _native.native is None:
        return {"native": f"not available: {_native.native_error}"}
    facts: dict[str, Any] = _native.native.build_info()
    return {_BUILD_NAMES.get(name, name): value for name, value in facts.items()}
