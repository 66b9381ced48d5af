"""`Net`: graph layers, dropout before each, a curve between."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnkern.graph import Graph
from gnnkern.nn.plain import PlainEdges, plain_conv

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "elu": F.elu}


class Net(nn.Module):
    """Graph layers one after another, with dropout before each and an activation between.

    Args:
        convs: The layers, each called as `conv(x, graph)`.
        activation: "relu" or "elu".
        dropout: Probability of dropping an element of each layer's input while training.
    """

    def __init__(self, convs: list[nn.Module], *, activation: str, dropout: float) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.activation = _ACTIVATIONS[activation]
        self.dropout = dropout
        # What drops elements: another generator may take its place.
        self.drop: Callable[[Tensor, float, bool], Tensor] = drop

    def forward(
        self,
        x: Tensor,  # [N, F]
        graph: Graph | PlainEdges,
    ) -> Tensor:  # [N, C]
        """Return a score per node and class; `PlainEdges` take the plain torch path."""
        for depth, conv in enumerate(self.convs):
            if depth > 0:
                x = self.activation(x)
            x = self.drop(x, self.dropout, self.training)
            x = plain_conv(conv, x, graph) if isinstance(graph, PlainEdges) else conv(x, graph)
        return x


def drop(x: Tensor, p: float, training: bool) -> Tensor:
    """Return `x` with dropout; of a sparse CSR matrix only the stored values are drawn for."""
    if x.layout is not torch.sparse_csr or not training or p == 0.0:
        return F.dropout(x, p, training)
    values = F.dropout(x.values(), p)
    return torch.sparse_csr_tensor(
        x.crow_indices(), x.col_indices(), values, x.shape, check_invariants=False
    )
