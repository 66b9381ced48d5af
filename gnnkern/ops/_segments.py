"""Gradients of reductions over groups of rows, shared by segments and scatters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["mul_gradient"]


def mul_gradient(
    x: Tensor,  # [E, ...]
    grad: Tensor,  # [N, ...]
    reduce: Callable[[Tensor, str], Tensor],
    spread: Callable[[Tensor], Tensor],
) -> Tensor:  # [E, ...]
    """Gradient of a product per group: the group's gradient times the product of the others.

    `reduce(values [E, ...], "sum" | "mul")` reduces groups, `spread(rows [N, ...])` repeats a
    group's row for each of its members. Zeros are counted, so that a group with one zero gives its
    gradient to that zero alone.
    """
    is_zero = x == 0
    others = reduce(torch.where(is_zero, 1, x), "mul")
    zeros = spread(reduce(is_zero.to(torch.float32), "sum"))
    total = spread(grad * others)
    at_zero = torch.where(zeros == 1, total, 0)
    return torch.where(is_zero, at_zero, torch.where(zeros == 0, total / x, 0)).to(x.dtype)
