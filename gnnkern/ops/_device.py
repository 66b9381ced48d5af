"""Kernels of backends for GPUs that several ops launch; their modules are imported at a launch."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import TypeVar

__all__ = [
    "DEVICE_BACKENDS",
    "launchers",
    "row_reduce_of",
    "scale_by_group_of",
    "sddmm_of",
    "select_backward_of",
]

R = TypeVar("R")

# Backends whose kernels for these are called alike.
DEVICE_BACKENDS = ("triton", "cuda")


def launchers(cpu: Callable[..., R], device: Callable[..., R]) -> dict[str, Callable[..., R]]:
    """Launchers by backend; that of backends for GPUs takes the backend's name first."""
    return {"cpu": cpu, **{backend: partial(device, backend) for backend in DEVICE_BACKENDS}}


def row_reduce_of(backend: str) -> ModuleType:
    """The reductions of rows."""
    return importlib.import_module(f"gnnkern._{backend}.row_reduce")


def scale_by_group_of(backend: str) -> ModuleType:
    """The gradient of statistics."""
    return importlib.import_module(f"gnnkern._{backend}.scale_by_group")


def sddmm_of(backend: str) -> ModuleType:
    """The results of edges."""
    return importlib.import_module(f"gnnkern._{backend}.sddmm")


def select_backward_of(backend: str) -> ModuleType:
    """The gradients of max and min."""
    return importlib.import_module(f"gnnkern._{backend}.select_backward")
