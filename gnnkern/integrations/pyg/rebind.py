"""Names of functions in every module that holds them, changed and put back."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

import torch

from gnnkern.integrations.pyg.scope import in_force

__all__ = ["Replacement", "rebind", "replacement", "restore"]

Replacement = tuple[Any, Any]  # what is there, and what is to be there


def replacement(original: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with the looks of `original`, which TorchScript goes on to compile."""
    # By name: the function below has other globals.
    is_compiling, is_in_force = torch.compiler.is_compiling, in_force

    def call(*args: Any, **kwargs: Any) -> Any:
        if is_compiling() or not is_in_force():
            return original(*args, **kwargs)
        return function(*args, **kwargs)

    # TorchScript looks up the types of an overloaded function among the globals of what it finds.
    shared = FunctionType(
        call.__code__, original.__globals__, original.__name__, None, call.__closure__
    )
    functools.update_wrapper(shared, original)
    shared.__prepare_scriptable__ = lambda: original  # type: ignore[attr-defined]
    return shared


def rebind(pairs: list[Replacement]) -> int:
    """Put the second of each pair wherever a module names the first; the number of names.

    Modules imported later take the new one from the modules that they import it from.
    """
    by_id = {id(old): new for old, new in pairs}
    count = 0
    for module in list(sys.modules.values()):
        if not isinstance(module, ModuleType) or module.__name__.startswith("gnnkern."):
            continue
        names = vars(module)
        for name in [name for name, value in list(names.items()) if id(value) in by_id]:
            names[name] = by_id[id(names[name])]
            count += 1
    return count


def restore(pairs: list[Replacement]) -> int:
    """Undo `rebind`, also in modules imported since."""
    return rebind([(new, old) for old, new in pairs])
