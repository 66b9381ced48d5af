"""Sums over messages and products on edges, of operands of any shape, each other's gradients.

    message_sum    out[v] = sum over the edges e into v of  x[u] op edge[e]      to nodes
    edge_product   out[e] = lhs op rhs, each at an end of e or on it             to edges
    edge_sum       out[v] = sum over the edges e into v of  values[e]            to nodes
    edge_copy      out[e] = x[v]                                                 to edges

Operands have as many dimensions as one another and broadcast behind their rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gnnkern._native import Csr
from gnnkern.ops._linear import divide_by_count, sum_rows
from gnnkern.ops._message_ops import message_sum_op, on_edges_op
from gnnkern.ops._operator import is_tracked, run
from gnnkern.ops._transforms import Linear, batch_first, transformed, transforms_active

__all__ = ["by_edge", "edge_copy", "edge_product", "edge_sum", "fit", "message_sum"]


def fit(x: Tensor, shape: Sequence[int]) -> Tensor:  # [rows, *shape]
    """What broadcasting `shape` to that of x does to gradients: sums, and repeats."""
    sizes = zip(x.shape[1:], shape, strict=True)
    summed = [i + 1 for i, (have, want) in enumerate(sizes) if want == 1 and have != 1]
    if summed:
        x = x.sum(summed, keepdim=True)
    return x if x.shape[1:] == torch.Size(shape) else x.expand(-1, *shape)


def by_edge(csr: Csr) -> Csr:
    """The matrix whose rows gather rows of an edge tensor, in the caller's order."""
    indices = csr.edge_id
    if indices is None:
        count, like = csr.indices.shape[0], csr.indices
        indices = torch.arange(count, dtype=like.dtype, device=like.device)
    return csr._replace(indices=indices)


@dataclass(frozen=True, eq=False)
class _OnGraph(Linear):
    fwd: Csr
    rev: Csr
    options: tuple[Any, ...]

    def __call__(self, *tensors: Tensor | None) -> Tensor:
        return _run(type(self), self.fwd, self.rev, self.options, *tensors)


class _Ordinary(torch.autograd.Function):
    """An op on a graph where nothing but backward derivatives is asked for."""

    @staticmethod
    def forward(
        ctx: Any,
        kind: type[_OnGraph],
        fwd: Csr,
        rev: Csr,
        options: tuple[Any, ...],
        *tensors: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(*fwd, *rev, *tensors)
        ctx.kind = kind
        ctx.options = options
        return kind(fwd, rev, options).value(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        arrays = ctx.saved_tensors
        op = ctx.kind(Csr(*arrays[:4]), Csr(*arrays[4:8]), ctx.options)
        grads = op.gradients(grad, ctx.needs_input_grad[4:], *arrays[8:])
        return None, None, None, None, *grads


def _run(
    kind: type[_OnGraph], fwd: Csr, rev: Csr, options: tuple[Any, ...], *tensors: Tensor | None
) -> Tensor:
    if not is_tracked(*tensors):
        return kind(fwd, rev, options).value(*tensors)
    if transforms_active():
        return transformed(kind(fwd, rev, options), *tensors)
    out: Tensor = _Ordinary.apply(kind, fwd, rev, options, *tensors)
    return out


def _both(tensors: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
    lhs, rhs = tensors
    assert lhs is not None and rhs is not None
    return lhs, rhs


def _divided_by_square(x: Tensor, divisor: Tensor) -> Tensor:
    """-x / divisor^2, in the memory of x where nobody looks back at it."""
    if is_tracked(x, divisor) or not x.is_contiguous():
        return -x / (divisor * divisor)
    return x.div_(divisor).div_(divisor).neg_()


# -- edges to nodes and back -----------------------------------------------------------------------


class _EdgeSum(_OnGraph):
    """The gradient of a sum of edges is that of the node, copied to each of them."""

    def value(self, *tensors: Tensor | None) -> Tensor:
        reduce, backend = self.options
        csr = by_edge(self.fwd)
        out: Tensor = run("spmm", *csr, *tensors, None, reduce, backend)
        return out

    def gradients(
        self, grad: Tensor, needs: Sequence[bool], *tensors: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        reduce, backend = self.options
        if reduce == "mean":
            grad = divide_by_count(grad, self.fwd.indptr)
        return (edge_copy(self.fwd, self.rev, grad, backend),)

    def batched(
        self, size: int, tensors: Sequence[Tensor | None], dims: Sequence[int | None]
    ) -> tuple[Tensor, int]:
        """A batch widens the rows."""
        (x,) = tensors
        assert x is not None
        return self(batch_first(x, dims[0], size)), 1


def edge_sum(fwd: Csr, rev: Csr, values: Tensor, reduce: str, backend: str) -> Tensor:
    """Differentiable sum or mean of an edge tensor [E, ...] over the edges of each row."""
    return _run(_EdgeSum, fwd, rev, (reduce, backend), values)


class _EdgeCopy(_OnGraph):
    """The gradient of a copy to edges is their sum."""

    def value(self, *tensors: Tensor | None) -> Tensor:
        (x,) = tensors
        assert x is not None
        (backend,) = self.options
        out: Tensor = on_edges_op(
            *self.fwd, x, None, "copy", "dst", "dst", list(x.shape[1:]), backend
        )
        return out

    def gradients(
        self, grad: Tensor, needs: Sequence[bool], *tensors: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        return (edge_sum(self.fwd, self.rev, grad, "sum", *self.options),)

    def batched(
        self, size: int, tensors: Sequence[Tensor | None], dims: Sequence[int | None]
    ) -> tuple[Tensor, int]:
        """A batch widens the rows."""
        (x,) = tensors
        assert x is not None
        return self(batch_first(x, dims[0], size)), 1


def edge_copy(fwd: Csr, rev: Csr, x: Tensor, backend: str) -> Tensor:  # [E, ...]
    """Differentiable copies of a row of x [num_rows, ...] to each of its edges."""
    return _run(_EdgeCopy, fwd, rev, (backend,), x)


# -- sums of messages ------------------------------------------------------------------------------


class _MessageSum(_OnGraph):
    """The gradient of a sum of products is one over the reversed graph; on edges, a product.

    Options: op, reduce, where x lies ("src" or "edge"), backend.
    """

    def value(self, *tensors: Tensor | None) -> Tensor:
        op, reduce, x_at, backend = self.options
        csr = self.fwd if x_at == "src" else by_edge(self.fwd)
        return message_sum_op(*csr, *tensors, op, reduce, backend)  # type: ignore[no-any-return]

    def gradients(
        self, grad: Tensor, needs: Sequence[bool], *tensors: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        op, reduce, x_at, backend = self.options
        x, edge = _both(tensors)
        x_shape, edge_shape = x.shape[1:], edge.shape[1:]
        fwd, rev = self.fwd, self.rev
        if reduce == "mean":
            grad = divide_by_count(grad, fwd.indptr)
        grad_x = grad_edge = None
        if op in ("add", "sub"):
            if needs[0]:
                grad_x = sum_rows(rev, fwd, fit(grad, x_shape), None, backend)
            if needs[1]:
                part = fit(grad, edge_shape)
                grad_edge = edge_copy(fwd, rev, -part if op == "sub" else part, backend)
            return grad_x, grad_edge
        if needs[0] and x_at == "src":
            grad_x = fit(message_sum(rev, fwd, grad, edge, op, "sum", backend), x_shape)
        elif needs[0]:
            ends = ("dst", "edge")
            grad_x = edge_product(fwd, rev, grad, edge, op, ends, x_shape, backend)
        if needs[1]:
            ends = ("dst", x_at)
            grad_edge = edge_product(fwd, rev, grad, x, "mul", ends, edge_shape, backend)
            if op == "div":
                grad_edge = _divided_by_square(grad_edge, edge)
        return grad_x, grad_edge

    def batched(
        self, size: int, tensors: Sequence[Tensor | None], dims: Sequence[int | None]
    ) -> tuple[Tensor, int]:
        """A batch of x alone goes behind the columns, where a value per edge meets all of it."""
        x, edge = _both(tensors)
        if dims[1] is None:
            assert dims[0] is not None
            out = self(x.movedim(dims[0], -1), edge.unsqueeze(-1))
            return out, out.dim() - 1
        x = x.unsqueeze(1) if dims[0] is None else batch_first(x, dims[0], size)
        return self(x, batch_first(edge, dims[1], size)), 1


def message_sum(
    fwd: Csr,
    rev: Csr,
    x: Tensor,  # [num_src, ...], or [E, ...] where x_at is "edge"
    edge: Tensor,  # [E, ...]
    op: str,
    reduce: str,
    backend: str,
    x_at: str = "src",
) -> Tensor:  # [num_rows, ...]
    """Differentiable sum or mean of `x op edge` over the edges of each row."""
    if op != "mul" and transforms_active():
        if op == "div":
            # Not linear in the divisor, but in its reciprocal, which torch differentiates.
            op, edge = "mul", edge.reciprocal()
        else:
            left = sum_rows(fwd, rev, x, None, backend, reduce)
            right = edge_sum(fwd, rev, edge, reduce, backend)
            return left + right if op == "add" else left - right
    return _run(_MessageSum, fwd, rev, (op, reduce, x_at, backend), x, edge)


# -- products on edges -----------------------------------------------------------------------------


class _EdgeProduct(_OnGraph):
    """The gradient of a product is, at a node, a sum of messages; on an edge, a product.

    Options: op, where lhs and rhs lie, the shape of a result (where it is smaller than a product,
    the product is summed), backend.
    """

    def value(self, *tensors: Tensor | None) -> Tensor:
        op, ends, shape, backend = self.options
        lhs, rhs = _both(tensors)
        if ends == ("dst", "src") and lhs.shape[1:] == rhs.shape[1:] == torch.Size(shape):
            out: Tensor = run("sddmm", *self.fwd, lhs, rhs, op, backend)
            return out
        out = on_edges_op(*self.fwd, lhs, rhs, op, *ends, list(shape), backend)
        return out

    def gradients(
        self, grad: Tensor, needs: Sequence[bool], *tensors: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        op, (lhs_at, rhs_at), _, _ = self.options
        lhs, rhs = _both(tensors)
        grad_lhs = grad_rhs = None
        if op in ("add", "sub"):
            if needs[0]:
                grad_lhs = self._sum_towards(lhs_at, grad, lhs)
            if needs[1]:
                grad_rhs = self._sum_towards(rhs_at, grad, rhs)
                grad_rhs = -grad_rhs if op == "sub" else grad_rhs
            return grad_lhs, grad_rhs
        if needs[0]:
            if op == "div" and rhs_at != "edge":
                grad_lhs = self._towards(lhs_at, grad, rhs.reciprocal(), rhs_at, "mul", lhs)
            else:
                grad_lhs = self._towards(lhs_at, grad, rhs, rhs_at, op, lhs)
        if needs[1]:
            grad_rhs = self._towards(rhs_at, grad, lhs, lhs_at, "mul", rhs)
            if op == "div":
                grad_rhs = _divided_by_square(grad_rhs, rhs)
        return grad_lhs, grad_rhs

    def _sum_towards(self, end: str, grad: Tensor, like: Tensor) -> Tensor:
        """The gradients of edges, summed over the edges of a node where `like` lies at one."""
        fwd, rev, backend = self.fwd, self.rev, self.options[-1]
        if end == "dst":
            grad = edge_sum(fwd, rev, grad, "sum", backend)
        elif end == "src":
            grad = edge_sum(rev, fwd, grad, "sum", backend)
        return fit(grad, like.shape[1:])

    def _towards(
        self, end: str, grad: Tensor, other: Tensor, other_at: str, op: str, like: Tensor
    ) -> Tensor:
        """`grad op other` of the edges, likewise, in the shape of `like`."""
        fwd, rev, backend = self.fwd, self.rev, self.options[-1]
        shape = like.shape[1:]
        if end == "edge":
            # Summed on the way where `like` is smaller, repeated behind where it is larger.
            product = torch.broadcast_shapes(grad.shape[1:], other.shape[1:])
            part = [1 if want == 1 else have for have, want in zip(product, shape, strict=True)]
            ends = ("edge", other_at)
            return fit(edge_product(fwd, rev, grad, other, op, ends, part, backend), shape)
        if end == "src":
            fwd, rev = rev, fwd
        if other_at != "edge":
            total = message_sum(fwd, rev, other, grad, op, "sum", backend)
        else:
            total = message_sum(fwd, rev, grad, other, op, "sum", backend, "edge")
        return fit(total, shape)

    def batched(
        self, size: int, tensors: Sequence[Tensor | None], dims: Sequence[int | None]
    ) -> tuple[Tensor, int]:
        """A batch comes in front of the columns; nodes without one are repeated, edges are not."""
        op, ends, shape, backend = self.options
        both = [
            x.unsqueeze(1) if dim is None and end == "edge" else batch_first(x, dim, size)
            for x, dim, end in zip(_both(tensors), dims, ends, strict=True)
        ]
        options = (op, ends, (size, *shape), backend)
        return _run(_EdgeProduct, self.fwd, self.rev, options, *both), 1


def edge_product(
    fwd: Csr,
    rev: Csr,
    lhs: Tensor,  # [rows, ...]
    rhs: Tensor,  # [rows, ...]
    op: str,
    ends: tuple[str, str],
    shape: Sequence[int],
    backend: str,
) -> Tensor:  # [E, *shape]
    """Differentiable `lhs op rhs` on every edge, from two of its ends "dst", "src" and "edge"."""
    if op != "mul" and transforms_active():
        if op == "div":
            op, rhs = "mul", rhs.reciprocal()
        else:
            left, right = (
                spread(fwd, rev, x, end, backend) for x, end in zip((lhs, rhs), ends, strict=True)
            )
            return left + right if op == "add" else left - right
    return _run(_EdgeProduct, fwd, rev, (op, ends, tuple(shape), backend), lhs, rhs)


def spread(fwd: Csr, rev: Csr, x: Tensor, end: str, backend: str) -> Tensor:  # [E, ...]
    """Differentiable copies of what lies at one end of every edge."""
    if end == "edge":
        return x
    return edge_copy(fwd, rev, x, backend) if end == "dst" else edge_copy(rev, fwd, x, backend)
