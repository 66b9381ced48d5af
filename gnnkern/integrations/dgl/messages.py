"""Built-in messages and reductions as ops: a pair is one walk over the edges where there is one.

What lies at the destination is the same for all edges of a node, so that it leaves the reduction:

    sum of u + v = (sum of u) + degree v     max of u - v = (max of u) - v
    sum of u v   = (sum of u) v              max of u v   = (max of u) v, (min of u) v if v < 0

and nothing of size edges x width is made for it either. Only dot products are made, one number per
edge (and head).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gnnkern._native import accumulate_dtype
from gnnkern.graph import Graph
from gnnkern.integrations.dgl.function import Message
from gnnkern.integrations.dgl.ops import align, gsddmm, isolated, reduced

__all__ = ["message_on_edges", "reduce_message"]

Fields = Callable[[str, str], Tensor]  # of an end and a field

_OTHER = {"max": "min", "min": "max", "sum": "sum", "mean": "mean"}


def message_on_edges(g: Graph, message: Message, fields: Fields) -> Tensor:  # [E, ...]
    """The message of every edge."""
    lhs = fields(message.lhs, message.lhs_field)
    if message.rhs is None or message.rhs_field is None:
        return gsddmm(g, "copy_lhs", lhs, None, message.lhs)
    rhs = fields(message.rhs, message.rhs_field)
    return gsddmm(g, message.op, lhs, rhs, message.lhs, message.rhs)


def reduce_message(
    g: Graph, message: Message, reduce: str, fields: Fields
) -> Tensor:  # [num_dst, ...]
    """The reduction of a message over the edges into each node; 0 for a node without edges."""
    if message.op == "dot":
        return reduced(g, "copy_rhs", reduce, None, message_on_edges(g, message, fields))
    lhs = fields(message.lhs, message.lhs_field)
    if message.rhs is None or message.rhs_field is None:
        return _reduce_end(g, message.lhs, reduce, lhs)
    rhs = fields(message.rhs, message.rhs_field)
    ends = (message.lhs, message.rhs)
    if ends == ("u", "e"):
        return reduced(g, message.op, reduce, lhs, rhs)
    if ends == ("e", "u"):
        return _reduce_reversed(g, message.op, reduce, lhs, rhs)
    return _reduce_with_own(g, message.op, reduce, ends, lhs, rhs)


def _reduce_end(g: Graph, end: str, reduce: str, x: Tensor) -> Tensor:
    return reduced(g, "copy_lhs" if end == "u" else "copy_rhs", reduce, x, x)


def _reduce_reversed(g: Graph, op: str, reduce: str, edge: Tensor, x: Tensor) -> Tensor:
    """What an edge has comes first: e - u = -(u - e), and e / u = (1 / u) e."""
    if op == "sub":
        return -reduced(g, "sub", _OTHER[reduce], x, edge)
    if op == "div":
        return reduced(g, "mul", reduce, x.reciprocal(), edge)
    return reduced(g, op, reduce, x, edge)


def _reduce_with_own(
    g: Graph, op: str, reduce: str, ends: tuple[str, str], lhs: Tensor, rhs: Tensor
) -> Tensor:
    """One operand lies at the destination."""
    own_first = ends[0] == "v"
    own, other = (lhs, rhs) if own_first else (rhs, lhs)
    end = ends[1] if own_first else ends[0]
    dtype = torch.promote_types(own.dtype, other.dtype)
    if op in ("add", "sub"):
        # The two terms may cancel: halves are rounded behind their sum.
        own, other = (x.to(accumulate_dtype(x.dtype)) for x in (own, other))
        out = _shift(g, op, reduce, own_first, own, lambda word: _reduce_end(g, end, word, other))
    else:
        if op == "div":
            # v / o = v (1 / o), and o / v is a scale as well.
            own, other = (own, other.reciprocal()) if own_first else (own.reciprocal(), other)
        out = _scale(reduce, own, lambda word: _reduce_end(g, end, word, other))
    return out.masked_fill(isolated(g, out), 0).to(dtype)


def _shift(
    g: Graph, op: str, reduce: str, own_first: bool, own: Tensor, of_other: Callable[[str], Tensor]
) -> Tensor:
    taken_away = op == "sub" and own_first
    # A difference is largest where what is taken away is smallest.
    rows = of_other(_OTHER[reduce] if taken_away else reduce)
    own, rows = align(own, rows)
    if reduce == "sum":
        own = own * g.in_degree.view(-1, *[1] * (own.dim() - 1)).to(own.dtype)
    if op == "add":
        return own + rows
    return own - rows if own_first else rows - own


def _scale(reduce: str, own: Tensor, of_other: Callable[[str], Tensor]) -> Tensor:
    own, rows = align(own, of_other(reduce))
    if reduce in ("sum", "mean"):
        return own * rows
    _, opposite = align(own, of_other(_OTHER[reduce]))
    return torch.where(own < 0, own * opposite, own * rows)
