"""What ops ask of the loops over edges that a backend for GPUs has, in the terms of those loops.

A backend brings two of them: `reduce_rows`, in which every row reduces the messages of its edges,
and `on_edges`, in which every edge makes a result of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gnnkern._broadcasting import Shape, columns_of, groups, shape_of, summed_columns
from gnnkern._native import Csr, accumulate_dtype, new_statistics
from gnnkern._walk import Walk

__all__ = [
    "chunk_states",
    "EdgeLoop",
    "Messages",
    "Operand",
    "RowLoop",
    "Selection",
    "Winners",
    "edge_messages",
]

WalkOf = Callable[[Csr], Walk]
SegmentsWalk = Callable[[Tensor, int], Walk]


class Messages(NamedTuple):
    """What x is combined with on the way, by columns of the message."""

    edge: Tensor | None = None  # [E, ...] contiguous
    group: int = 0  # neighbouring columns that share one of the edge's; 0: all
    edge_columns: Tensor | None = None  # [width]
    x_columns: Tensor | None = None  # [width]
    op: str = "mul"
    added: Tensor | None = None  # [E, width] contiguous, added to x first


class Winners(NamedTuple):
    """Which edges of the matrix pass: those that have won a row of another."""

    argument: Tensor  # [num_cols, width]
    indptr: Tensor  # [num_cols + 1] of the matrix whose rows were won
    position: Tensor | None  # [E] of an edge in it, None: its number


class Operand(NamedTuple):
    """One side of an edge's product."""

    x: Tensor | None  # [rows, ...], None: there is but one side
    at: str  # "dst", "src" or "edge"
    columns: Tensor | None = None  # [width] of a message


def edge_messages(edge: Tensor, x_shape: Shape, shape: Shape, op: str) -> Messages:
    """How an edge operand meets the columns of a message."""
    edge_shape = shape_of(edge)
    edge = edge.contiguous()
    count = groups(edge_shape, shape)
    if x_shape != shape or count is None:
        return Messages(
            edge,
            group=1,
            edge_columns=columns_of(edge_shape, shape, edge.device),
            x_columns=columns_of(x_shape, shape, edge.device),
            op=op,
        )
    return Messages(edge, 0 if count == 1 else math.prod(shape) // max(count, 1), op=op)


def chunk_states(
    walk: Walk, width: int, reduce: str, tracks: bool, like: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Memory for the states of a matrix's chunks, as the row loop writes them."""
    if walk.plan is None:
        return None, None
    dtype = accumulate_dtype(like.dtype)
    first = like.new_empty((walk.num_chunks, width), dtype=dtype)
    second = None
    if reduce == "logsumexp":
        second = torch.empty_like(first)
    elif tracks:
        second = like.new_empty(first.shape, dtype=torch.int32)
    return first, second


@dataclass(frozen=True)
class RowLoop:
    """Reductions of rows.

    `reduce_rows(walk, x, shape, messages, reduce, argument, winners=None, **options)` returns the
    reduction over the edges of every row of the messages, of `shape`, and who won. Of logsumexp,
    `argument` is the type of statistics [num_rows, 2, ...]: the shift and the slope. `options` are
    the backend's own, such as tiles that take the place of its rule.
    """

    walk_of: WalkOf
    segments_walk: SegmentsWalk
    reduce_rows: Callable[..., tuple[Tensor, Tensor | None]]

    def row_reduce(
        self,
        csr: Csr,
        x: Tensor,  # [num_cols, ...]
        weight: Tensor | None,  # [E] or [E, H]
        reduce: str,
        argument: torch.dtype | None = None,
        *,
        added: Tensor | None = None,  # [E, ...]
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """out[r] = reduction over the edges of row r of weight * x; with `argument` who won.

        `added` is added to x before the product.
        """
        shape = shape_of(x)
        added = None if added is None else added.contiguous()
        messages = Messages(added=added)
        if weight is not None:
            heads = 1 if weight.dim() == 1 else weight.shape[1]
            group = 0 if heads == 1 else math.prod(shape) // max(heads, 1)
            messages = Messages(weight.contiguous(), group, added=added)
        return self.reduce_rows(self.walk_of(csr), x, shape, messages, reduce, argument, **options)

    def reduce_segments(
        self,
        indptr: Tensor,  # [num_segments + 1]
        x: Tensor,  # [E, ...]
        reduce: str,
        argument: torch.dtype | None = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """The same over consecutive rows of x."""
        walk = self.segments_walk(indptr, x.shape[0])
        return self.reduce_rows(walk, x, shape_of(x), Messages(), reduce, argument, **options)

    def log_sum_exp_rows(
        self, csr: Csr, x: Tensor, differentiable: bool, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """The log of the sum of exponentials over the edges of row r, and statistics if asked."""
        dtype = accumulate_dtype(x.dtype) if differentiable else None
        return _with_statistics(self.row_reduce(csr, x, None, "logsumexp", dtype, **options), x)

    def log_sum_exp_segments(
        self, indptr: Tensor, x: Tensor, differentiable: bool, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """The same over consecutive rows of x."""
        dtype = accumulate_dtype(x.dtype) if differentiable else None
        return _with_statistics(self.reduce_segments(indptr, x, "logsumexp", dtype, **options), x)

    def message_reduce(
        self,
        csr: Csr,
        x: Tensor,  # [num_cols, ...]
        edge: Tensor,  # [E, ...], as many dimensions
        op: str,
        reduce: str,
        argument: torch.dtype | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """out[r] = reduction over the edges e of row r of `x op edge`; with `argument` who won."""
        x_shape = shape_of(x)
        shape = torch.broadcast_shapes(x_shape, shape_of(edge))
        messages = edge_messages(edge, x_shape, shape, op)
        return self.reduce_rows(self.walk_of(csr), x, shape, messages, reduce, argument)

    def sum_edges(self, csr: Csr, x: Tensor) -> Tensor:
        """[num_rows, ...]: row r sums those of x [E, ...] of its edges, in the caller's order."""
        walk = self.walk_of(csr)
        walk = walk._replace(indices=walk.edge_id, edge_id=None)
        return self.reduce_rows(walk, x, shape_of(x), Messages(), "sum", None)[0]


def _with_statistics(result: tuple[Tensor, Tensor | None], x: Tensor) -> tuple[Tensor, Tensor]:
    out, statistics = result
    return out, new_statistics(x, 0, 2) if statistics is None else statistics


@dataclass(frozen=True)
class EdgeLoop:
    """Results of edges.

    `on_edges(walk, lhs, rhs, op, out, group, winner=None, **options)` fills `out` [E, ...]: with
    `group`, every column is a sum over a group of so many.
    """

    walk_of: WalkOf
    segments_walk: SegmentsWalk
    on_edges: Callable[..., Tensor]

    def sddmm_rows(self, csr: Csr, x_dst: Tensor, x_src: Tensor, op: str, **options: Any) -> Tensor:
        """One result per edge, in the caller's order."""
        shape = x_dst.shape[1:] if op != "dot" else x_dst.shape[1:-1]
        out = x_dst.new_empty((csr.indices.shape[0], *shape))
        if x_dst.shape[1:].numel() == 0:
            return out.zero_()
        if out.numel() == 0:
            return out
        group = x_dst.shape[-1] if op == "dot" else 0
        op = "mul" if op == "dot" else op
        lhs, rhs = Operand(x_dst, "dst"), Operand(x_src, "src")
        return self.on_edges(self.walk_of(csr), lhs, rhs, op, out, group, **options)

    def combine_rows(
        self,
        csr: Csr,
        lhs: Tensor,  # [rows, ...]
        rhs: Tensor | None,  # [rows, ...], as many dimensions; None: copies of lhs
        op: str,
        lhs_at: str,
        rhs_at: str,
        out_shape: Sequence[int],
    ) -> Tensor:  # [E, *out_shape]
        """`lhs op rhs` on every edge, summed over dimensions in which `out_shape` is smaller."""
        lhs_shape = shape_of(lhs)
        rhs_shape = lhs_shape if rhs is None else shape_of(rhs)
        message = torch.broadcast_shapes(lhs_shape, rhs_shape)
        out_shape = tuple(out_shape)
        width, out_width = math.prod(message), math.prod(out_shape)
        out = lhs.new_empty((csr.indices.shape[0], *out_shape))
        if out.numel() == 0 or width == 0:
            return out.zero_()
        group = 0 if out_width == width else width // out_width
        tables: list[Tensor | None]
        if group and not (lhs_shape == rhs_shape and groups(out_shape, message) is not None):
            tables = [*summed_columns((lhs_shape, rhs_shape), out_shape, message, lhs.device)]
        else:
            tables = [columns_of(shape, message, lhs.device) for shape in (lhs_shape, rhs_shape)]
        return self.on_edges(
            self.walk_of(csr),
            Operand(lhs, lhs_at, tables[0]),
            Operand(rhs, rhs_at, tables[1]),
            op,
            out,
            group,
        )

    def repeat_rows(self, indptr: Tensor, x: Tensor, num_edges: int, **options: Any) -> Tensor:
        """[E, ...]: row r of x for every position of segment r."""
        out = x.new_empty((num_edges, *x.shape[1:]))
        if out.numel() == 0:
            return out
        lhs, rhs = Operand(x, "dst"), Operand(None, "dst")
        walk = self.segments_walk(indptr, num_edges)
        return self.on_edges(walk, lhs, rhs, "copy", out, 0, **options)


@dataclass(frozen=True)
class Selection:
    """Gradients of max and min: what a row won receives the row's gradient.

    Where rows of x are shared by edges, each of them asks over the reversed graph which rows its
    edges have won: arguments are read for all edges, gradients for winners alone, and nothing is
    added in an order that could change.
    """

    rows: RowLoop
    edges: EdgeLoop
    # The inverse of a permutation [E].
    inverse: Callable[[Tensor], Tensor]

    def sorted_positions(self, csr: Csr) -> Tensor | None:
        """[E] the sorted position of each of the caller's edges; None: they are the same."""
        return None if csr.edge_id is None else self.inverse(csr.edge_id)

    def select_backward_x(
        self,
        csr: Csr,
        rev: Csr | None,
        grad: Tensor,  # [num_rows, ...]
        edge: Tensor | None,  # [E, ...], or [E], [E, H]
        argument: Tensor,  # [num_rows, ...]
        num_cols: int,
        op: str = "mul",
    ) -> Tensor:  # [num_cols, ...]
        """Gradient of what the columns of the matrix hold, before any of a message is summed.

        Without a reverse every edge has a column of the matrix to itself, in the caller's order.
        """
        shape = shape_of(grad)
        if grad.numel() == 0:
            return grad.new_zeros((num_cols, *shape))
        if rev is None:
            return self._copy_to_winners(self.edges.walk_of(csr), grad, argument)
        messages = Messages()
        if edge is not None and op in ("mul", "div"):
            if edge.dim() != grad.dim():
                edge = edge.reshape(*edge.shape, *[1] * (grad.dim() - edge.dim()))
            messages = edge_messages(edge, shape, shape, op)
        winners = Winners(argument.contiguous(), csr.indptr, self.sorted_positions(csr))
        walk = self.rows.walk_of(rev)
        return self.rows.reduce_rows(walk, grad, shape, messages, "sum", None, winners)[0]

    def _copy_to_winners(self, walk: Walk, grad: Tensor, argument: Tensor) -> Tensor:  # [E, ...]
        out = grad.new_empty((walk.num_edges, *grad.shape[1:]))
        if out.numel() == 0:
            return out
        lhs, rhs = Operand(grad, "dst"), Operand(None, "dst")
        return self.edges.on_edges(walk, lhs, rhs, "copy", out, 0, argument.contiguous())

    def segment_select_backward(
        self, indptr: Tensor, grad: Tensor, argument: Tensor, num_edges: int
    ) -> Tensor:
        """Gradient [E, ...] of the x of a segment max or min."""
        walk = self.edges.segments_walk(indptr, num_edges)
        return self._copy_to_winners(walk, grad, argument)

    def select_backward_weight(
        self, csr: Csr, grad: Tensor, weight: Tensor, argument: Tensor, x: Tensor
    ) -> Tensor:
        """Gradient of the weight, [E] or [E, H]."""
        return self.select_backward_edge(csr, grad, x, weight, argument, "mul")

    def select_backward_edge(
        self,
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
        if (rhs is not None and shape_of(x) != message) or groups(out_shape, message) is None:
            shapes = (message, message if rhs is None else shape_of(x))
            tables = [*summed_columns(shapes, out_shape, message, grad.device)]
        self.edges.on_edges(
            self.edges.walk_of(csr),
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
