"""Launchers of select_backward.cpp: the gradients of max and min."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gnnkern._cpu.broadcasting import column_tables, groups, shape_of
from gnnkern._native import (
    EDGE_OP_CODES,
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
    grads: Sequence[Tensor],  # [num_rows, ...] each, rows contiguous and equally far apart
    weight: Tensor | None,  # [E, ...]
    arguments: Sequence[Tensor],  # [num_rows, ...] each
    grad_x: Tensor | None,
    grad_weight: Tensor | None,
    x: Tensor | None,
    base: Tensor | None = None,
    op: str = "mul",
    x_columns: Tensor | None = None,
    weight_columns: Tensor | None = None,
) -> None:
    x_stride = 0
    if x is not None:
        x, x_stride, _ = rows_of(x)
    weight = None if weight is None else weight.contiguous()
    heads_of = weight if weight is not None else grad_weight
    addresses = [
        (grad.data_ptr(), argument.data_ptr())
        for grad, argument in zip(grads, arguments, strict=True)
    ]
    module().select_backward(
        csr_fields,
        SCALAR_CODES[grads[0].dtype],
        addresses,
        grads[0].stride(0),
        grads[0].shape[1:].numel(),
        address(weight),
        1 if heads_of is None else heads_of.shape[1:].numel(),
        arguments[0].element_size(),
        address(grad_x),
        address(grad_weight),
        address(base),
        address(x),
        x_stride,
        EDGE_OP_CODES[op],
        address(x_columns),
        address(weight_columns),
        grad_weight is not None and grad_weight.dtype == accumulate_dtype(grads[0].dtype),
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
        grads = [grad.contiguous()]
        _select_backward(fields(csr, num_cols), grads, weight, [argument], grad_x, None, None)
    return grad_x


def add_winners(
    csr: Csr,
    grads: Sequence[Tensor],  # [num_rows, ...] each, rows contiguous and equally far apart
    arguments: Sequence[Tensor],  # [num_rows, ...] each
    num_cols: int,
    base: Tensor | None,  # [num_cols, ...] in accumulation precision; may be overwritten
) -> Tensor:  # [num_cols, ...]
    """`base`, or nothing, and what the winners of several selections receive; none is empty."""
    grad_x = base
    if grad_x is None or grad_x.dtype != grads[0].dtype:
        grad_x = grads[0].new_empty((num_cols, *grads[0].shape[1:]))
    csr_fields = fields(csr, num_cols)
    _select_backward(csr_fields, grads, None, arguments, grad_x, None, None, base)
    return grad_x


def select_backward_weight(
    csr: Csr, grad: Tensor, weight: Tensor, argument: Tensor, x: Tensor
) -> Tensor:
    """Gradient of the weight, [E] or [E, H]."""
    grad_weight = torch.empty(weight.shape, dtype=accumulate_dtype(grad.dtype))
    if grad.numel() == 0 or grad_weight.numel() == 0:
        return grad_weight.zero_().to(weight.dtype)
    csr_fields = fields(csr, x.shape[0])
    _select_backward(csr_fields, [grad.contiguous()], None, [argument], None, grad_weight, x)
    return grad_weight.to(weight.dtype)


def message_select_backward_x(
    csr: Csr, grad: Tensor, edge: Tensor, argument: Tensor, num_cols: int, op: str
) -> Tensor:  # [num_cols, ...] as wide as grad
    """Gradient of the columns of a message that are those of x, before any is summed."""
    grad_x = grad.new_empty((num_cols, *grad.shape[1:]))
    if grad.numel() == 0:
        return grad_x.zero_()
    if grad_x.numel():
        weight = edge if op in ("mul", "div") else None
        edge_columns = None
        if groups(shape_of(edge), shape_of(grad)) is None:
            _, edge_columns = column_tables(shape_of(grad), shape_of(edge))
        _select_backward(
            fields(csr, num_cols),
            [grad.contiguous()],
            weight,
            [argument],
            grad_x,
            None,
            None,
            op=op,
            weight_columns=edge_columns,
        )
    return grad_x


def message_select_backward_edge(
    csr: Csr, grad: Tensor, x: Tensor, edge: Tensor, argument: Tensor, op: str
) -> Tensor:  # like edge
    """Gradient of the edge operand of a max or min."""
    shape = shape_of(grad)
    alone = shape_of(edge) == shape
    # An edge wins an element of its row once: what no other column shares needs no wide sum.
    dtype = grad.dtype if alone else accumulate_dtype(grad.dtype)
    grad_edge = torch.empty(edge.shape, dtype=dtype)
    if grad.numel() == 0 or grad_edge.numel() == 0:
        return grad_edge.zero_().to(edge.dtype)
    x_columns = edge_columns = None
    if shape_of(x) != shape or groups(shape_of(edge), shape) is None:
        x_columns, edge_columns = column_tables(shape_of(x), shape_of(edge))
    _select_backward(
        fields(csr, x.shape[0]),
        [grad.contiguous()],
        edge if op == "div" else None,
        [argument],
        None,
        grad_edge,
        x,
        op=op,
        x_columns=x_columns,
        weight_columns=edge_columns,
    )
    return grad_edge.to(edge.dtype)


def segment_select_backward(
    indptr: Tensor, grad: Tensor, argument: Tensor, num_edges: int
) -> Tensor:
    """Gradient [E, ...] of the x of a segment max or min."""
    grad_x = grad.new_empty((num_edges, *grad.shape[1:]))
    if grad.numel() == 0:
        return grad_x.zero_()
    if grad_x.numel():
        csr_fields = segment_fields(indptr, num_edges)
        _select_backward(csr_fields, [grad.contiguous()], None, [argument], grad_x, None, None)
    return grad_x
