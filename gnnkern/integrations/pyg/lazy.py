"""`LazyMessage`: a tensor that is made when somebody looks at it.

`MessagePassing` gathers the features of every edge's end; what a layer does with them is often
simple enough that the reduction can read the features themselves. So a gather gives a tensor that
remembers what it is, stays that way through some operations, and becomes an ordinary tensor in
every other. It is differentiable whatever happens to it: an operation that does not ask
(`torch.autograd.Function`) gets its value, and its gradient goes to the features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from gnnkern.integrations.pyg import report
from gnnkern.integrations.pyg.expressions import Expression

__all__ = ["STAY_LAZY", "LazyMessage", "expression_of"]

# What answers for functions of torch that leave a message unmade, or NotImplemented:
# `staying.py` and `maps.py`.
STAY_LAZY: dict[Any, Callable[..., Any]] = {}


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
        stay = STAY_LAZY.get(func)
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


def expression_of(x: Any) -> Expression | None:
    """The expression of a message that was not made; None for everything else."""
    return x.current() if isinstance(x, LazyMessage) else None
