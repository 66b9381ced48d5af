"""Graph attention: a softmax-weighted sum over the neighbours, scored by two vectors per head."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnkern.graph import Graph
from gnnkern.nn.attention import check_options, edges_to_attend, join_heads
from gnnkern.nn.inputs import as_graph, sparse_values
from gnnkern.nn.linear import glorot_, make_linear
from gnnkern.ops.edge_softmax import edge_softmax
from gnnkern.ops.gat_attention import gat_attention
from gnnkern.ops.sddmm import sddmm
from gnnkern.ops.spmm import spmm


class GATConv(nn.Module):
    """`out[v] = bias + sum over edges (u, v) of alpha_uv * (W x[u])`, for each of `heads` heads.

    `alpha` is the softmax, over the edges into `v`, of
    `leaky_relu(att_src . W x[u] + att_dst . W x[v] + att_edge . W_e edge_attr[e])`. Scores are
    computed per node, and softmax and sum in one pass over the edges: nothing of size
    edges x width is written. Existing self loops are replaced by one per node (that is both
    source and destination).

    Constructor, `forward` and `state_dict` (`att_src`, `att_dst`, `bias`, `lin.weight`, or
    `lin_src.weight` and `lin_dst.weight` where `in_channels` is a pair; `lin_edge.weight`,
    `att_edge`, `res.weight` where asked for) are those of PyG's layer of the same name.

    Ops: one `gat_attention`.

    Args:
        in_channels: Input width, or a pair of widths for sources and destinations; -1 takes the
            width of the first input.
        out_channels: Width of each head.
        heads: Number of heads.
        concat: Put the heads' outputs side by side; else their mean is returned.
        negative_slope: Slope of the leaky ReLU below 0.
        dropout: Probability of dropping each alpha while training.
        add_self_loops: Whether to replace the self loops by one per node.
        edge_dim: Width of `edge_attr`; None ignores edge features.
        fill_value: What a self loop has as edge features: a number, a tensor, or the "mean",
            "add", "max", "min" or "mul" of those of the edges into the node.
        bias: Whether to add a learnable bias.
        residual: Whether to add a linear map of the node's own features.

    Source: Velickovic et al., "Graph attention networks", 2018.
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
        residual: bool = False,
    ) -> None:
        super().__init__()
        check_options("GATConv", heads, edge_dim, fill_value)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.heads = heads
        self.concat = concat
        self.negative_slope = negative_slope
        self.dropout = dropout
        self.add_self_loops = add_self_loops
        self.edge_dim = edge_dim
        self.fill_value = fill_value
        self.residual = residual

        width = heads * out_channels
        total = width if concat else out_channels
        self.lin: nn.Linear | None = None
        self.lin_src: nn.Linear | None = None
        self.lin_dst: nn.Linear | None = None
        if isinstance(in_channels, int):
            in_dst = in_channels
            self.lin = make_linear(in_channels, width, bias=False, glorot=True)
        else:
            in_dst = in_channels[1]
            self.lin_src = make_linear(in_channels[0], width, bias=False, glorot=True)
            self.lin_dst = make_linear(in_dst, width, bias=False, glorot=True)
        self.att_src = nn.Parameter(torch.empty(1, heads, out_channels))
        self.att_dst = nn.Parameter(torch.empty(1, heads, out_channels))
        self.lin_edge: nn.Linear | None = None
        self.att_edge: nn.Parameter | None = None
        if edge_dim is not None:
            self.lin_edge = make_linear(edge_dim, width, bias=False, glorot=True)
            self.att_edge = nn.Parameter(torch.empty(1, heads, out_channels))
        self.res = make_linear(in_dst, total, bias=False, glorot=True) if residual else None
        self.bias = nn.Parameter(torch.empty(total)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights again and zero the bias."""
        for linear in (self.lin, self.lin_src, self.lin_dst, self.lin_edge, self.res):
            if linear is not None:
                linear.reset_parameters()
        for att in (self.att_src, self.att_dst, self.att_edge):
            if att is not None:
                glorot_(att)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor | None],  # [N, F], or ([num_src, F_s], [num_dst, F_d])
        edge_index: Graph | Tensor,
        edge_attr: Tensor | None = None,  # [E, edge_dim], or [E] where edge_dim is 1
        size: tuple[int, int] | None = None,
        return_attention_weights: bool | None = None,
    ) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:  # [num_dst, heads * out_channels]
        """Return the attended features, and on request the attention weights.

        Args:
            x: Node features, or a pair for sources and destinations. The second may be None: its
                score and residual are then left out. A sparse CSR matrix will do.
            edge_index: A `Graph`, an integer tensor [2, E], or a torch sparse matrix
                [num_dst, num_src].
            edge_attr: Edge features, in the caller's edge order.
            size: (num_src, num_dst), where x does not tell.
            return_attention_weights: If true, return `(out, (edge_index, alpha))`: the edges
                walked, self loops included, [2, E'], and their weights [E', heads].
        """
        x_src, x_dst, x_root = self._transform(x)
        num_dst = x_src.shape[0] if x_dst is None else x_dst.shape[0]
        graph = as_graph(edge_index, *(size or (x_src.shape[0], num_dst)))
        if edge_attr is None:
            values = sparse_values(edge_index)
            edge_attr = values if values is not None and values.dim() > 1 else None
        score_src = (x_src * self.att_src).sum(-1)  # [num_src, H]
        if x_dst is None:
            score_dst = score_src.new_zeros(graph.num_dst, self.heads)
        else:
            score_dst = (x_dst * self.att_dst).sum(-1)  # [num_dst, H]
        graph, edge_score = self._edges(graph, edge_attr)

        dropout = self.dropout if self.training else 0.0
        if not return_attention_weights:
            out = gat_attention(
                graph,
                x_src,
                score_src,
                score_dst,
                edge_score=edge_score,
                negative_slope=self.negative_slope,
                dropout=dropout,
            )  # [num_dst, H, D]
            return self._combine(out, x_root)

        score = sddmm(graph, score_dst, score_src, op="add")  # [E', H]
        if edge_score is not None:
            score = score + edge_score
        alpha = edge_softmax(graph, F.leaky_relu(score, self.negative_slope))
        alpha = F.dropout(alpha, dropout)
        out = spmm(graph, x_src, alpha)  # [num_dst, H, D]
        return self._combine(out, x_root), (graph.edge_index, alpha)

    def _transform(
        self, x: Tensor | tuple[Tensor, Tensor | None]
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the features of sources, of destinations, and the residual's input."""
        heads = (self.heads, self.out_channels)
        raw_src, raw_dst = (x, x) if isinstance(x, Tensor) else x
        if self.lin is not None:
            x_src = self.lin(raw_src).unflatten(1, heads)
            if raw_dst is raw_src:
                return x_src, x_src, raw_dst
            lin_dst = self.lin
        else:
            assert self.lin_src is not None and self.lin_dst is not None
            x_src = self.lin_src(raw_src).unflatten(1, heads)
            lin_dst = self.lin_dst
        if raw_dst is None:
            return x_src, None, None
        return x_src, lin_dst(raw_dst).unflatten(1, heads), raw_dst

    def _edges(self, graph: Graph, edge_attr: Tensor | None) -> tuple[Graph, Tensor | None]:
        """Return the graph to attend over and each edge's own score [E', H]."""
        if self.lin_edge is None or self.att_edge is None:
            edge_attr = None
        graph, edge_attr = edges_to_attend(
            "GATConv", graph, edge_attr, self.edge_dim, self.add_self_loops, self.fill_value
        )
        if edge_attr is None or self.lin_edge is None or self.att_edge is None:
            return graph, None
        # Both maps at once, [edge_dim] -> [H], so that no [E, H, D] is made.
        weight = self.lin_edge.weight.view(self.heads, self.out_channels, -1)
        to_score = (weight * self.att_edge.view(self.heads, self.out_channels, 1)).sum(1)
        return graph, F.linear(edge_attr, to_score)

    def _combine(self, out: Tensor, x_root: Tensor | None) -> Tensor:
        residual = None if self.res is None or x_root is None else self.res(x_root)
        return join_heads(out, self.concat, residual, self.bias)

    def __repr__(self) -> str:
        """Return e.g. `GATConv(16, 32, heads=2)`."""
        return f"GATConv({self.in_channels}, {self.out_channels}, heads={self.heads})"
