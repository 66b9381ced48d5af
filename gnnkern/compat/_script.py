"""Functions for TorchScript, which cannot compile them, and under `torch.ops`."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

__all__ = ["called_in_python", "define_all", "left_alone"]

F = TypeVar("F", bound=Callable[..., Any])


def called_in_python(function: F) -> F:
    """Mark a function as one that scripted code calls back; it knows none of its defaults."""
    torch.jit.ignore(function)
    return function


def left_alone(function: F) -> F:
    """Mark a function as one that scripted code may name and never runs."""
    torch.jit.unused(function)
    return function


def define_all(
    library: torch.library.Library, operators: Mapping[str, tuple[str, Callable[..., Any]]]
) -> None:
    """Define operators by name: the schema of each, and what it runs on every device."""
    for name, (schema, function) in operators.items():
        library.define(name + schema)
        library.impl(name, function, "CompositeImplicitAutograd")
