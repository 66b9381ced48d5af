"""The weighted row sum and the dot product of an edge's ends: each is the other's gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gnnkern._native import Csr, accumulate_dtype
from gnnkern.ops._operator import needs_gradient

__all__ = ["divide_by_count", "divide_rows", "dot_edges", "sum_edges", "sum_rows"]


def divide_by_count(total: Tensor, indptr: Tensor) -> Tensor:
    """Row r of `total` divided by the number of edges of row r, where there are any."""
    count = (indptr[1:] - indptr[:-1]).clamp(min=1)
    return divide_rows(total, count)


def divide_rows(total: Tensor, count: Tensor) -> Tensor:
    """Row r of `total` divided by count[r], which a half may be too narrow to hold."""
    wide = count.to(accumulate_dtype(total.dtype)).view(-1, *[1] * (total.dim() - 1))
    return (total / wide).to(total.dtype)


class _SumRows(torch.autograd.Function):
    """The gradient of a row sum is the row sum over the reversed graph; of a weight, a dot."""

    @staticmethod
    def forward(
        ctx: Any, fwd: Csr, rev: Csr, x: Tensor, weight: Tensor | None, backend: str, reduce: str
    ) -> Tensor:
        ctx.save_for_backward(*fwd, *rev, x, weight)
        ctx.backend = backend
        ctx.reduce = reduce
        out: Tensor = torch.ops.gnnkern.spmm.default(*fwd, x, weight, reduce, backend)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        *arrays, x, weight = ctx.saved_tensors
        fwd, rev = Csr(*arrays[:4]), Csr(*arrays[4:])
        if ctx.reduce == "mean":
            grad = divide_by_count(grad, fwd.indptr)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[2]:
            grad_x = sum_rows(rev, fwd, grad, weight, ctx.backend)
        if ctx.needs_input_grad[3]:
            if weight.dim() == 1:
                grad, x = grad.flatten(1), x.flatten(1)
            grad_weight = dot_edges(fwd, rev, grad, x, ctx.backend)
        return None, None, grad_x, grad_weight, None, None


def sum_rows(
    fwd: Csr,
    rev: Csr,
    x: Tensor,  # [num_src, F] or [num_src, H, D]
    weight: Tensor | None,  # [E] or [E, H]
    backend: str,
    reduce: str = "sum",
) -> Tensor:
    """Differentiable weighted sum (or mean) of the rows at the other ends of a node's edges."""
    if needs_gradient(x, weight):
        out: Tensor = _SumRows.apply(fwd, rev, x, weight, backend, reduce)
        return out
    out = torch.ops.gnnkern.spmm.default(*fwd, x, weight, reduce, backend)
    return out


class _DotEdges(torch.autograd.Function):
    """The gradient of a dot product per edge is, at either end, a row sum weighted by it."""

    @staticmethod
    def forward(ctx: Any, fwd: Csr, rev: Csr, x_dst: Tensor, x_src: Tensor, backend: str) -> Tensor:
        ctx.save_for_backward(*fwd, *rev, x_dst, x_src)
        ctx.backend = backend
        out: Tensor = torch.ops.gnnkern.sddmm.default(*fwd, x_dst, x_src, "dot", backend)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        *arrays, x_dst, x_src = ctx.saved_tensors
        fwd, rev = Csr(*arrays[:4]), Csr(*arrays[4:])
        grad_dst = grad_src = None
        if ctx.needs_input_grad[2]:
            grad_dst = sum_rows(fwd, rev, x_src, grad, ctx.backend)
        if ctx.needs_input_grad[3]:
            grad_src = sum_rows(rev, fwd, x_dst, grad, ctx.backend)
        return None, None, grad_dst, grad_src, None


def dot_edges(
    fwd: Csr,
    rev: Csr,
    x_dst: Tensor,  # [num_dst, F] or [num_dst, H, D]
    x_src: Tensor,  # [num_src, F] or [num_src, H, D]
    backend: str,
) -> Tensor:  # [E] or [E, H]
    """Differentiable dot product, per head, of the two ends of every edge."""
    if needs_gradient(x_dst, x_src):
        out: Tensor = _DotEdges.apply(fwd, rev, x_dst, x_src, backend)
        return out
    out = torch.ops.gnnkern.sddmm.default(*fwd, x_dst, x_src, "dot", backend)
    return out


def sum_edges(
    fwd: Csr,
    rev: Csr,
    values: Tensor,  # [E, ...] caller's order
    num_cols: int,
    backend: str,
) -> Tensor:  # [num_rows, ...]
    """Differentiable sum of an edge tensor over the edges of each row."""
    flat = values.flatten(1)
    if needs_gradient(values):
        # As a weight on rows of ones, the sum inherits every derivative of the row sum.
        ones = flat.new_ones((num_cols, flat.shape[1], 1))
        total = sum_rows(fwd, rev, ones, flat, backend)
    else:
        indices = fwd.edge_id
        if indices is None:
            indices = torch.arange(
                fwd.indices.shape[0], dtype=fwd.indices.dtype, device=fwd.indices.device
            )
        by_edge = Csr(fwd.indptr, indices, None, fwd.plan)
        total = torch.ops.gnnkern.spmm.default(*by_edge, flat, None, "sum", backend)
    return total.reshape(total.shape[0], *values.shape[1:])
