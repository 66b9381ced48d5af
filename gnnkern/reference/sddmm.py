"""Each edge combines the rows of its two ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ._precision import widen

if TYPE_CHECKING:
    from ..graph import Graph


def sddmm_reference(
    graph: Graph,
    x_dst: Tensor,  # [num_dst, F] or [num_dst, H, D]
    x_src: Tensor,  # [num_src, F] or [num_src, H, D]
    op: str,
) -> Tensor:  # dot: [E] or [E, H]; others: [E, F] or [E, H, D]
    """Return `x_dst[v] op x_src[u]` for every edge (u, v).

    `op` is one of `dot` (summed over the last dimension), `add`, `sub`, `mul`, `div`.
    """
    source, destination = graph.edge_index
    left = widen(x_dst).index_select(0, destination)
    right = widen(x_src).index_select(0, source)
    if op == "dot":
        out = (left * right).sum(-1)
    elif op == "add":
        out = left + right
    elif op == "sub":
        out = left - right
    elif op == "mul":
        out = left * right
    elif op == "div":
        out = left / right
    else:
        raise ValueError(f"sddmm: op must be dot, add, sub, mul or div, got {op}")
    return out.to(x_dst.dtype)
