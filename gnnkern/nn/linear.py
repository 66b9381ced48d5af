"""Linear maps with the initialisations of graph layers, sized now or at the first call."""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn


class GlorotLinear(nn.Linear):
    """`torch.nn.Linear` whose weight starts as Glorot's uniform and whose bias starts at 0."""

    def reset_parameters(self) -> None:
        """Draw the weight again."""
        _reset_glorot(self)


class LazyGlorotLinear(nn.LazyLinear):
    """`GlorotLinear` whose input width is that of its first input."""

    cls_to_become = GlorotLinear

    def reset_parameters(self) -> None:
        """Draw the weight again, once its size is known."""
        if not self.has_uninitialized_params():
            _reset_glorot(self)


def _reset_glorot(linear: nn.Linear) -> None:
    glorot_(linear.weight)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


def make_linear(
    in_channels: int, out_channels: int, *, bias: bool, glorot: bool = False
) -> nn.Linear:
    """Return a linear map; an `in_channels` of -1 takes the width of the first input.

    Args:
        in_channels: Input width, or -1.
        out_channels: Output width.
        bias: Whether to add a learnable bias.
        glorot: Glorot's uniform weights and zero bias instead of `torch.nn.Linear`'s.
    """
    if in_channels == -1:
        lazy = LazyGlorotLinear if glorot else nn.LazyLinear
        return cast(nn.Linear, lazy(out_channels, bias=bias))
    if in_channels < 0:
        raise ValueError(f"linear: in_channels must be >= 0, or -1 for lazy, got {in_channels}")
    return (GlorotLinear if glorot else nn.Linear)(in_channels, out_channels, bias=bias)


def glorot_(tensor: Tensor) -> None:  # [..., fan_in, fan_out]
    """Fill `tensor` from Glorot's uniform over its last two sizes."""
    bound = (6.0 / max(tensor.shape[-2] + tensor.shape[-1], 1)) ** 0.5
    with torch.no_grad():
        tensor.uniform_(-bound, bound)


def split_first_linear(module: nn.Module) -> tuple[nn.Linear, list[nn.Module]] | None:
    """Return the linear map that a network begins with, and what follows it.

    None where it does not begin with one, or where that must be called as a whole: another class,
    a lazy one, hooks. A linear map of rows that are gathered, summed or side by side is otherwise
    made of maps of the rows that there are before.
    """
    follow = list(module) if type(module) is nn.Sequential else [module]
    if not follow or _has_hooks(module):
        return None
    first = follow.pop(0)
    if type(first) not in (nn.Linear, GlorotLinear) or _has_hooks(first):
        return None
    return cast(nn.Linear, first), follow


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def run_all(modules: Iterable[nn.Module], x: Tensor) -> Tensor:
    """Return what modules make of x, one after another."""
    for module in modules:
        x = module(x)
    return x
