"""The gradient of what a group of rows has in common: every row by its distance from a shift."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gnnkern._cpu.scale_by_group import scale_by_group
from gnnkern._native import accumulate_dtype
from gnnkern.ops._device import launchers, scale_by_group_of
from gnnkern.ops._operator import define

__all__ = ["scale_rows", "statistics_like"]


def _scale_on_device(backend: str, *arguments: Any) -> Tensor:
    out: Tensor = scale_by_group_of(backend).scale_by_group(*arguments)
    return out


_LAUNCH = launchers(scale_by_group, _scale_on_device)


def _scale_by_group(
    x: Tensor,
    group: Tensor,
    by_boundaries: bool,
    statistics: Tensor,
    grad: Tensor,
    exponential: bool,
    backend: str,
) -> Tensor:
    return _LAUNCH[backend](x, group, by_boundaries, statistics, grad, exponential)


_scale_by_group_op = define(
    "scale_by_group",
    "(Tensor x, Tensor group, bool by_boundaries, Tensor statistics, Tensor grad, "
    "bool exponential, str backend) -> Tensor",
    _scale_by_group,
    lambda x, group, by_boundaries, statistics, grad, exponential, backend: x.new_empty(x.shape),
)


def scale_rows(
    x: Tensor,  # [E, ...]
    group: Tensor,  # [E], or with `by_boundaries` [N + 1]
    statistics: Tensor,  # [N, 2 or 3, ...] the shift, in one part or two, and the slope
    grad: Tensor,  # [N, ...]
    backend: str,
    *,
    by_boundaries: bool = False,
    exponential: bool = False,
) -> Tensor:  # [E, ...]
    """(x - shift) * slope * grad of each row's group, or exp(x - shift) in place of x - shift."""
    out: Tensor = _scale_by_group_op(
        x, group, by_boundaries, statistics, grad, exponential, backend
    )
    return out


def statistics_like(x: Tensor, num_groups: Any, parts: int, differentiable: bool) -> Tensor:
    """Statistics as an operator's fake returns them: of no group where nobody asked."""
    shape = (num_groups if differentiable else 0, parts, *x.shape[1:])
    return x.new_empty(shape, dtype=accumulate_dtype(x.dtype))
