"""CUDA kernels and their launchers: the module that holds them, and why it cannot run."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch

__all__ = ["hosted", "module", "stand_in", "unusable"]


class _Native:
    """The module of launchers, loaded at the first question."""

    module: ModuleType | None = None
    tried = False
    error: str | None = None
    # Whether the module runs the kernels on this processor, on CPU tensors.
    hosted = False


def _load() -> None:
    _Native.tried = True
    try:
        module = importlib.import_module("gnnkern._C_cuda")
    except ImportError as error:
        _Native.error = (
            "this build has no CUDA kernels (no nvcc, or GNNKERN_CUDA=off)"
            if isinstance(error, ModuleNotFoundError)
            else f"the CUDA module did not load: {error}"
        )
        return
    _Native.module = module
    _Native.error = module.unusable() or None


def unusable() -> str | None:
    """Why the CUDA kernels cannot run on this machine; asked of the driver once.

    torch.compile cannot trace the question: a missing module then shows at the launch.
    """
    if not _Native.tried and not torch.compiler.is_compiling():
        _load()
    return _Native.error


def module() -> ModuleType:
    """The launchers; RuntimeError where there are none."""
    if not _Native.tried:
        _load()
    if _Native.module is None:
        raise RuntimeError(f"gnnkern: {_Native.error}")
    return _Native.module


def hosted() -> bool:
    """Whether a module stands in that runs the kernels on the processor, on CPU tensors."""
    return _Native.hosted


@contextmanager
def stand_in(module: ModuleType) -> Iterator[None]:
    """Inside the block a module with the same launchers runs the kernels, on CPU tensors.

    For tests: the host executor takes the place of a GPU, in every thread. The backend still has to
    be asked for by name.
    """
    before = _Native.module, _Native.tried, _Native.error, _Native.hosted
    _Native.module, _Native.tried, _Native.error, _Native.hosted = module, True, None, True
    try:
        yield
    finally:
        _Native.module, _Native.tried, _Native.error, _Native.hosted = before
