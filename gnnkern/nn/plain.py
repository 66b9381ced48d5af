"""The layers' plain torch path: gather a message per edge, scatter the messages, same parameters.

What the same model costs without kernels of its own: ordinary torch ops, with the self loops and
the normalisation computed once and kept, as a careful user would write it.
"""

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnkern.nn.appnp import APPNP
from gnnkern.nn.gat_conv import GATConv
from gnnkern.nn.gcn_conv import GCNConv
from gnnkern.nn.gin_conv import GINConv
from gnnkern.nn.linear import run_all, split_first_linear
from gnnkern.nn.mapped import Mapped
from gnnkern.nn.sage_conv import SAGEConv


class PlainEdges:
    """The edges of a graph as two index tensors, and what the layers derive from them.

    Args:
        edge_index: Edges [2, E], row 0 source and row 1 destination.
        num_nodes: Number of nodes.
        dtype: Type of degrees and weights: that of the features.
    """

    def __init__(
        self, edge_index: Tensor, num_nodes: int, dtype: torch.dtype = torch.float32
    ) -> None:
        self.src, self.dst = edge_index.long().unbind()  # [E], [E]
        self.num_nodes = num_nodes
        self.dtype = dtype

    @cached_property
    def degree(self) -> Tensor:  # [N, 1]
        """In-degrees, at least 1 so that a mean over no edges is 0."""
        ones = torch.ones(len(self.dst), 1, dtype=self.dtype, device=self.dst.device)
        return _sum_by(ones, self.dst, self.num_nodes).clamp_(min=1)

    @cached_property
    def with_self_loops(self) -> "PlainEdges":
        """The edges without loops, then one loop per node."""
        keep = self.src != self.dst
        loops = torch.arange(self.num_nodes, device=self.src.device)
        src, dst = torch.cat([self.src[keep], loops]), torch.cat([self.dst[keep], loops])
        return PlainEdges(torch.stack([src, dst]), self.num_nodes, self.dtype)

    @cached_property
    def gcn_weight(self) -> Tensor:  # [E, 1]
        """`1 / sqrt(d_u d_v)` of each edge."""
        scale = self.degree.rsqrt()
        return scale[self.src] * scale[self.dst]


def plain_conv(conv: nn.Module, x: Tensor, edges: PlainEdges) -> Tensor:
    """Return what `conv(x, graph)` returns, from plain torch ops.

    Args:
        conv: A `GCNConv`, `SAGEConv`, `GATConv`, `GINConv` or `Mapped` with default options:
            neither edge weights nor edge features, neither projection nor residual; what spreads
            the rows of a `Mapped` is nothing or `APPNP`.
        x: Node features [N, F].
        edges: The graph's edges.
    """
    if isinstance(conv, GCNConv):
        return _plain_gcn(conv, x, edges.with_self_loops)
    if isinstance(conv, SAGEConv) and conv.aggr in ("mean", "sum", "add", "max", "min"):
        return _plain_sage(conv, x, edges)
    if isinstance(conv, GATConv):
        return _plain_gat(conv, x, edges.with_self_loops)
    if isinstance(conv, GINConv) and conv.aggr == "add":
        return _plain_gin(conv, x, edges)
    if isinstance(conv, Mapped) and isinstance(conv.spread, APPNP | None):
        x = conv.lin(x)
        return x if conv.spread is None else _plain_appnp(conv.spread, x, edges.with_self_loops)
    raise TypeError(f"plain_conv: no plain path for {conv}")


def _plain_gcn(conv: GCNConv, x: Tensor, edges: PlainEdges) -> Tensor:
    message = conv.lin(x).index_select(0, edges.src) * edges.gcn_weight  # [E, F]
    out = _sum_by(message, edges.dst, edges.num_nodes)  # [N, F]
    return out if conv.bias is None else out + conv.bias


def _plain_sage(conv: SAGEConv, x: Tensor, edges: PlainEdges) -> Tensor:
    # The layer too applies its linear map first where that makes the rows narrower.
    first = conv.aggr in ("mean", "sum", "add") and x.shape[1] > conv.out_channels
    h = F.linear(x, conv.lin_l.weight) if first else x
    message = h.index_select(0, edges.src)  # [E, F]
    if conv.aggr in ("max", "min"):
        index = edges.dst[:, None].expand_as(message)
        out = message.new_zeros(edges.num_nodes, message.shape[1])
        out = out.scatter_reduce(0, index, message, f"a{conv.aggr}", include_self=False)
    else:
        out = _sum_by(message, edges.dst, edges.num_nodes)  # [N, F]
        out = out / edges.degree if conv.aggr == "mean" else out
    out = out if first else F.linear(out, conv.lin_l.weight)
    out = out if conv.lin_l.bias is None else out + conv.lin_l.bias
    out = out + conv.lin_r(x) if conv.root_weight else out
    return F.normalize(out, p=2.0, dim=-1) if conv.normalize else out


def _plain_gin(conv: GINConv, x: Tensor, edges: PlainEdges) -> Tensor:
    # The layer too applies its first linear map first where that makes the rows narrower.
    split = split_first_linear(conv.nn)
    if split is None or x.shape[1] <= split[0].out_features:
        message = x.index_select(0, edges.src)  # [E, F]
        out = _sum_by(message, edges.dst, edges.num_nodes) + (1 + conv.eps) * x
        return conv.nn(out)  # type: ignore[no-any-return]
    linear, follow = split
    h = F.linear(x, linear.weight)
    out = _sum_by(h.index_select(0, edges.src), edges.dst, edges.num_nodes) + (1 + conv.eps) * h
    return run_all(follow, out if linear.bias is None else out + linear.bias)


def _plain_appnp(conv: APPNP, x: Tensor, edges: PlainEdges) -> Tensor:
    first = x
    for _ in range(conv.K):
        message = x.index_select(0, edges.src) * edges.gcn_weight  # [E, F]
        x = _sum_by(message, edges.dst, edges.num_nodes) * (1 - conv.alpha) + first * conv.alpha
    return x


def _plain_gat(conv: GATConv, x: Tensor, edges: PlainEdges) -> Tensor:
    assert conv.lin is not None
    src, dst, num_nodes = edges.src, edges.dst, edges.num_nodes
    h = conv.lin(x).unflatten(1, (conv.heads, conv.out_channels))  # [N, H, D]
    score_src = (h * conv.att_src).sum(-1)  # [N, H]
    score_dst = (h * conv.att_dst).sum(-1)  # [N, H]
    score = score_src.index_select(0, src) + score_dst.index_select(0, dst)  # [E, H]
    score = F.leaky_relu(score, conv.negative_slope)
    index = dst[:, None].expand_as(score)
    largest = score.detach().new_zeros(num_nodes, conv.heads)
    largest = largest.scatter_reduce(0, index, score.detach(), "amax", include_self=False)
    exp = (score - largest.index_select(0, dst)).exp()  # [E, H]
    alpha = exp / _sum_by(exp, dst, num_nodes).index_select(0, dst)
    alpha = F.dropout(alpha, conv.dropout, conv.training)
    message = h.index_select(0, src) * alpha[:, :, None]  # [E, H, D]
    out = _sum_by(message.flatten(1), dst, num_nodes)  # [N, H * D]
    if not conv.concat:
        out = out.view(num_nodes, conv.heads, conv.out_channels).mean(1)
    return out if conv.bias is None else out + conv.bias


def _sum_by(message: Tensor, dst: Tensor, num_nodes: int) -> Tensor:  # [E, F] -> [N, F]
    # An expanded index takes torch's row-wise path, which is the fastest of its scatters.
    index = dst[:, None].expand_as(message)
    return message.new_zeros(num_nodes, message.shape[1]).scatter_add_(0, index, message)
