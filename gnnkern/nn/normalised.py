"""What layers share that walk the symmetrically normalised graph."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnkern.graph import Graph
from gnnkern.nn.inputs import as_graph, sparse_values
from gnnkern.nn.layer import Layer


class NormalisedLayer(Layer):
    """A layer on a graph with the weights `w_uv / sqrt(d_u d_v)`, which it may keep.

    Args:
        cached: Keep the first call's normalised graph and use it for ever after.
        add_self_loops: Whether a node that has no loop gets one.
        normalize: Whether to do so, and to scale each edge; otherwise weights are as given.
        improved: Whether added loops weigh 2 instead of 1.
    """

    def __init__(
        self, *, cached: bool, add_self_loops: bool, normalize: bool, improved: bool = False
    ) -> None:
        super().__init__()
        self.cached = cached
        self.add_self_loops = add_self_loops
        self.normalize = normalize
        self.improved = improved
        self._cached: tuple[Graph, Tensor | None] | None = None

    def reset_parameters(self) -> None:
        """Draw all weights again and forget the cached graph."""
        super().reset_parameters()
        self._cached = None

    def weighted_graph(
        self,
        x: Tensor,  # [N, F]
        edge_index: Graph | Tensor,
        edge_weight: Tensor | None,  # [E]
    ) -> tuple[Graph, Tensor | None]:  # the graph, [E']
        """Return the graph to walk and the weights of its edges; None: 1."""
        if self._cached is not None:
            return self._cached
        graph = as_graph(edge_index, x.shape[0], x.shape[0])
        if edge_weight is None:
            edge_weight = sparse_values(edge_index)
        if self.normalize:
            graph, edge_weight = self._normalised(graph, edge_weight, x)
        if self.cached:
            self._cached = graph, edge_weight
        return graph, edge_weight

    def _normalised(
        self, graph: Graph, edge_weight: Tensor | None, x: Tensor
    ) -> tuple[Graph, Tensor]:
        if self.add_self_loops:
            if edge_weight is None and self.improved:
                edge_weight = torch.ones(graph.num_edges, dtype=x.dtype, device=x.device)
            if edge_weight is None:
                graph = graph.add_self_loops()
            else:
                fill_value = 2.0 if self.improved else 1.0
                graph, edge_weight = graph.add_self_loops(edge_weight, fill_value)
        return graph, graph.gcn_weights(edge_weight, dtype=x.dtype)
