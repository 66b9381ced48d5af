"""Graph transformer: a softmax-weighted sum over the neighbours, scored by queries and keys."""

import torch
from torch import Tensor

from gnnkern.graph import Graph
from gnnkern.nn.inputs import as_graph, sparse_values
from gnnkern.nn.layer import Layer
from gnnkern.nn.linear import make_linear
from gnnkern.ops.dot_attention import dot_attention
from gnnkern.ops.edge_softmax import edge_softmax
from gnnkern.ops.sddmm import sddmm


class TransformerConv(Layer):
    """`out[v] = W_skip x[v] + sum over edges (u, v) of alpha_uv * (W_value x[u] + W_edge e_uv)`.

    `alpha` is the softmax, over the edges into `v`, of
    `<W_query x[v], W_key x[u] + W_edge e_uv> / sqrt(out_channels)`, for each of `heads` heads.
    Scores, softmax and sum are one op: of size edges x width there is nothing but the transformed
    edge features, where there are any.

    Constructor, `forward` and `state_dict` (`lin_key`, `lin_query`, `lin_value`, `lin_skip`; where
    asked for `lin_edge.weight`, `lin_beta.weight`) are those of PyG's layer of the same name.

    Ops: one `dot_attention`.

    Args:
        in_channels: Input width, or a pair of widths for sources and destinations; -1 takes the
            width of the first input.
        out_channels: Width of each head.
        heads: Number of heads.
        concat: Put the heads' outputs side by side; else their mean is returned.
        beta: Whether to weigh the sum against the node's own features by a learned gate in (0, 1)
            instead of adding them; without root_weight it has no effect.
        dropout: Probability of dropping each alpha while training.
        edge_dim: Width of `edge_attr`; None: no edge features.
        bias: Whether the linear maps of nodes add a learnable bias.
        root_weight: Whether to add a linear map of the node's own features.

    Source: Shi et al., "Masked label prediction: unified message passing model for semi-supervised
    classification", 2021.
    """

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        beta: bool = False,
        dropout: float = 0.0,
        edge_dim: int | None = None,
        bias: bool = True,
        root_weight: bool = True,
    ) -> None:
        super().__init__()
        if heads < 1:
            raise ValueError(f"TransformerConv: heads must be >= 1, got {heads}")
        if edge_dim is not None and edge_dim < 1:
            raise ValueError(f"TransformerConv: edge_dim must be None or >= 1, got {edge_dim}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.heads = heads
        self.concat = concat
        self.beta = beta and root_weight
        self.dropout = dropout
        self.edge_dim = edge_dim
        self.root_weight = root_weight

        pair = (in_channels, in_channels) if isinstance(in_channels, int) else in_channels
        width = heads * out_channels
        total = width if concat else out_channels
        self.lin_key = make_linear(pair[0], width, bias=bias)
        self.lin_query = make_linear(pair[1], width, bias=bias)
        self.lin_value = make_linear(pair[0], width, bias=bias)
        self.lin_edge = None if edge_dim is None else make_linear(edge_dim, width, bias=False)
        # As in PyG, a parameter also where root_weight leaves it unused.
        self.lin_skip = make_linear(pair[1], total, bias=bias)
        self.lin_beta = make_linear(3 * total, 1, bias=False) if self.beta else None

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],  # [N, F], or ([num_src, F_s], [num_dst, F_d])
        edge_index: Graph | Tensor,
        edge_attr: Tensor | None = None,  # [E, edge_dim]
        return_attention_weights: bool | None = None,
    ) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:  # [num_dst, heads * out_channels]
        """Return the attended features, and on request the attention weights.

        Args:
            x: Node features, or a pair for sources and destinations. A sparse CSR matrix will do.
            edge_index: A `Graph`, an integer tensor [2, E], or a torch sparse matrix
                [num_dst, num_src], whose values of more than one dimension are edge features.
            edge_attr: Edge features, in the caller's edge order.
            return_attention_weights: If true or false but not None, return
                `(out, (edge_index, alpha))`: the edges [2, E] and their weights [E, heads], before
                dropout.
        """
        x_src, x_dst = (x, x) if isinstance(x, Tensor) else x
        graph = as_graph(edge_index, x_src.shape[0], x_dst.shape[0])
        if edge_attr is None:
            values = sparse_values(edge_index)
            edge_attr = values if values is not None and values.dim() > 1 else None
        heads = (self.heads, self.out_channels)
        query = self.lin_query(x_dst).unflatten(1, heads)  # [num_dst, H, D]
        key = self.lin_key(x_src).unflatten(1, heads)  # [num_src, H, D]
        value = self.lin_value(x_src).unflatten(1, heads)  # [num_src, H, D]
        edge_x = self._edge_rows(graph, edge_attr)

        dropout = self.dropout if self.training else 0.0
        out = dot_attention(graph, query, key, value, edge_x=edge_x, dropout=dropout)
        out = self._combine(out, x_dst)
        if not isinstance(return_attention_weights, bool):
            return out

        score = sddmm(graph, query, key, op="dot")  # [E, H]
        if edge_x is not None:
            by_edge = query.index_select(0, graph.edge_index[1])  # [E, H, D]
            score = score + (by_edge * edge_x).sum(-1)
        return out, (graph.edge_index, edge_softmax(graph, score * self.out_channels**-0.5))

    def _edge_rows(self, graph: Graph, edge_attr: Tensor | None) -> Tensor | None:  # [E, H, D]
        """Return what edges add to the keys and values of their sources."""
        if self.lin_edge is None:
            if edge_attr is not None:
                raise ValueError("TransformerConv: edge_attr needs a layer made with edge_dim")
            return None
        expected = f"[num_edges={graph.num_edges}, edge_dim={self.edge_dim}]"
        if edge_attr is None:
            raise ValueError(f"TransformerConv: edge_attr must have shape {expected}, got None")
        if edge_attr.shape != (graph.num_edges, self.edge_dim):
            raise ValueError(
                f"TransformerConv: edge_attr must have shape {expected}, "
                f"got {list(edge_attr.shape)}"
            )
        rows = self.lin_edge(edge_attr).unflatten(1, (self.heads, self.out_channels))
        return rows  # type: ignore[no-any-return]

    def _combine(self, out: Tensor, x_dst: Tensor) -> Tensor:
        out = out.flatten(1) if self.concat else out.mean(dim=1)
        if not self.root_weight:
            return out
        root: Tensor = self.lin_skip(x_dst)
        if self.lin_beta is None:
            return out + root
        gate = self.lin_beta(torch.cat([out, root, out - root], dim=-1)).sigmoid()  # [num_dst, 1]
        return gate * root + (1 - gate) * out  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        """Return e.g. `TransformerConv(16, 32, heads=2)`."""
        return f"TransformerConv({self.in_channels}, {self.out_channels}, heads={self.heads})"
