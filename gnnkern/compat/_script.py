"""What TorchScript is to do with functions that it cannot compile."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

__all__ = ["called_in_python"]

F = TypeVar("F", bound=Callable[..., Any])


def called_in_python(function: F) -> F:
    """Mark a function as one that scripted code calls back; it knows none of its defaults."""
    torch.jit.ignore(function)
    return function
