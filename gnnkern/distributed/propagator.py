"""`Propagator`: the matrix S of propagation over a graph, normalised, as a map of node features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gnnkern.distributed.graph import PartitionedGraph
from gnnkern.graph import Graph
from gnnkern.ops._checks import check_option
from gnnkern.ops.spmm import spmm

__all__ = ["NORMS", "Propagator", "check_square"]

# "row": every row of S sums to 1 (the mean over in-neighbours); "sym": 1 / sqrt(d_u d_v);
# "none": the weights as they are.
NORMS = ("row", "sym", "none")


def check_square(who: str, graph: object, weight: object) -> None:
    """Raise unless a graph has as many sources as destinations, and the weight a value per edge."""
    if not isinstance(graph, Graph):
        raise TypeError(
            f"{who}: graph must be a gnnkern.Graph or a PartitionedGraph, got "
            f"{type(graph).__name__}"
        )
    if graph.num_src != graph.num_dst:
        raise ValueError(
            f"{who}: graph needs num_src == num_dst, got {graph.num_src} and {graph.num_dst}"
        )
    if weight is None:
        return
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        got = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
        raise TypeError(f"{who}: weight must be a tensor of floats, got {got}")
    if tuple(weight.shape) != (graph.num_edges,):
        raise ValueError(
            f"{who}: weight must have shape [E={graph.num_edges}], got {list(weight.shape)}"
        )


class Propagator:
    """S = L W R: weighted edges W between diagonal scales L and R.

    With d the sum of the weights into a node, "row" is L = 1/d, R = 1 and "sym" is
    L = R = 1/sqrt(d). A node without edges has an empty row: S x is 0 there.

    Calls are differentiable in x and in the weight, also through d.

    Attributes:
        graph: A `Graph` or a `PartitionedGraph`.
        weight: [E] or None, where all are 1.
        left: [n] L.
        right: [n] R.
    """

    def __init__(
        self,
        graph: Graph,
        weight: Tensor | None = None,  # [E]
        norm: str = "row",
        *,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        check_square("Propagator", graph, weight)
        check_option("Propagator", "norm", norm, NORMS)
        self.graph = graph
        self.weight = None if weight is None else weight.to(dtype)
        ones = torch.ones(graph.num_dst, dtype=dtype, device=graph.device)
        if norm == "none":
            self.left = self.right = ones
            return
        if self.weight is None:
            degree = graph.in_degree.to(dtype)
        else:
            degree = spmm(graph, None, self.weight.unsqueeze(1)).squeeze(1)
        power = degree.pow(-1.0 if norm == "row" else -0.5).masked_fill(degree == 0, 0.0)
        self.left = power
        self.right = ones if norm == "row" else power

    def __call__(self, x: Tensor) -> Tensor:  # [n, F] -> [n, F]
        """S x; an exchange where the graph is partitioned."""
        return self.left.unsqueeze(1) * spmm(self.graph, self.right.unsqueeze(1) * x, self.weight)

    def transposed(self, x: Tensor) -> Tensor:  # [n, F] -> [n, F]
        """S^T x, without gradient; an exchange where the graph is partitioned."""
        x = self.left.unsqueeze(1) * x
        graph = self.graph
        if not isinstance(graph, PartitionedGraph):
            return self.right.unsqueeze(1) * spmm(graph.reverse, x, self.weight)
        sums = spmm(columns_graph(graph).reverse, x, self.weight)  # [n + g, F]
        here = sums[: graph.num_dst] + graph.exact.transposed(sums[graph.num_dst :])
        return self.right.unsqueeze(1) * here


def columns_graph(graph: Graph) -> Graph:
    """The edges of this process as an ordinary graph, from columns (owned, then ghosts) to rows."""
    if not isinstance(graph, PartitionedGraph):
        return graph
    cached: Any = graph._cache.get("columns_graph")
    if cached is None:
        columns = graph.num_dst + graph.num_ghosts
        cached = Graph(graph.indptr, graph.indices, graph.edge_id, columns)
        graph._cache["columns_graph"] = cached
    return cached  # type: ignore[no-any-return]
