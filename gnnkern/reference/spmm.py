"""Each node reduces the weighted rows of its in-neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ._precision import widen
from .scatter_reduce import scatter_reduce_reference

if TYPE_CHECKING:
    from ..graph import Graph


def spmm_reference(
    graph: Graph,
    x: Tensor | None,  # [num_src, F], [num_src, H, D] or [num_src, ...]
    weight: Tensor | None,  # [E], [E, H] or [E, ...]
    reduce: str,
    op: str = "mul",
) -> Tensor:  # [num_dst, ...]
    """Return row v = the reduction of `x[u] op weight[e]` over the edges e = (u, v).

    `op` is one of `mul`, `add`, `sub`, `div`; an operand that is None leaves the other. `reduce` is
    one of `sum`, `mean`, `max`, `min`; `mean` divides by the number of edges, whatever their
    weights. A node without in-edges gives 0.
    """
    source, destination = graph.edge_index
    if x is None:
        assert weight is not None
        message, dtype = widen(weight), weight.dtype
    else:
        message, dtype = widen(x).index_select(0, source), x.dtype  # [E, ...]
        if weight is not None:
            trailing = (1,) * (x.dim() - weight.dim())
            message = combine(message, widen(weight).reshape(*weight.shape, *trailing), op)
    return scatter_reduce_reference(message, destination, graph.num_dst, reduce).to(dtype)


def combine(x: Tensor, y: Tensor, op: str) -> Tensor:
    """Return `x op y`, broadcast."""
    if op == "add":
        return x + y
    if op == "sub":
        return x - y
    if op == "mul":
        return x * y
    if op == "div":
        return x / y
    raise ValueError(f"op must be mul, add, sub or div, got {op}")
