"""Launchers of select_backward.cpp: the gradients of max and min."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnkern._native import (
    SCALAR_CODES,
    Csr,
    accumulate_dtype,
    address,
    fields,
    module,
    rows_of,
    segment_fields,
)


def _select_backward(
    csr_fields: tuple[int, ...],
    grad: Tensor,  # [num_rows, ...]
    weight: Tensor | None,  # [E] or [E, H]
    argument: Tensor,  # [num_rows, ...]
    grad_x: Tensor | None,
    grad_weight: Tensor | None,
    x: Tensor | None,
) -> None:
    x_stride = 0
    if x is not None:
        x, x_stride, _ = rows_of(x)
    grad = grad.contiguous()
    weight = None if weight is None else weight.contiguous()
    heads_of = weight if weight is not None else grad_weight
    module().select_backward(
        csr_fields,
        SCALAR_CODES[grad.dtype],
        grad.data_ptr(),
        grad.shape[1:].numel(),
        address(weight),
        1 if heads_of is None or heads_of.dim() == 1 else heads_of.shape[1],
        argument.data_ptr(),
        argument.element_size(),
        address(grad_x),
        address(grad_weight),
        address(x),
        x_stride,
        torch.get_num_threads(),
    )


def select_backward_x(
    csr: Csr, grad: Tensor, weight: Tensor | None, argument: Tensor, num_cols: int
) -> Tensor:
    """Gradient [num_cols, ...] of the x of a max or min: each winner receives its row's."""
    grad_x = grad.new_empty((num_cols, *grad.shape[1:]))
    if grad.numel() == 0:
        return grad_x.zero_()
    if grad_x.numel():
        _select_backward(fields(csr, num_cols), grad, weight, argument, grad_x, None, None)
    return grad_x


def select_backward_weight(
    csr: Csr, grad: Tensor, weight: Tensor, argument: Tensor, x: Tensor
) -> Tensor:
    """Gradient of the weight, [E] or [E, H]."""
    grad_weight = torch.empty(weight.shape, dtype=accumulate_dtype(grad.dtype))
    if grad.numel() == 0 or grad_weight.numel() == 0:
        return grad_weight.zero_().to(weight.dtype)
    csr_fields = fields(csr, x.shape[0])
    _select_backward(csr_fields, grad, None, argument, None, grad_weight, x)
    return grad_weight.to(weight.dtype)


def segment_select_backward(
    indptr: Tensor, grad: Tensor, argument: Tensor, num_edges: int
) -> Tensor:
    """Gradient [E, ...] of the x of a segment max or min."""
    grad_x = grad.new_empty((num_edges, *grad.shape[1:]))
    if grad.numel() == 0:
        return grad_x.zero_()
    if grad_x.numel():
        csr_fields = segment_fields(indptr, num_edges)
        _select_backward(csr_fields, grad, None, argument, grad_x, None, None)
    return grad_x
