"""Each node reduces the rows of its in-neighbours in several ways at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ._precision import widen
from .scatter_reduce import scatter_reduce_reference

if TYPE_CHECKING:
    from ..graph import Graph


def multi_reduce_reference(
    graph: Graph,
    x: Tensor,  # [num_src, F] or [num_src, H, D]
    reduces: Sequence[str],
) -> Tensor:  # [num_dst, R, F] or [num_dst, R, H, D]
    """Return [v, r] = reduction `reduces[r]` of the rows `x[u]` over the edges (u, v).

    Each is one of `sum`, `mean`, `min`, `max`, `var`, `std`. The variance is that of the
    population: the mean of the squared distances from the mean. A node without in-edges gives 0.
    """
    source, destination = graph.edge_index
    message = widen(x).index_select(0, source)  # [E, F] or [E, H, D]

    def reduced(values: Tensor, reduce: str) -> Tensor:  # [num_dst, F] or [num_dst, H, D]
        return scatter_reduce_reference(values, destination, graph.num_dst, reduce)

    def reduction(reduce: str) -> Tensor:
        if reduce not in ("var", "std"):
            return reduced(message, reduce)
        distance = message - reduced(message, "mean").index_select(0, destination)
        variance = reduced(distance.square(), "mean")
        return variance if reduce == "var" else _square_root(variance)

    return torch.stack([reduction(reduce) for reduce in reduces], 1).to(x.dtype)


def _square_root(variance: Tensor) -> Tensor:
    """The square root, with a gradient of 0 where it is 0."""
    nothing = variance == 0
    return variance.masked_fill(nothing, 1).sqrt().masked_fill(nothing, 0)
