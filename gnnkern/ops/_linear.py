"""The weighted row sum and the dot product of an edge's ends: each is the other's gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gnnkern._native import Csr, accumulate_dtype
from gnnkern.ops._operator import is_tracked, run
from gnnkern.ops._transforms import Linear, batch_first, transformed, transforms_active

__all__ = ["divide_by_count", "divide_rows", "dot_edges", "sum_rows"]


def divide_by_count(total: Tensor, indptr: Tensor) -> Tensor:
    """Row r of `total` divided by the number of edges of row r, where there are any."""
    count = (indptr[1:] - indptr[:-1]).clamp(min=1)
    return divide_rows(total, count)


def divide_rows(total: Tensor, count: Tensor) -> Tensor:
    """Row r of `total` divided by count[r], which a half may be too narrow to hold."""
    wide = count.to(accumulate_dtype(total.dtype)).view(-1, *[1] * (total.dim() - 1))
    return (total / wide).to(total.dtype)


# -- the weighted row sum --------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _RowSum(Linear):
    """The gradient of a row sum is the row sum over the reversed graph; of a weight, a dot."""

    fwd: Csr
    rev: Csr
    backend: str
    reduce: str

    def __call__(self, *tensors: Tensor | None) -> Tensor:
        x, weight = tensors
        assert x is not None
        return sum_rows(self.fwd, self.rev, x, weight, self.backend, self.reduce)

    def value(self, *tensors: Tensor | None) -> Tensor:
        out: Tensor = run("spmm", *self.fwd, *tensors, self.reduce, self.backend)
        return out

    def gradients(
        self, grad: Tensor, needs: Sequence[bool], *tensors: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, weight = tensors
        if self.reduce == "mean":
            grad = divide_by_count(grad, self.fwd.indptr)
        grad_x = grad_weight = None
        if needs[0]:
            grad_x = sum_rows(self.rev, self.fwd, grad, weight, self.backend)
        if needs[1]:
            assert x is not None and weight is not None
            if weight.dim() == 1:
                grad, x = grad.flatten(1), x.flatten(1)
            grad_weight = dot_edges(self.fwd, self.rev, grad, x, self.backend)
        return grad_x, grad_weight

    def batched(
        self, size: int, tensors: Sequence[Tensor | None], dims: Sequence[int | None]
    ) -> tuple[Tensor, int]:
        """A batch widens the rows; with weights of its own, each of its elements is a head."""
        x, weight = tensors
        assert x is not None
        if weight is not None and dims[1] is not None:
            x = batch_first(x, dims[0], size)  # [num_src, B, ...]
            weight = batch_first(weight, dims[1], size)  # [E, B] or [E, B, H]
            rows = x.flatten(2) if weight.dim() == 2 else x.flatten(1, 2)
            out = self(rows, weight.flatten(1))
            return out.reshape(out.shape[0], *x.shape[1:]), 1
        assert dims[0] is not None
        if weight is None or weight.dim() == 1:
            x = batch_first(x, dims[0], size)
            out = self(x.flatten(1), weight)
            return out.reshape(out.shape[0], *x.shape[1:]), 1
        x = x.movedim(dims[0], -1)  # [num_src, H, D, B]
        out = self(x.flatten(2), weight)
        return out.reshape(out.shape[0], *x.shape[1:]), 3


class _SumRows(torch.autograd.Function):
    """`_RowSum` where nothing but backward derivatives is asked for."""

    @staticmethod
    def forward(
        ctx: Any, fwd: Csr, rev: Csr, x: Tensor, weight: Tensor | None, backend: str, reduce: str
    ) -> Tensor:
        # The rows are read again for the gradient of a weight alone.
        ctx.save_for_backward(*fwd, *rev, x if ctx.needs_input_grad[3] else None, weight)
        ctx.backend = backend
        ctx.reduce = reduce
        out: Tensor = run("spmm", *fwd, x, weight, reduce, backend)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        *arrays, x, weight = ctx.saved_tensors
        op = _RowSum(Csr(*arrays[:4]), Csr(*arrays[4:]), ctx.backend, ctx.reduce)
        grads = op.gradients(grad, ctx.needs_input_grad[2:4], x, weight)
        return None, None, *grads, None, None


def sum_rows(
    fwd: Csr,
    rev: Csr,
    x: Tensor,  # [num_src, F] or [num_src, H, D]
    weight: Tensor | None,  # [E] or [E, H]
    backend: str,
    reduce: str = "sum",
) -> Tensor:
    """Differentiable weighted sum (or mean) of the rows at the other ends of a node's edges."""
    if is_tracked(x, weight):
        if transforms_active():
            return transformed(_RowSum(fwd, rev, backend, reduce), x, weight)
        out: Tensor = _SumRows.apply(fwd, rev, x, weight, backend, reduce)
        return out
    out = run("spmm", *fwd, x, weight, reduce, backend)
    return out


# -- the dot product of an edge's ends -------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _EdgeDot(Linear):
    """The gradient of a dot product per edge is, at either end, a row sum weighted by it."""

    fwd: Csr
    rev: Csr
    backend: str

    def __call__(self, *tensors: Tensor | None) -> Tensor:
        x_dst, x_src = tensors
        assert x_dst is not None and x_src is not None
        return dot_edges(self.fwd, self.rev, x_dst, x_src, self.backend)

    def value(self, *tensors: Tensor | None) -> Tensor:
        out: Tensor = run("sddmm", *self.fwd, *tensors, "dot", self.backend)
        return out

    def gradients(
        self, grad: Tensor, needs: Sequence[bool], *tensors: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x_dst, x_src = tensors
        assert x_dst is not None and x_src is not None
        grad_dst = grad_src = None
        if needs[0]:
            grad_dst = sum_rows(self.fwd, self.rev, x_src, grad, self.backend)
        if needs[1]:
            grad_src = sum_rows(self.rev, self.fwd, x_dst, grad, self.backend)
        return grad_dst, grad_src

    def batched(
        self, size: int, tensors: Sequence[Tensor | None], dims: Sequence[int | None]
    ) -> tuple[Tensor, int]:
        """Every element of a batch is a head."""
        x_dst, x_src = (
            batch_first(x, dim, size)  # [rows, B, F] or [rows, B, H, D]
            for x, dim in zip(tensors, dims, strict=True)
            if x is not None
        )
        out = self(x_dst.flatten(1, -2), x_src.flatten(1, -2))  # [E, B] or [E, B * H]
        return out.reshape(out.shape[0], *x_dst.shape[1:-1]), 1


class _DotEdges(torch.autograd.Function):
    """`_EdgeDot` where nothing but backward derivatives is asked for."""

    @staticmethod
    def forward(ctx: Any, fwd: Csr, rev: Csr, x_dst: Tensor, x_src: Tensor, backend: str) -> Tensor:
        ctx.save_for_backward(*fwd, *rev, x_dst, x_src)
        ctx.backend = backend
        out: Tensor = run("sddmm", *fwd, x_dst, x_src, "dot", backend)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        *arrays, x_dst, x_src = ctx.saved_tensors
        op = _EdgeDot(Csr(*arrays[:4]), Csr(*arrays[4:]), ctx.backend)
        return None, None, *op.gradients(grad, ctx.needs_input_grad[2:4], x_dst, x_src), None


def dot_edges(
    fwd: Csr,
    rev: Csr,
    x_dst: Tensor,  # [num_dst, F] or [num_dst, H, D]
    x_src: Tensor,  # [num_src, F] or [num_src, H, D]
    backend: str,
) -> Tensor:  # [E] or [E, H]
    """Differentiable dot product, per head, of the two ends of every edge."""
    if is_tracked(x_dst, x_src):
        if transforms_active():
            return transformed(_EdgeDot(fwd, rev, backend), x_dst, x_src)
        out: Tensor = _DotEdges.apply(fwd, rev, x_dst, x_src, backend)
        return out
    out = run("sddmm", *fwd, x_dst, x_src, "dot", backend)
    return out
