"""What this machine can do, measured, and what an op must therefore cost.

`probe()` measures once and keeps the result; `gnnkern.hardware.cost` says what ops must cost.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from gnnkern import _native
from gnnkern.hardware import storage, system
from gnnkern.hardware.machine import Machine
from gnnkern.hardware.measuring import FULL, Effort, Measurement, Progress
from gnnkern.settings import cache_directory

__all__ = ["Effort", "Machine", "cached_probe", "check_device", "probe"]

_VECTOR_BITS = {"avx512": 512, "avx2": 256, "baseline": 128}
# A warp of 32 lanes of float32.
_WARP_BITS = 1024

# What was measured where it could not be kept on disk.
_kept: dict[tuple[Path, str], Machine] = {}


def probe(
    device: torch.device | str = "cpu",
    *,
    refresh: bool = False,
    progress: Progress | None = None,
    effort: Effort = FULL,
    directory: Path | None = None,
) -> Machine:
    """Measure what a device can do, or return what was measured before.

    Copies and gathers of random rows are measured by size, from caches to memory, on
    `torch.get_num_threads()` threads; further matrix products and the cost of small calls. It takes
    about ten seconds on a CPU, in which nothing else should run. The result is kept in a file
    under the user's cache directory, for the model of the processor, the number of cores and of
    threads, the instruction set and the effort; a file that is damaged or of another version is
    measured again.

    Args:
        device: "cpu" or a CUDA device.
        refresh: Measure again.
        progress: Called before each step with the number of steps done, that of all steps, and the
            name of the step.
        effort: How much to measure.
        directory: Where to keep the file; by default `gnnkern` in `XDG_CACHE_HOME` or `~/.cache`.
            Where it cannot be written, one warning says so, and the process remembers the result.

    Raises:
        TypeError: device is no device.
        ValueError: it is neither a CPU nor a CUDA device, or it is not there.
    """
    target = check_device("probe", device)
    identity = _identity(target, effort)
    directory = cache_directory() if directory is None else directory
    known = None if refresh else _find(directory, identity)
    if known is not None:
        return known
    machine = _measure(target, effort, identity, progress)
    if not storage.save(directory, identity, machine):
        _kept[directory, str(identity)] = machine
    return machine


def cached_probe(
    device: torch.device | str = "cpu", *, effort: Effort = FULL, directory: Path | None = None
) -> Machine | None:
    """What `probe` would return without measuring; None: it would measure."""
    identity = _identity(check_device("cached_probe", device), effort)
    return _find(cache_directory() if directory is None else directory, identity)


def _find(directory: Path, identity: dict[str, Any]) -> Machine | None:
    known = storage.load(directory, identity)
    return _kept.get((directory, str(identity))) if known is None else known


def check_device(who: str, device: torch.device | str) -> torch.device:
    """A device of the kinds that are known, which is there; who asks stands in the errors.

    Raises:
        TypeError: device is no device.
        ValueError: it is neither a CPU nor a CUDA device, or it is not there.
    """
    if not isinstance(device, torch.device | str):
        raise TypeError(f"{who}: device must be a torch.device or its name, got {device!r}")
    try:
        target = torch.device(device)
    except RuntimeError:
        target = None
    if target is None or target.type not in ("cpu", "cuda"):
        raise ValueError(f"{who}: device must be a CPU or a CUDA device, got {device!r}")
    if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"{who}: device {device!r} is not there: {torch.cuda.device_count()} CUDA devices are"
        )
    return target


def _identity(device: torch.device, effort: Effort) -> dict[str, Any]:
    """What a measurement is of."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        of_device = {
            "name": properties.name,
            "cores": properties.multi_processor_count,
            "threads": 1,
            "isa": f"sm_{properties.major}{properties.minor}",
        }
    else:
        of_device = {
            "name": system.cpu_model(),
            "cores": system.usable_cores(),
            "threads": torch.get_num_threads(),
            "isa": "none" if _native.native is None else _native.native.build_info()["isa"],
        }
    return {"device": device.type, **of_device, "effort": repr(effort)}


def _measure(
    device: torch.device, effort: Effort, identity: dict[str, Any], progress: Progress | None
) -> Machine:
    start = time.perf_counter()
    gpu = device.type == "cuda"
    if gpu:
        properties = torch.cuda.get_device_properties(device)
        memory_bytes = properties.total_memory
        caches = {"L2": properties.L2_cache_size}
        # Events are recorded on the current device.
        with torch.cuda.device(device):
            measured = _measured(Measurement(device, memory_bytes, effort, progress))
    else:
        memory_bytes = system.memory_bytes()
        caches = system.cache_sizes()
        measured = _measured(Measurement(device, memory_bytes, effort, progress))
    return Machine(
        device=device.type,
        name=identity["name"],
        cores=identity["cores"],
        threads=identity["threads"],
        isa=identity["isa"],
        vector_bits=_WARP_BITS if gpu else _VECTOR_BITS.get(identity["isa"], 128),
        cache_bytes=caches,
        memory_bytes=memory_bytes,
        **measured,
        measured_s=time.perf_counter() - start,
        measured_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def _measured(measurement: Measurement) -> dict[str, Any]:
    # Products first: they bring the cores up to speed.
    measured = {
        "matmul_flops_per_s": measurement.matmuls(),
        "op_call_s": measurement.op_call(),
        "torch_call_s": measurement.torch_call(),
        "copy_bytes_per_s": measurement.copies(),
        "gather_bytes_per_s": measurement.gathers(),
    }
    measurement.finish()
    return measured
