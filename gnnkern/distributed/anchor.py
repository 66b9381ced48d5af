"""`anchored`: a result tied to an exchange on which it does not depend."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["anchored"]


def anchored(out: Tensor, ghosts: Iterable[Tensor]) -> Tensor:
    """The result, in whose backward the ghosts' exchange has one too.

    Other ranks have one, and would wait.
    """
    tied: Tensor = _Anchor.apply(out, *ghosts)
    return tied


class _Anchor(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, out: Tensor, *ghosts: Tensor) -> Tensor:
        ctx.shapes = [(x.shape, x.dtype, x.device) for x in ghosts]
        # The same memory, and no view: what follows may write over it.
        return out.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        zeros = [torch.zeros(shape, dtype=dt, device=dev) for shape, dt, dev in ctx.shapes]
        return grad, *zeros
