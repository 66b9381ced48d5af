"""`LazyMessage`: a tensor that is made when somebody looks at it.

`MessagePassing` gathers the features of every edge's end; what a layer does with them is often
simple enough that the reduction can read the features themselves. So a gather gives a tensor that
remembers what it is, stays that way through the operations below, and becomes an ordinary tensor in
every other. It is differentiable whatever happens to it: an operation that does not ask
(`torch.autograd.Function`) gets its value, and its gradient goes to the features.

What stays lazy: a factor, divisor or summand for each edge; sums, differences and products of both
ends; concatenation; functions of one element that are bounded where nothing is gathered; products
with scalars; views that keep the edges apart. The dot product of both ends is computed at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map_only

from gnnkern.integrations.pyg import report
from gnnkern.integrations.pyg.expressions import (
    OPS,
    Cat,
    Expression,
    Gather,
    Pair,
    same_index,
)

__all__ = ["LazyMessage", "on_both_ends"]


class _Link(torch.autograd.Function):
    """The gradient of a message goes to its leaves, through its value."""

    @staticmethod
    def forward(ctx: Any, expression: Expression, *leaves: Tensor) -> Tensor:
        ctx.save_for_backward(*leaves)
        ctx.expression = expression
        first = leaves[0]
        return LazyMessage.wrap(expression.shape, first.dtype, first.device)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        needed = ctx.needs_input_grad[1:]
        leaves = ctx.saved_tensors
        again = torch.is_grad_enabled()
        if not again:
            leaves = [x.detach().requires_grad_(n) for x, n in zip(leaves, needed, strict=True)]
        with torch.enable_grad():
            value = ctx.expression.value(*leaves)
            wanted = [x for x, n in zip(leaves, needed, strict=True) if n]
            grads = iter(torch.autograd.grad(value, wanted, grad, create_graph=again))
        return None, *(next(grads) if n else None for n in needed)


class _Made(torch.autograd.Function):
    """The value of a message that some operation has given a history of its own."""

    @staticmethod
    def forward(ctx: Any, message: LazyMessage) -> Tensor:
        expression = message.expression
        return expression.value(*(leaf.detach() for leaf in expression.leaves))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class LazyMessage(Tensor):
    """A message of every edge, [E, ...], not made yet."""

    expression: Expression
    made: Tensor | None
    versions: tuple[int, ...]
    has_grad: bool
    link: Any

    @staticmethod
    def wrap(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> LazyMessage:
        """A tensor without memory."""
        message: LazyMessage = Tensor._make_wrapper_subclass(
            LazyMessage, torch.Size(shape), dtype=dtype, device=device
        )
        return message

    @staticmethod
    def of(expression: Expression) -> LazyMessage:
        """The message that an expression stands for."""
        leaves = expression.leaves
        message = _Link.apply(expression, *leaves)
        message.expression = expression
        message.made = None
        message.versions = _versions(leaves)
        # A message has the history of when it was gathered, not of when it is looked at.
        message.has_grad = torch.is_grad_enabled()
        message.link = message.grad_fn
        return message  # type: ignore[no-any-return]

    def current(self) -> Expression | None:
        """The expression; None where it is not all there is to the message.

        A message that was made may have been written to, and what an `autograd.Function` returned
        has the history of that function.

        Raises:
            RuntimeError: a tensor that it is made from was written to since.
        """
        if self.made is not None or self.grad_fn is not self.link:
            return None
        if self.versions != _versions(self.expression.leaves):
            raise RuntimeError(
                "gnnkern.patch_pyg: a tensor was changed in place after messages were gathered "
                'from it and before they were used; patch_pyg("ops") gathers at once'
            )
        return self.expression

    def value(self) -> Tensor:
        """The message itself, made once."""
        expression = self.current()
        if expression is not None:
            with torch._C.DisableTorchFunctionSubclass(), torch.set_grad_enabled(self.has_grad):
                self.made = expression.value(*expression.leaves)
        elif self.made is None:
            with torch._C.DisableTorchFunctionSubclass():
                self.made = _Made.apply(self)
        assert self.made is not None
        return self.made

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _METADATA:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        stay = _STAY_LAZY.get(func)
        if stay is not None:
            out = stay(*args, **kwargs)
            if out is not NotImplemented:
                return out
        report.left("message", f"made for {getattr(func, '__name__', func)}")
        args = tree_map_only(LazyMessage, LazyMessage.value, args)
        kwargs = tree_map_only(LazyMessage, LazyMessage.value, kwargs)
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        # Below autograd, where the gradient is `_Link`'s.
        def plain(message: LazyMessage) -> Tensor:
            return LazyMessage.value(message).detach()

        args = tree_map_only(LazyMessage, plain, args)
        return func(*args, **tree_map_only(LazyMessage, plain, kwargs or {}))


def _versions(leaves: tuple[Tensor, ...]) -> tuple[int, ...]:
    return tuple(-1 if leaf.is_inference() else leaf._version for leaf in leaves)


_METADATA = {
    getattr(Tensor, name).__get__
    for name in (
        "shape",
        "dtype",
        "device",
        "ndim",
        "layout",
        "requires_grad",
        "is_leaf",
        "grad_fn",
        "is_cuda",
        "is_cpu",
        "is_sparse",
        "is_quantized",
        "is_meta",
    )
} | {
    Tensor.size,
    Tensor.dim,
    Tensor.ndimension,
    Tensor.numel,
    Tensor.nelement,
    Tensor.element_size,
    Tensor.stride,
    Tensor.is_contiguous,
    Tensor.is_floating_point,
    Tensor.is_complex,
    Tensor.is_inference,
    Tensor.get_device,
    Tensor.__len__,
    Tensor.__hash__,
    torch.numel,
    torch.is_floating_point,
    torch.is_complex,
}

# -- what stays lazy -------------------------------------------------------------------------------


def _expression_of(x: Any) -> Expression | None:
    return x.current() if isinstance(x, LazyMessage) else None


def _binary(op: str, reverse: bool = False) -> Callable[..., Any]:
    def handler(a: Any, b: Any, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs:
            return NotImplemented
        return _combine(op, b, a) if reverse else _combine(op, a, b)

    return handler


def _combine(op: str, a: Any, b: Any) -> Any:
    lhs, rhs = _expression_of(a), _expression_of(b)
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
        gather = _expression_of(message)
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
    gather = _expression_of(message)
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
    gather = _expression_of(message)
    if not isinstance(gather, Gather) or dim % (len(gather.shape) + 1) == 0:
        return NotImplemented
    return LazyMessage.of(gather.over(gather.x.unsqueeze(dim)))


def _cat(tensors: Any, dim: int = 0, **kwargs: Any) -> Any:
    parts = [_expression_of(tensor) for tensor in tensors]
    if kwargs or not parts or not all(isinstance(part, Gather | Pair) for part in parts):
        return NotImplemented
    whole = Cat(tuple(parts))  # type: ignore[arg-type]
    dims = len(whole.shape)
    shapes = {part.shape[:-1] for part in whole.parts}
    dtypes = {leaf.dtype for leaf in whole.leaves}
    if dims < 2 or dim % dims != dims - 1 or len(shapes) > 1 or len(dtypes) > 1:
        return NotImplemented
    return LazyMessage.of(whole)


# Set by what knows about graphs: the product of both ends, summed over the last dimension.
on_both_ends: dict[str, Callable[[Gather, Gather], Tensor | None]] = {}


def _sum(message: Any, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Any:
    pair = _expression_of(message)
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


_STAY_LAZY: dict[Any, Callable[..., Any]] = {
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
    torch.cat: _cat,
    torch.concat: _cat,
    Tensor.sum: _sum,
    torch.sum: _sum,
}
