"""Defining torch operators, and what their gradients share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gnnkern.backends import ALTERNATIVES
from gnnkern.ops._transforms import transforms_active

__all__ = [
    "cast_for_autocast",
    "define",
    "draw_seed",
    "first_derivative_only",
    "is_tracked",
    "needs_gradient",
    "run",
]

_LIBRARY = torch.library.Library("gnnkern", "FRAGMENT")
_CALLS: dict[str, Callable[..., Any]] = {}
_PLAIN_TENSORS = (Tensor, torch.nn.Parameter)


def define(
    name: str, signature: str, implementation: Callable[..., Any], fake: Callable[..., Any]
) -> Callable[..., Any]:
    """Define `gnnkern::<name>` and return what calls it; the gradient lies outside.

    Where nobody looks at the operator, the call goes to the implementation without torch's
    dispatcher, which takes as long as a sum over a small graph.
    """
    _LIBRARY.define(f"{name}{signature}", tags=torch.Tag.pt2_compliant_tag)
    _LIBRARY.impl(name, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"gnnkern::{name}", fake, lib=_LIBRARY)
    operator = getattr(torch.ops.gnnkern, name).default

    def call(*arguments: Any) -> Any:
        if torch.compiler.is_compiling() or _is_observed(arguments):
            return operator(*arguments)
        return implementation(*arguments)

    _CALLS[name] = call
    return call


def run(name: str, *arguments: Any) -> Any:
    """Call the operator of this name, as what `define` returned for it does."""
    return _CALLS[name](*arguments)


def _is_observed(arguments: tuple[Any, ...]) -> bool:
    """Whether a mode, a transform, a tracer or the profiler is to see an operator, or a subclass.

    Modes stand for fake tensors, export and tracing of gradients too.
    """
    if (
        torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state() is not None
        or torch._C._autograd._profiler_enabled()
    ):
        return True
    # A loop: any() over a generator takes twice as long.
    for argument in arguments:  # noqa: SIM110
        if isinstance(argument, Tensor) and type(argument) not in _PLAIN_TENSORS:
            return True
    return False


def needs_gradient(*tensors: Tensor | None) -> bool:
    """Whether autograd must see a call on these tensors, of an op that is not linear.

    Such an op has no forward mode: a tangent raises, where the kernel alone would lose it.
    """
    if forward_ad._current_level >= 0 and any(
        t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors
    ):
        raise RuntimeError(f"forward-mode derivatives are not implemented here; {ALTERNATIVES}")
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def is_tracked(*tensors: Tensor | None) -> bool:
    """Whether autograd or a transform must see a call on these tensors, of a linear op."""
    if transforms_active():
        return True
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def draw_seed(device: torch.device) -> Tensor:  # int64 [1]
    """One 62-bit seed from torch's generator, on the device that uses it."""
    return torch.randint(0, 2**62, (1,), dtype=torch.int64, device=device)


class _FirstDerivativeOnly(torch.autograd.Function):
    """Identity that says clearly why it cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, what: str, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.what = what
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(
            f"{ctx.what}: the second derivative is not implemented; "
            "backend='reference' has it through plain torch"
        )


def first_derivative_only(
    what: str, grads: tuple[Tensor | None, ...], inputs: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, ...]:
    """`grads` of a backward, which raise when they are differentiated again.

    `inputs` are the tensors that the gradients depend on.
    """
    if not needs_gradient(*inputs):
        return grads
    anchor = next(t for t in inputs if t is not None and t.requires_grad)
    # Joined to the graph by a sum over nothing, so that differentiating reaches the error.
    zero = anchor.reshape(-1)[:0].sum()
    present = [(grad + zero.to(grad.dtype)) for grad in grads if grad is not None]
    guarded = iter(_FirstDerivativeOnly.apply(what, *present))
    return tuple(None if grad is None else next(guarded) for grad in grads)


def cast_for_autocast(*tensors: Tensor | None, to: torch.dtype | None = None) -> Any:
    """Under autocast: floating tensors in the autocast dtype, or in `to`. Otherwise unchanged."""
    if not torch.compiler.is_compiling() and not torch._C._is_any_autocast_enabled():
        return tensors
    first = next((t for t in tensors if isinstance(t, Tensor)), None)
    if first is None or first.device.type == "meta":
        return tensors
    device_type = first.device.type
    if not torch.is_autocast_enabled(device_type):
        return tensors
    dtype = torch.get_autocast_dtype(device_type) if to is None else to
    return tuple(
        t.to(dtype)
        if isinstance(t, Tensor) and t.is_floating_point() and t.dtype != torch.float64
        else t
        for t in tensors
    )
