"""Personalised propagation: features diffuse over the graph and are pulled back to their start."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gnnkern.graph import Graph
from gnnkern.nn.normalised import NormalisedLayer
from gnnkern.ops.spmm import spmm


class APPNP(NormalisedLayer):
    """`x <- (1 - alpha) A x + alpha x_0`, K times, where A is the graph's normalised adjacency.

    Constructor and `forward` are those of PyG's layer of the same name; there are no parameters.
    The normalisation is computed once per `Graph` and kept there, and each step is one op.

    Ops: one `spmm` for each of K steps.

    Args:
        K: Number of steps.
        alpha: Share of the first features in every step.
        dropout: Probability of dropping each edge while training, anew in each step: as in PyG,
            an edge that was dropped stays so in later steps.
        cached: Keep the first call's normalised graph and use it for ever after. Only an
            `edge_index` needs this; a `Graph` keeps its own.
        add_self_loops: Whether a node that has no loop gets one of weight 1.
        normalize: Whether to add self loops and to scale each edge by `1 / sqrt(d_u d_v)`.

    Source: Klicpera, Bojchevski and Guennemann, "Predict then propagate: graph neural networks meet
    personalized PageRank", 2019.
    """

    def __init__(
        self,
        K: int,
        alpha: float,
        dropout: float = 0.0,
        cached: bool = False,
        add_self_loops: bool = True,
        normalize: bool = True,
    ) -> None:
        super().__init__(cached=cached, add_self_loops=add_self_loops, normalize=normalize)
        if K < 0:
            raise ValueError(f"APPNP: K must be >= 0, got {K}")
        self.K = K
        self.alpha = alpha
        self.dropout = dropout

    def forward(
        self,
        x: Tensor,  # [N, F]
        edge_index: Graph | Tensor,
        edge_weight: Tensor | None = None,  # [E]
    ) -> Tensor:  # [N, F]
        """Return the propagated features.

        Args:
            x: Node features.
            edge_index: A `Graph`, an integer tensor [2, E], or a torch sparse matrix [N, N] whose
                values are the edge weights.
            edge_weight: Weight of each edge, in the caller's edge order.
        """
        graph, weight = self.weighted_graph(x, edge_index, edge_weight)
        if graph.num_src != graph.num_dst:
            raise ValueError(
                f"APPNP: needs num_src == num_dst, got {graph.num_src} and {graph.num_dst}"
            )
        first = x
        for _ in range(self.K):
            if self.dropout > 0 and self.training:
                if weight is None:
                    weight = torch.ones(graph.num_edges, dtype=x.dtype, device=x.device)
                weight = F.dropout(weight, self.dropout)
            x = torch.add(spmm(graph, x, weight) * (1 - self.alpha), first, alpha=self.alpha)
        return x

    def __repr__(self) -> str:
        """Return e.g. `APPNP(K=10, alpha=0.1)`."""
        return f"APPNP(K={self.K}, alpha={self.alpha})"
