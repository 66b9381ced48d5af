"""The machine file: versions, driver, GPU, commit and command."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import re
import shutil
import subprocess
from typing import Any

import torch

from bench.gpu.child import parse, short_name
from bench.gpu.runner import replace_file

_PACKAGES = (
    "torch",
    "triton",
    "numpy",
    "pybind11",
    "cmake",
    "ninja",
    "setuptools",
    "pytest",
    # Everything runs without these; what each adds stands in the README.
    "rich",
    "matplotlib",
    "torch_geometric",
    "torch_scatter",
    "torch_sparse",
    "dgl",
)
_QUERY = (
    "name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit,ecc.mode.current"
)


def collect(device: str, commit: str | None, command: str) -> dict[str, Any]:
    """Everything that makes numbers comparable."""
    return {
        "device": short_name(device),
        "gpus": [_gpu(index) for index in range(torch.cuda.device_count())],
        "nvidia_smi": _smi(),
        "cuda_of_torch": torch.version.cuda,
        "nvcc": _first_match(r"release (\S+),", "nvcc", "--version"),
        "compiler": _first_match(r"^(.*)$", "gcc", "--version"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {name: _version(name) for name in _PACKAGES},
        "commit": commit or _commit(),
        "command": command,
    }


def _gpu(index: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "l2_bytes": properties.L2_cache_size,
    }


def _version(package: str) -> str:
    if importlib.util.find_spec(package) is None:
        return "absent"
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "present, version unknown"


def _commit() -> str:
    from gnnkern.bench.report import commit

    return commit()


def _said(*arguments: str) -> str | None:
    program = shutil.which(arguments[0]) or shutil.which(arguments[0], path="/usr/local/cuda/bin")
    if program is None:
        return None
    done = subprocess.run([program, *arguments[1:]], capture_output=True, text=True, timeout=30)
    return done.stdout if done.returncode == 0 else None


def _first_match(pattern: str, *arguments: str) -> str | None:
    found = re.search(pattern, _said(*arguments) or "", re.MULTILINE)
    return None if found is None else found.group(1)


def _smi() -> list[dict[str, str]]:
    said = _said("nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader") or ""
    names = _QUERY.split(",")
    return [
        dict(zip(names, (value.strip() for value in line.split(",")), strict=False))
        for line in said.splitlines()
    ]


def _main() -> None:
    options = parse()
    facts = collect(options.device, options.commit, options.command)
    replace_file(options.out / "machine.json", json.dumps(facts, indent=1) + "\n")
    print(", ".join([facts["device"], f"torch {torch.__version__}", facts["commit"]]))


if __name__ == "__main__":
    _main()
