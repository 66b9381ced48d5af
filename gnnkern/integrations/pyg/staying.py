"""What leaves a message unmade: arithmetic, functions of one element, views.

A factor, divisor or summand for each edge; sums, differences and products of both ends; functions
of one element that are bounded where nothing is gathered; products with scalars; views that keep
the edges apart. The dot product of both ends is computed at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gnnkern.integrations.pyg.expressions import OPS, Gather, Pair, same_index
from gnnkern.integrations.pyg.lazy import STAY_LAZY, LazyMessage, expression_of

__all__ = ["on_both_ends"]


def _binary(op: str, reverse: bool = False) -> Callable[..., Any]:
    def handler(a: Any, b: Any, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs:
            return NotImplemented
        return _combine(op, b, a) if reverse else _combine(op, a, b)

    return handler


def _combine(op: str, a: Any, b: Any) -> Any:
    lhs, rhs = expression_of(a), expression_of(b)
    if isinstance(a, LazyMessage) and isinstance(b, LazyMessage):
        if not (isinstance(lhs, Gather) and isinstance(rhs, Gather)):
            return NotImplemented
        return _of_two_gathers(op, lhs, rhs)
    expression, other, is_left = (lhs, b, True) if isinstance(a, LazyMessage) else (rhs, a, False)
    if isinstance(other, int | float) and isinstance(expression, Gather):
        if op == "div" and not is_left:
            return NotImplemented
        x = OPS[op](expression.x, other) if is_left else OPS[op](other, expression.x)
        return LazyMessage.of(expression.over(x))
    if type(other) not in (Tensor, torch.nn.Parameter) or expression is None:
        return NotImplemented
    if isinstance(expression, Pair):
        return _rescaled(op, expression, other)
    if not isinstance(expression, Gather) or not _matches(expression, other):
        return NotImplemented
    if other.dim() == len(expression.shape) and other.shape[0] == expression.shape[0]:
        if op == "div" and not is_left:
            return NotImplemented
        pair = Pair(op, expression, other) if is_left else Pair(op, other, expression)
        return LazyMessage.of(pair)
    if other.dim() < len(expression.shape) or other.shape[0] == 1:
        # The same for every edge: so it can be done where the features are.
        if op == "div":
            return NotImplemented
        x = OPS[op](expression.x, other) if is_left else OPS[op](other, expression.x)
        return (
            LazyMessage.of(expression.over(x)) if x.dim() == expression.x.dim() else NotImplemented
        )
    return NotImplemented


def _matches(expression: Gather, other: Tensor) -> bool:
    """Whether torch would neither convert nor refuse."""
    if other.dtype != expression.x.dtype or other.device != expression.x.device:
        return False
    pairs = zip(reversed(expression.shape), reversed(other.shape), strict=False)
    return other.dim() <= len(expression.shape) and all(n in (1, m) or m == 1 for m, n in pairs)


def _of_two_gathers(op: str, lhs: Gather, rhs: Gather) -> Any:
    if lhs.x.dtype != rhs.x.dtype or lhs.shape != rhs.shape:
        return NotImplemented
    if same_index(lhs.index, rhs.index):
        if op == "div" or lhs.x.shape != rhs.x.shape:
            return NotImplemented
        return LazyMessage.of(lhs.over(OPS[op](lhs.x, rhs.x)))
    return LazyMessage.of(Pair(op, lhs, rhs))


def _rescaled(op: str, pair: Pair, other: Tensor) -> Any:
    """A message with a factor for each edge, times another factor of that shape."""
    for weight, gather in ((pair.lhs, pair.rhs), (pair.rhs, pair.lhs)):
        if (
            op == pair.op == "mul"
            and isinstance(gather, Gather)
            and isinstance(weight, Tensor)
            and weight.shape == other.shape
            and weight.dtype == other.dtype
        ):
            return LazyMessage.of(Pair("mul", weight * other, gather))
    return NotImplemented


def _elementwise(function: Callable[..., Tensor]) -> Callable[..., Any]:
    """A function of one element, done where the features are."""

    def handler(message: Any, *args: Any, **kwargs: Any) -> Any:
        gather = expression_of(message)
        options = (*args, *kwargs.values())
        # True: in place.
        if any(option is True or isinstance(option, Tensor) for option in options):
            return NotImplemented
        if not isinstance(gather, Gather):
            return NotImplemented
        return LazyMessage.of(gather.over(function(gather.x, *args, **kwargs)))

    return handler


def _relu(message: Any, inplace: bool = False) -> Any:
    return NotImplemented if inplace else _elementwise(torch.relu)(message)


def _power(message: Any, exponent: Any) -> Any:
    if isinstance(exponent, int) and exponent in (1, 2, 3):
        return _elementwise(torch.pow)(message, exponent)
    return NotImplemented


def _view(message: Any, *shape: Any) -> Any:
    gather = expression_of(message)
    if len(shape) == 1 and isinstance(shape[0], tuple | list | torch.Size):
        shape = tuple(shape[0])
    if not isinstance(gather, Gather) or not all(isinstance(n, int) for n in shape):
        return NotImplemented
    width = torch.Size(gather.x.shape[1:]).numel()
    rest = torch.Size(shape[1:]).numel() if -1 not in shape[1:] else -1
    if not shape or shape[0] not in (-1, gather.shape[0]) or rest != width or width == 0:
        return NotImplemented
    return LazyMessage.of(gather.over(gather.x.reshape(gather.x.shape[0], *shape[1:])))


def _unsqueeze(message: Any, dim: int) -> Any:
    gather = expression_of(message)
    if not isinstance(gather, Gather) or dim % (len(gather.shape) + 1) == 0:
        return NotImplemented
    return LazyMessage.of(gather.over(gather.x.unsqueeze(dim)))


# Set by what knows about graphs: the product of both ends, summed over the last dimension.
on_both_ends: dict[str, Callable[[Gather, Gather], Tensor | None]] = {}


def _sum(message: Any, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Any:
    pair = expression_of(message)
    dim = dim[0] if isinstance(dim, tuple | list) and len(dim) == 1 else dim
    if not isinstance(pair, Pair) or pair.op != "mul" or kwargs or not isinstance(dim, int):
        return NotImplemented
    if not (isinstance(pair.lhs, Gather) and isinstance(pair.rhs, Gather)):
        return NotImplemented
    if len(pair.shape) not in (2, 3) or dim % len(pair.shape) != len(pair.shape) - 1:
        return NotImplemented
    dot = on_both_ends.get("dot")
    out = None if dot is None else dot(pair.lhs, pair.rhs)
    if out is None:
        return NotImplemented
    return out.unsqueeze(-1) if keepdim else out


def _new(method: Callable[..., Tensor]) -> Callable[..., Any]:
    """A new tensor of a given shape, like the features."""

    def handler(message: Any, *args: Any, **kwargs: Any) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            return method(message.expression.leaves[0].detach(), *args, **kwargs)

    return handler


STAY_LAZY |= {
    torch.mul: _binary("mul"),
    Tensor.mul: _binary("mul"),
    Tensor.__mul__: _binary("mul"),
    Tensor.__rmul__: _binary("mul", reverse=True),
    torch.div: _binary("div"),
    Tensor.div: _binary("div"),
    Tensor.__truediv__: _binary("div"),
    torch.add: _binary("add"),
    Tensor.add: _binary("add"),
    Tensor.__add__: _binary("add"),
    Tensor.__radd__: _binary("add", reverse=True),
    torch.sub: _binary("sub"),
    Tensor.sub: _binary("sub"),
    Tensor.__sub__: _binary("sub"),
    Tensor.__rsub__: _binary("sub", reverse=True),
    torch.relu: _relu,
    Tensor.relu: _relu,
    F.relu: _relu,
    F.leaky_relu: _elementwise(F.leaky_relu),
    torch.sigmoid: _elementwise(torch.sigmoid),
    Tensor.sigmoid: _elementwise(torch.sigmoid),
    torch.tanh: _elementwise(torch.tanh),
    Tensor.tanh: _elementwise(torch.tanh),
    torch.neg: _elementwise(torch.neg),
    Tensor.neg: _elementwise(torch.neg),
    Tensor.__neg__: _elementwise(torch.neg),
    torch.square: _elementwise(torch.square),
    Tensor.square: _elementwise(torch.square),
    torch.pow: _power,
    Tensor.pow: _power,
    Tensor.__pow__: _power,
    Tensor.view: _view,
    Tensor.reshape: _view,
    Tensor.unsqueeze: _unsqueeze,
    torch.unsqueeze: _unsqueeze,
    Tensor.new_zeros: _new(Tensor.new_zeros),
    Tensor.new_ones: _new(Tensor.new_ones),
    Tensor.new_full: _new(Tensor.new_full),
    Tensor.new_empty: _new(Tensor.new_empty),
    Tensor.sum: _sum,
    torch.sum: _sum,
}
