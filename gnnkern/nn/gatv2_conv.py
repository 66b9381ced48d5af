"""GATv2: attention in which which neighbour counts most depends on the node that attends."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnkern.graph import Graph
from gnnkern.nn.attention import check_options, edges_to_attend, join_heads
from gnnkern.nn.inputs import as_graph, sparse_values
from gnnkern.nn.linear import glorot_, make_linear
from gnnkern.ops.edge_softmax import edge_softmax
from gnnkern.ops.gatv2_attention import gatv2_attention
from gnnkern.ops.sddmm import sddmm
from gnnkern.ops.spmm import spmm


class GATv2Conv(nn.Module):
    """`out[v] = bias + sum over edges (u, v) of alpha_uv * (W_l x[u])`, for each of `heads` heads.

    `alpha` is the softmax, over the edges into `v`, of
    `att . leaky_relu(W_l x[u] + W_r x[v] + W_e edge_attr[e])`. Scores, softmax and sum are one pass
    over the edges: without edge features, nothing of size edges x width is written. Existing self
    loops are replaced by one per node (that is both source and destination).

    Constructor, `forward` and `state_dict` (`att`, `bias`, `lin_l.*`, `lin_r.*`, both also where
    they are shared; `lin_edge.weight`, `res.weight` where asked for) are those of PyG's layer of
    the same name.

    Ops: one `gatv2_attention`.

    Args:
        in_channels: Input width, or a pair of widths for sources and destinations; -1 takes the
            width of the first input.
        out_channels: Width of each head.
        heads: Number of heads.
        concat: Put the heads' outputs side by side; else their mean is returned.
        negative_slope: Slope of the leaky ReLU below 0.
        dropout: Probability of dropping each alpha while training.
        add_self_loops: Whether to replace the self loops by one per node.
        edge_dim: Width of `edge_attr`; None: there are no edge features.
        fill_value: What a self loop has as edge features: a number, a tensor, or the "mean",
            "add", "max", "min" or "mul" of those of the edges into the node.
        bias: Whether to add a learnable bias, to both linear maps too.
        share_weights: Whether one linear map serves sources and destinations.
        residual: Whether to add a linear map of the node's own features.

    Source: Brody et al., "How attentive are graph attention networks?", 2022.
    """

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        negative_slope: float = 0.2,
        dropout: float = 0.0,
        add_self_loops: bool = True,
        edge_dim: int | None = None,
        fill_value: float | Tensor | str = "mean",
        bias: bool = True,
        share_weights: bool = False,
        residual: bool = False,
    ) -> None:
        super().__init__()
        check_options("GATv2Conv", heads, edge_dim, fill_value)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.heads = heads
        self.concat = concat
        self.negative_slope = negative_slope
        self.dropout = dropout
        self.add_self_loops = add_self_loops
        self.edge_dim = edge_dim
        self.fill_value = fill_value
        self.share_weights = share_weights
        self.residual = residual

        width = heads * out_channels
        total = width if concat else out_channels
        pair = (in_channels, in_channels) if isinstance(in_channels, int) else in_channels
        self.lin_l = make_linear(pair[0], width, bias=bias, glorot=True)
        if share_weights:
            self.lin_r = self.lin_l
        else:
            self.lin_r = make_linear(pair[1], width, bias=bias, glorot=True)
        self.att = nn.Parameter(torch.empty(1, heads, out_channels))
        self.lin_edge: nn.Linear | None = None
        if edge_dim is not None:
            self.lin_edge = make_linear(edge_dim, width, bias=False, glorot=True)
        self.res = make_linear(pair[1], total, bias=False, glorot=True) if residual else None
        self.bias = nn.Parameter(torch.empty(total)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights again and zero the biases."""
        for linear in (self.lin_l, self.lin_r, self.lin_edge, self.res):
            if linear is not None:
                linear.reset_parameters()
        glorot_(self.att)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],  # [N, F], or ([num_src, F_s], [num_dst, F_d])
        edge_index: Graph | Tensor,
        edge_attr: Tensor | None = None,  # [E, edge_dim], or [E] where edge_dim is 1
        return_attention_weights: bool | None = None,
    ) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:  # [num_dst, heads * out_channels]
        """Return the attended features, and on request the attention weights.

        Args:
            x: Node features, or a pair for sources and destinations. A sparse CSR matrix will do.
            edge_index: A `Graph`, an integer tensor [2, E], or a torch sparse matrix
                [num_dst, num_src].
            edge_attr: Edge features, in the caller's edge order.
            return_attention_weights: If true, return `(out, (edge_index, alpha))`: the edges
                walked, self loops included, [2, E'], and their weights [E', heads]. Scores are
                then made by several ops, with tensors of size edges x width.
        """
        raw_src, raw_dst = (x, x) if isinstance(x, Tensor) else x
        if raw_dst is None:
            raise ValueError("GATv2Conv: x must hold features of destinations too, got None")
        x_src = self._heads(self.lin_l(raw_src))  # [num_src, H, D]
        if self.share_weights and raw_dst is raw_src:
            x_dst = x_src
        else:
            x_dst = self._heads(self.lin_r(raw_dst))  # [num_dst, H, D]
        graph = as_graph(edge_index, x_src.shape[0], x_dst.shape[0])
        if edge_attr is None:
            values = sparse_values(edge_index)
            edge_attr = values if values is not None and values.dim() > 1 else None
        graph, edge_x = self._edges(graph, edge_attr)

        dropout = self.dropout if self.training else 0.0
        att = self.att[0]  # [H, D]
        residual = None if self.res is None else self.res(raw_dst)
        if not return_attention_weights:
            out = gatv2_attention(
                graph,
                x_src,
                x_dst,
                att,
                edge_x=edge_x,
                negative_slope=self.negative_slope,
                dropout=dropout,
            )  # [num_dst, H, D]
            return join_heads(out, self.concat, residual, self.bias)

        both = sddmm(graph, x_dst, x_src, op="add")  # [E', H, D]
        if edge_x is not None:
            both = both + edge_x
        score = (F.leaky_relu(both, self.negative_slope) * att).sum(-1)  # [E', H]
        alpha = F.dropout(edge_softmax(graph, score), dropout)
        out = join_heads(spmm(graph, x_src, alpha), self.concat, residual, self.bias)
        return out, (graph.edge_index, alpha)

    def _heads(self, x: Tensor) -> Tensor:  # [N, H * D] -> [N, H, D]
        out: Tensor = x.unflatten(1, (self.heads, self.out_channels))
        return out

    def _edges(self, graph: Graph, edge_attr: Tensor | None) -> tuple[Graph, Tensor | None]:
        """Return the graph to attend over and what each edge adds [E', H, D]."""
        if edge_attr is not None and self.lin_edge is None:
            raise ValueError("GATv2Conv: edge_attr must be None where edge_dim is None")
        graph, edge_attr = edges_to_attend(
            "GATv2Conv", graph, edge_attr, self.edge_dim, self.add_self_loops, self.fill_value
        )
        if edge_attr is None or self.lin_edge is None:
            return graph, None
        return graph, self._heads(self.lin_edge(edge_attr))

    def __repr__(self) -> str:
        """Return e.g. `GATv2Conv(16, 32, heads=2)`."""
        return f"GATv2Conv({self.in_channels}, {self.out_channels}, heads={self.heads})"
