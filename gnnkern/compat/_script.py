"""What TorchScript is to do with functions that it cannot compile."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

__all__ = ["called_in_python", "left_alone"]

F = TypeVar("F", bound=Callable[..., Any])


def called_in_python(function: F) -> F:
    """Mark a function as one that scripted code calls back; it knows none of its defaults."""
    torch.jit.ignore(function)
    return function


def left_alone(function: F) -> F:
    """Mark a function as one that scripted code may name and never runs."""
    torch.jit.unused(function)
    return function
