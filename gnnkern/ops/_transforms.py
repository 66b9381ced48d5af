"""Linear ops under forward-mode differentiation and the transforms of torch.func."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ["Linear", "batch_first", "transformed", "transforms_active"]


def transforms_active() -> bool:
    """Whether a call runs under forward mode, or inside grad, jvp or vmap of torch.func."""
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


class Linear:
    """An op that is linear in each of its tensors, with everything else that it takes."""

    def __call__(self, *tensors: Tensor | None) -> Tensor:
        """The op as others call it, differentiable."""
        raise NotImplementedError

    def value(self, *tensors: Tensor | None) -> Tensor:
        """The op on plain memory."""
        raise NotImplementedError

    def gradients(
        self, grad: Tensor, needs: Sequence[bool], *tensors: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """The gradient of each tensor that needs one, through differentiable functions."""
        raise NotImplementedError

    def tangent(
        self, tensors: Sequence[Tensor | None], tangents: Sequence[Tensor | None]
    ) -> Tensor | None:
        """The derivative along tangents: by the product rule, one call for each of them."""
        total: Tensor | None = None
        for i, tangent in enumerate(tangents):
            if tangent is not None:
                term = self(*tensors[:i], tangent, *tensors[i + 1 :])
                total = term if total is None else total + term
        return total

    def batched(
        self, size: int, tensors: Sequence[Tensor | None], dims: Sequence[int | None]
    ) -> tuple[Tensor, int]:
        """One call for a whole batch: its result, and the dimension of the batch in it.

        `dims` says where the batch lies in each tensor.
        """
        raise NotImplementedError


class _Transformed(torch.autograd.Function):
    """A linear op with the rules that torch.func asks for.

    Ordinary calls take a Function without them: binding arguments to a signature, as torch does
    where there is a setup_context, would cost them 10 us.
    """

    @staticmethod
    def forward(op: Linear, *tensors: Tensor | None) -> Tensor:
        return op.value(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        op, *tensors = inputs
        ctx.op = op
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        if grad is None:
            return (None,) * len(ctx.needs_input_grad)
        return None, *ctx.op.gradients(grad, ctx.needs_input_grad[1:], *ctx.saved_tensors)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Tensor | None:
        # torch turns forward mode off in here, for the levels outside of this one as well, whose
        # derivatives would be lost; at this level the primals have no tangent to go round with.
        with forward_ad._set_fwd_grad_enabled(True):
            primals = [
                None if x is None else forward_ad.unpack_dual(x).primal for x in ctx.saved_tensors
            ]
            out: Tensor | None = ctx.op.tangent(primals, tangents)
        return out

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], op: Linear, *tensors: Tensor | None) -> Any:
        return op.batched(info.batch_size, tensors, in_dims[1:])


def transformed(op: Linear, *tensors: Tensor | None) -> Tensor:
    """Run a linear op where `transforms_active`."""
    out: Tensor = _Transformed.apply(op, *tensors)
    return out


def batch_first(x: Tensor, dim: int | None, size: int) -> Tensor:
    """`x` with the batch behind the rows: [rows, size, ...]; repeated where it has none."""
    if dim is None:
        return x.unsqueeze(1).expand(-1, size, *[-1] * (x.dim() - 1))
    return x.movedim(dim, 0).transpose(0, 1)
