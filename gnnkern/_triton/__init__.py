"""Triton kernels and their launchers; their modules are imported at the first launch.

Importing `triton` takes a while and may fail, which `import_error` tells.
"""

from __future__ import annotations

import importlib
import importlib.util

import torch

from gnnkern.settings import interpreter_from_environment

__all__ = ["INTERPRETS", "import_error"]

# Whether kernels run in Triton's interpreter, on CPU tensors.
INTERPRETS = interpreter_from_environment()

_FOUND = importlib.util.find_spec("triton") is not None


class _Import:
    tried = False
    error: str | None = None


def import_error() -> str | None:
    """Why Triton cannot be used; it is imported at the first question.

    torch.compile cannot trace an import: a broken one then shows at the launch.
    """
    if not _FOUND:
        return "triton is not installed"
    if not _Import.tried and not torch.compiler.is_compiling():
        _Import.tried = True
        try:
            importlib.import_module("gnnkern._triton.launch")
        except Exception as error:
            _Import.error = f"triton did not import: {error}"
    return _Import.error
