"""Graph convolution: a linear map, then the symmetrically normalised sum over the neighbours."""

import torch
from torch import Tensor, nn

from gnnkern.graph import Graph
from gnnkern.nn.linear import make_linear
from gnnkern.nn.normalised import NormalisedLayer
from gnnkern.ops.spmm import spmm


class GCNConv(NormalisedLayer):
    r"""`out[v] = bias + sum over edges (u, v) of w_uv / sqrt(d_u d_v) * (W x[u])`.

    `d` is the weighted in-degree; self loops are part of the graph unless told otherwise: a node
    that has none gets one of weight 1 (2 with `improved`), existing ones keep their weight.
    The normalisation is computed once per `Graph` and kept there.

    Constructor, `forward` and `state_dict` (`lin.weight`, `bias`) are those of PyG's layer of the
    same name. One difference: PyG 2.8 weighs the loops of `improved` by 2 only where
    `edge_weight` is given, here they always are.

    Ops: one `spmm`.

    Args:
        in_channels: Input width, or -1 to take that of the first input.
        out_channels: Output width.
        improved: Weigh added self loops by 2.
        cached: Keep the first call's normalised graph and use it for ever after. Only an
            `edge_index` needs this; a `Graph` keeps its own.
        add_self_loops: Whether to add self loops; by default wherever `normalize` is on.
        normalize: Whether to scale each edge by `1 / sqrt(d_u d_v)`.
        bias: Whether to add a learnable bias.

    Source: Kipf and Welling, "Semi-supervised classification with graph convolutional networks",
    2017.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        improved: bool = False,
        cached: bool = False,
        add_self_loops: bool | None = None,
        normalize: bool = True,
        bias: bool = True,
    ) -> None:
        if add_self_loops is None:
            add_self_loops = normalize
        if add_self_loops and not normalize:
            raise ValueError("GCNConv: add_self_loops=True needs normalize=True")
        super().__init__(
            cached=cached, add_self_loops=add_self_loops, normalize=normalize, improved=improved
        )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.lin = make_linear(in_channels, out_channels, bias=False, glorot=True)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def reset_parameters(self) -> None:
        """Draw the weight again, zero the bias and forget the cached graph."""
        super().reset_parameters()
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(
        self,
        x: Tensor,  # [N, in_channels]
        edge_index: Graph | Tensor,
        edge_weight: Tensor | None = None,  # [E]
    ) -> Tensor:  # [N, out_channels]
        """Return the convolved features.

        Args:
            x: Node features; a sparse CSR matrix will do.
            edge_index: A `Graph`, an integer tensor [2, E], or a torch sparse matrix [N, N] whose
                values are the edge weights.
            edge_weight: Weight of each edge, in the caller's edge order.
        """
        if not isinstance(x, Tensor):
            raise ValueError(
                "GCNConv: x must be one tensor [N, F], got a "
                f"{type(x).__name__}; for source and destination features use SAGEConv or GATConv"
            )
        graph, weight = self.weighted_graph(x, edge_index, edge_weight)
        out = spmm(graph, self.lin(x), weight)  # [N, out_channels]
        return out if self.bias is None else out + self.bias

    def __repr__(self) -> str:
        """Return e.g. `GCNConv(16, 32)`."""
        return f"GCNConv({self.in_channels}, {self.out_channels})"
