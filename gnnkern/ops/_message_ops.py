"""The torch operators of messages that have two operands of any shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gnnkern import _native
from gnnkern._cpu.message_reduce import message_reduce
from gnnkern._cpu.sddmm import combine_rows
from gnnkern._cpu.select_backward import message_select_backward_edge, message_select_backward_x
from gnnkern._native import Csr, optional_csr
from gnnkern.ops._device import launchers, row_reduce_of, sddmm_of, select_backward_of
from gnnkern.ops._operator import define

__all__ = [
    "message_select_backward_op",
    "message_select_op",
    "message_sum_op",
    "on_edges_op",
]

_CSR = "Tensor indptr, Tensor indices, Tensor? edge_id, Tensor plan"
_REV = "Tensor? rev_indptr, Tensor? rev_indices, Tensor? rev_edge_id, Tensor? rev_plan"


def _message_reduce_device(backend: str, *arguments: Any) -> tuple[Tensor, Tensor | None]:
    out: tuple[Tensor, Tensor | None] = row_reduce_of(backend).message_reduce(*arguments)
    return out


_LAUNCH = launchers(message_reduce, _message_reduce_device)


def _out_shape(indptr: Tensor, x: Tensor, edge: Tensor) -> tuple[int, ...]:
    return (indptr.shape[0] - 1, *torch.broadcast_shapes(x.shape[1:], edge.shape[1:]))


def _message_sum(
    indptr: Tensor,  # [num_dst + 1]
    indices: Tensor,  # [E]
    edge_id: Tensor | None,  # [E]
    plan: Tensor,
    x: Tensor,  # [num_src, ...]
    edge: Tensor,  # [E, ...], as many dimensions
    op: str,
    reduce: str,
    backend: str,
) -> Tensor:
    return _LAUNCH[backend](Csr(indptr, indices, edge_id, plan), x, edge, op, reduce)[0]


message_sum_op = define(
    "message_reduce",
    f"({_CSR}, Tensor x, Tensor edge, str op, str reduce, str backend) -> Tensor",
    _message_sum,
    lambda indptr, indices, edge_id, plan, x, edge, op, reduce, backend: x.new_empty(
        _out_shape(indptr, x, edge)
    ),
)


def _message_select(
    indptr: Tensor,
    indices: Tensor,
    edge_id: Tensor | None,
    plan: Tensor,
    x: Tensor,
    edge: Tensor,
    op: str,
    reduce: str,
    max_degree: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    csr = Csr(indptr, indices, edge_id, plan)
    dtype = _native.argument_dtype(max_degree)
    out, argument = _LAUNCH[backend](csr, x, edge, op, reduce, dtype)
    assert argument is not None
    return out, argument


def _message_select_fake(
    indptr: Tensor,
    indices: Tensor,
    edge_id: Tensor | None,
    plan: Tensor,
    x: Tensor,
    edge: Tensor,
    op: str,
    reduce: str,
    max_degree: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    shape = _out_shape(indptr, x, edge)
    return x.new_empty(shape), x.new_empty(shape, dtype=_native.argument_dtype(max_degree))


message_select_op = define(
    "message_select",
    f"({_CSR}, Tensor x, Tensor edge, str op, str reduce, int max_degree, str backend)"
    " -> (Tensor, Tensor)",
    _message_select,
    _message_select_fake,
)


def _message_select_backward(
    indptr: Tensor,
    indices: Tensor,
    edge_id: Tensor | None,
    plan: Tensor,
    rev_indptr: Tensor | None,
    rev_indices: Tensor | None,
    rev_edge_id: Tensor | None,
    rev_plan: Tensor | None,
    x: Tensor,
    edge: Tensor,
    argument: Tensor,
    grad: Tensor,
    op: str,
    need_x: bool,
    need_edge: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """The gradients of the message's columns [num_src, ...], and of the edge operand."""
    csr = Csr(indptr, indices, edge_id, plan)
    rev = optional_csr(rev_indptr, rev_indices, rev_edge_id, rev_plan)
    of_x, of_edge = _LAUNCH_BACKWARD[backend]()
    grad = grad.contiguous()
    edge = edge.contiguous()
    grad_x = grad_edge = grad.new_empty(0)
    if need_x:
        grad_x = of_x(csr, rev, grad, edge, argument, x.shape[0], op)
    if need_edge:
        grad_edge = of_edge(csr, grad, x, edge, argument, op)
    return grad_x, grad_edge


def _backward_cpu() -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    def of_x(csr: Csr, rev: Csr | None, *arguments: Any) -> Tensor:
        return message_select_backward_x(csr, *arguments)

    return of_x, message_select_backward_edge


def _backward_device(backend: str) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    kernels = select_backward_of(backend)
    return kernels.select_backward_x, kernels.select_backward_edge


_LAUNCH_BACKWARD = launchers(_backward_cpu, _backward_device)


def _message_select_backward_fake(
    indptr: Tensor,
    indices: Tensor,
    edge_id: Tensor | None,
    plan: Tensor,
    rev_indptr: Tensor | None,
    rev_indices: Tensor | None,
    rev_edge_id: Tensor | None,
    rev_plan: Tensor | None,
    x: Tensor,
    edge: Tensor,
    argument: Tensor,
    grad: Tensor,
    op: str,
    need_x: bool,
    need_edge: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    return (
        x.new_empty((x.shape[0], *grad.shape[1:]) if need_x else (0,)),
        x.new_empty(edge.shape if need_edge else (0,)),
    )


message_select_backward_op = define(
    "message_select_backward",
    f"({_CSR}, {_REV}, Tensor x, Tensor edge, Tensor argument, Tensor grad, str op, bool need_x,"
    " bool need_edge, str backend) -> (Tensor, Tensor)",
    _message_select_backward,
    _message_select_backward_fake,
)


def _on_edges(
    indptr: Tensor,
    indices: Tensor,
    edge_id: Tensor | None,
    plan: Tensor,
    lhs: Tensor,  # [rows, ...]
    rhs: Tensor | None,  # [rows, ...], as many dimensions
    op: str,
    lhs_at: str,
    rhs_at: str,
    out_shape: Sequence[int],
    backend: str,
) -> Tensor:  # [E, *out_shape]
    csr = Csr(indptr, indices, edge_id, plan)
    return _LAUNCH_ON_EDGES[backend](csr, lhs, rhs, op, lhs_at, rhs_at, out_shape)


def _combine_rows_device(backend: str, *arguments: Any) -> Tensor:
    out: Tensor = sddmm_of(backend).combine_rows(*arguments)
    return out


_LAUNCH_ON_EDGES = launchers(combine_rows, _combine_rows_device)


on_edges_op = define(
    "on_edges",
    f"({_CSR}, Tensor lhs, Tensor? rhs, str op, str lhs_at, str rhs_at, SymInt[] out_shape,"
    " str backend) -> Tensor",
    _on_edges,
    lambda indptr, indices, edge_id, plan, lhs, rhs, op, lhs_at, rhs_at, out_shape, backend: (
        lhs.new_empty((indices.shape[0], *out_shape))
    ),
)
