"""Higher-order graph convolution: one linear map of the neighbours' sum, one of the node itself."""

from __future__ import annotations

from torch import Tensor

from gnnkern.graph import Graph
from gnnkern.nn.inputs import as_ends, sparse_values
from gnnkern.nn.linear import make_linear
from gnnkern.nn.multi_aggregation import Aggr, AggregatingLayer, aggregate_mapped
from gnnkern.nn.rows import Messages


class GraphConv(AggregatingLayer):
    """`out[v] = W_rel sum over edges e = (u, v) of w_e x[u] + bias + W_root x[v]`.

    Constructor, `forward` and `state_dict` (`lin_rel.weight`, `lin_rel.bias`, `lin_root.weight`)
    are those of PyG's layer of the same name.

    The weighted sum is one op; where `W_rel` makes the rows narrower, it is applied before.

    Ops: one `spmm`.

    Args:
        in_channels: Input width, or a pair of widths for sources and destinations; -1 takes the
            width of the first input.
        out_channels: Output width.
        aggr: What takes the place of the sum: a name ("mean", "max", ...) or an aggregation.
        bias: Whether to add a learnable bias.

    Source: Morris et al., "Weisfeiler and Leman go neural: higher-order graph neural networks",
    2019.
    """

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        aggr: Aggr = "add",
        bias: bool = True,
    ) -> None:
        super().__init__(aggr)
        self.in_channels = in_channels
        self.out_channels = out_channels
        src, dst = (in_channels, in_channels) if isinstance(in_channels, int) else in_channels
        self.lin_rel = make_linear(src, out_channels, bias=bias)
        self.lin_root = make_linear(dst, out_channels, bias=False)

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor | None],  # [N, F], or ([num_src, F_s], [num_dst, F_d])
        edge_index: Graph | Tensor,
        edge_weight: Tensor | None = None,  # [E]
        size: tuple[int, int] | None = None,
    ) -> Tensor:  # [num_dst, out_channels]
        """Return the maps of each node's sum and of itself.

        Args:
            x: Node features, or a pair for sources and destinations; without the second (None)
                there is no `W_root x[v]`.
            edge_index: A `Graph`, an integer tensor [2, E], or a torch sparse matrix
                [num_dst, num_src] whose values are the edge weights.
            edge_weight: Weight of each edge, in the caller's edge order; None: 1.
            size: (num_src, num_dst), where x does not tell.
        """
        graph, x_src, x_dst = as_ends("GraphConv", x, edge_index, size)
        if edge_weight is None:
            edge_weight = sparse_values(edge_index)
        messages = Messages(graph, x_src, edge_weight)
        out = aggregate_mapped(self.aggr_module, messages, self.lin_rel)
        return out if x_dst is None else out + self.lin_root(x_dst)

    def __repr__(self) -> str:
        """Return e.g. `GraphConv(16, 32)`."""
        return f"GraphConv({self.in_channels}, {self.out_channels})"
