"""Linear maps with the initialisations of graph layers, sized now or at the first call."""

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
