"""Every environment variable the project reads; each has a Python way too."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = [
    "backend_from_environment",
    "cache_directory",
    "interpreter_from_environment",
    "isa_from_environment",
]


def backend_from_environment() -> str:
    """`GNNKERN_BACKEND`: the backend used where none is named (see `use_backend`)."""
    return os.environ.get("GNNKERN_BACKEND", "auto")


def isa_from_environment() -> str | None:
    """`GNNKERN_ISA`: the instruction set of the CPU kernels (see `gnnkern._C.set_isa`)."""
    return os.environ.get("GNNKERN_ISA")


def interpreter_from_environment() -> bool:
    """`TRITON_INTERPRET`: whether Triton runs kernels in its interpreter, which needs no GPU.

    It is Triton's own, and read when a kernel is defined; from Python, set it before gnnkern is
    imported.
    """
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


def cache_directory() -> Path:
    """`XDG_CACHE_HOME`, or ~/.cache: where measurements are kept (see `gnnkern.hardware.probe`)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The standard has relative paths ignored.
    return (Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()) / "gnnkern"
