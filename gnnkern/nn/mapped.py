"""A linear map of each node's features, and what then spreads them over the graph."""

from __future__ import annotations

from torch import Tensor, nn

from gnnkern.graph import Graph

__all__ = ["Mapped"]


class Mapped(nn.Module):
    """A linear map as a layer of a network, in which layers are called with rows and a graph.

    Args:
        lin: The map.
        spread: Called with what it makes and the graph; None: nothing more is done.
    """

    def __init__(self, lin: nn.Linear, spread: nn.Module | None = None) -> None:
        super().__init__()
        self.lin = lin
        self.spread = spread

    def forward(self, x: Tensor, graph: Graph) -> Tensor:  # [N, F] -> [N, F_out]
        """Return the mapped rows, spread over the graph."""
        x = self.lin(x)
        return x if self.spread is None else self.spread(x, graph)
