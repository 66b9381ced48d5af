"""Gradients of max and min: what a row won receives the row's gradient.

Where rows of x are shared by edges, each of them asks over the reversed graph which rows its edges
have won: arguments are read for all edges, gradients for winners alone, and nothing is added in an
order that could change.
"""

from __future__ import annotations

import math
from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from gnnkern._native import Csr, accumulate_dtype
from gnnkern._triton.broadcasting import groups, shape_of, summed_columns
from gnnkern._triton.launch import Walk, run, segments_walk, walk_of
from gnnkern._triton.row_reduce import Messages, Winners, edge_messages, reduce_rows
from gnnkern._triton.sddmm import Operand, on_edges

__all__ = [
    "segment_select_backward",
    "select_backward_edge",
    "select_backward_weight",
    "select_backward_x",
    "sorted_positions",
]

# Edges to a program.
_BLOCK_E = 1024


@triton.jit(do_not_specialize=["num_edges"])
@no_type_check
def _positions_kernel(
    position_ptr,  # [E]
    edge_id_ptr,  # [E]
    num_edges,
    BLOCK_E: tl.constexpr,
):
    """The inverse of a permutation."""
    position = tl.program_id(0).to(tl.int64) * BLOCK_E + tl.arange(0, BLOCK_E)
    in_edges = position < num_edges
    edge = tl.load(edge_id_ptr + position, mask=in_edges, other=0).to(tl.int64)
    tl.store(position_ptr + edge, position.to(position_ptr.dtype.element_ty), mask=in_edges)


def sorted_positions(csr: Csr) -> Tensor | None:
    """[E] the sorted position of each of the caller's edges, or None where they are the same."""
    if csr.edge_id is None:
        return None
    positions = torch.empty_like(csr.edge_id)
    num_edges = positions.shape[0]
    grid = (-(-num_edges // _BLOCK_E),)
    edge_id, device = csr.edge_id, positions.device
    run(_positions_kernel, grid, device, positions, edge_id, num_edges, BLOCK_E=_BLOCK_E)
    return positions


def select_backward_x(
    csr: Csr,
    rev: Csr | None,
    grad: Tensor,  # [num_rows, ...]
    edge: Tensor | None,  # [E, ...], or [E], [E, H]
    argument: Tensor,  # [num_rows, ...]
    num_cols: int,
    op: str = "mul",
) -> Tensor:  # [num_cols, ...]
    """Gradient of what the columns of the matrix hold, before any column of a message is summed.

    Without a reverse every edge has a column of the matrix to itself, in the caller's order.
    """
    shape = shape_of(grad)
    if grad.numel() == 0:
        return grad.new_zeros((num_cols, *shape))
    if rev is None:
        return _copy_to_winners(walk_of(csr), grad, argument)
    messages = Messages()
    if edge is not None and op in ("mul", "div"):
        if edge.dim() != grad.dim():
            edge = edge.reshape(*edge.shape, *[1] * (grad.dim() - edge.dim()))
        messages = edge_messages(edge, shape, shape, op)
    winners = Winners(argument.contiguous(), csr.indptr, sorted_positions(csr))
    return reduce_rows(walk_of(rev), grad, shape, messages, "sum", None, winners)[0]


def _copy_to_winners(walk: Walk, grad: Tensor, argument: Tensor) -> Tensor:  # [E, ...]
    out = grad.new_empty((walk.num_edges, *grad.shape[1:]))
    if out.numel() == 0:
        return out
    lhs, rhs = Operand(grad, "dst"), Operand(None, "dst")
    return on_edges(walk, lhs, rhs, "copy", out, 0, argument.contiguous())


def segment_select_backward(
    indptr: Tensor, grad: Tensor, argument: Tensor, num_edges: int
) -> Tensor:
    """Gradient [E, ...] of the x of a segment max or min."""
    return _copy_to_winners(segments_walk(indptr, num_edges), grad, argument)


def select_backward_weight(
    csr: Csr, grad: Tensor, weight: Tensor, argument: Tensor, x: Tensor
) -> Tensor:
    """Gradient of the weight, [E] or [E, H]."""
    return select_backward_edge(csr, grad, x, weight, argument, "mul")


def select_backward_edge(
    csr: Csr,
    grad: Tensor,  # [num_rows, ...]
    x: Tensor,  # [num_cols, ...]
    edge: Tensor,  # [E, ...], or [E], [E, H]
    argument: Tensor,  # [num_rows, ...]
    op: str = "mul",
) -> Tensor:  # like edge
    """Gradient of the edge operand of a max or min: only where an edge has won it reads x."""
    out = edge.new_empty(edge.shape, dtype=accumulate_dtype(edge.dtype))
    if grad.numel() == 0 or out.numel() == 0:
        return out.zero_().to(edge.dtype)
    message = shape_of(grad)
    out_shape = (*shape_of(edge), *[1] * (grad.dim() - edge.dim()))
    group = math.prod(message) // math.prod(out_shape)
    rhs = None if op in ("add", "sub") else x
    tables: list[Tensor | None] = [None, None]
    if rhs is not None and shape_of(x) != message or groups(out_shape, message) is None:
        shapes = (message, message if rhs is None else shape_of(x))
        tables = [*summed_columns(shapes, out_shape, message, grad.device)]
    on_edges(
        walk_of(csr),
        Operand(grad, "dst", tables[0]),
        Operand(rhs, "src", tables[1]),
        "mul",
        out,
        group,
        argument.contiguous(),
    )
    if op == "sub":
        out = out.neg_()
    elif op == "div":
        # An edge that won nothing gets 0 even where its divisor is 0.
        divisor = edge.to(out.dtype)
        out = torch.where(out == 0, 0, -out / (divisor * divisor))
    return out.to(edge.dtype)
