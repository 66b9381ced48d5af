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
    x: Tensor,  # [num_src, F] or [num_src, H, D]
    weight: Tensor | None,  # [E] or [E, H]
    reduce: str,
) -> Tensor:  # [num_dst, F] or [num_dst, H, D]
    """Return row v = the reduction of `weight[e] * x[u]` over the edges e = (u, v).

    `reduce` is one of `sum`, `mean`, `max`, `min`; `mean` divides by the number of edges, whatever
    their weights. A node without in-edges gives 0.
    """
    source, destination = graph.edge_index
    message = widen(x).index_select(0, source)  # [E, F] or [E, H, D]
    if weight is not None:
        trailing = (1,) * (x.dim() - weight.dim())
        message = message * widen(weight).reshape(*weight.shape, *trailing)
    return scatter_reduce_reference(message, destination, graph.num_dst, reduce).to(x.dtype)
