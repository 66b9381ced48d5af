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
]

_LIBRARY = torch.library.Library("gnnkern", "FRAGMENT")


def define(
    name: str, signature: str, implementation: Callable[..., Any], fake: Callable[..., Any]
) -> Any:
    """Define `gnnkern::<name>`; the gradient lies outside, in an autograd.Function."""
    _LIBRARY.define(f"{name}{signature}", tags=torch.Tag.pt2_compliant_tag)
    _LIBRARY.impl(name, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"gnnkern::{name}", fake, lib=_LIBRARY)
    return getattr(torch.ops.gnnkern, name).default


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
