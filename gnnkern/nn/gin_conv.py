"""Graph isomorphism layers: a network of each node's own features plus its neighbours' sum."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnkern.graph import Graph
from gnnkern.nn.aggregation import MeanAggregation, SumAggregation
from gnnkern.nn.inputs import as_ends, sparse_values
from gnnkern.nn.linear import make_linear, run_all, split_first_linear
from gnnkern.nn.multi_aggregation import Aggr, AggregatingLayer, aggregate
from gnnkern.nn.rows import Messages

__all__ = ["GINConv", "GINEConv"]


class _Isomorphism(AggregatingLayer):
    """What both layers own: the network, epsilon and the aggregation."""

    eps: Tensor

    def __init__(
        self,
        nn_: nn.Module,
        eps: float,
        train_eps: bool,
        aggr: Aggr,
    ) -> None:
        super().__init__(aggr)
        if not callable(nn_):
            raise TypeError(f"{type(self).__name__}: nn must be a module, got {type(nn_).__name__}")
        self.nn = nn_
        self.initial_eps = eps
        if train_eps:
            self.eps = nn.Parameter(torch.full((1,), float(eps)))
        else:
            self.register_buffer("eps", torch.full((1,), float(eps)))

    def reset_parameters(self) -> None:
        """Draw all weights again and set epsilon to its first value."""
        super().reset_parameters()
        nn.init.constant_(self.eps, self.initial_eps)

    def _with_own(self, out: Tensor, x_dst: Tensor | None) -> Tensor:
        return out if x_dst is None else out + (1 + self.eps) * x_dst

    def __repr__(self) -> str:
        """Return the network, e.g. `GINConv(nn=Linear(...))`."""
        return f"{type(self).__name__}(nn={self.nn})"


class GINConv(_Isomorphism):
    """`out[v] = nn((1 + eps) x[v] + sum over edges (u, v) of x[u])`.

    Constructor, `forward` and `state_dict` (`eps`, `nn.*`) are those of PyG's layer of the same
    name; unlike there, the weights of `nn` are left as they are.

    The sum is one op, and comes after the linear map that `nn` begins with where that makes the
    rows narrower: then it is of rows of the map's width. The values of a sparse matrix given as
    `edge_index` are ignored.

    Ops: one `spmm`.

    Args:
        nn: The network, such as an MLP.
        eps: Epsilon, at first.
        train_eps: Whether it is a parameter.
        aggr: What takes the place of the sum: what `SAGEConv` takes.

    Source: Xu et al., "How powerful are graph neural networks?", 2019.
    """

    def __init__(
        self,
        nn: nn.Module,
        eps: float = 0.0,
        train_eps: bool = False,
        *,
        aggr: Aggr = "add",
    ) -> None:
        super().__init__(nn, eps, train_eps, aggr)

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor | None],  # [N, F], or ([num_src, F], [num_dst, F])
        edge_index: Graph | Tensor,
        size: tuple[int, int] | None = None,
    ) -> Tensor:  # [num_dst, F_out]
        """Return what the network makes of the sums.

        Args:
            x: Node features, or a pair for sources and destinations; without the second (None) the
                sums are all there is.
            edge_index: A `Graph`, an integer tensor [2, E], or a torch sparse matrix
                [num_dst, num_src].
            size: (num_src, num_dst), where x does not tell.
        """
        graph, x_src, x_dst = as_ends("GINConv", x, edge_index, size)
        split = split_first_linear(self.nn)
        commutes = isinstance(self.aggr_module, SumAggregation | MeanAggregation)
        if split is None or not commutes or x_src.shape[-1] <= split[0].out_features:
            out = aggregate(self.aggr_module, Messages(graph, x_src))  # [num_dst, F]
            return self.nn(self._with_own(out, x_dst))  # type: ignore[no-any-return]
        linear, follow = split
        shared = x_dst is x_src
        x_src = F.linear(x_src, linear.weight)
        if x_dst is not None:
            x_dst = x_src if shared else F.linear(x_dst, linear.weight)
        out = self._with_own(aggregate(self.aggr_module, Messages(graph, x_src)), x_dst)
        return run_all(follow, out if linear.bias is None else out + linear.bias)


class GINEConv(_Isomorphism):
    """`out[v] = nn((1 + eps) x[v] + sum over edges e = (u, v) of relu(x[u] + edge_attr[e]))`.

    Constructor, `forward` and `state_dict` (`eps`, `nn.*`; `lin.*` with `edge_dim`) are those of
    PyG's layer of the same name; unlike there, the weights of `nn` are left as they are.

    The messages are made, as one tensor of edges x width beside `edge_attr`: their ReLU is no part
    of an op.

    Ops: `sddmm`, ReLU, `spmm`.

    Args:
        nn, eps, train_eps, aggr: As for `GINConv`.
        edge_dim: Width of `edge_attr`, which a linear map then brings to that of x; None: it is
            that of x.

    Source: Hu et al., "Strategies for pre-training graph neural networks", 2020.
    """

    def __init__(
        self,
        nn: nn.Module,
        eps: float = 0.0,
        train_eps: bool = False,
        edge_dim: int | None = None,
        *,
        aggr: Aggr = "add",
    ) -> None:
        super().__init__(nn, eps, train_eps, aggr)
        self.lin = None if edge_dim is None else make_linear(edge_dim, _width(nn), bias=True)

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor | None],  # [N, F], or ([num_src, F], [num_dst, F])
        edge_index: Graph | Tensor,
        edge_attr: Tensor | None = None,  # [E, F], or [E, edge_dim]
        size: tuple[int, int] | None = None,
    ) -> Tensor:  # [num_dst, F_out]
        """Return what the network makes of the sums.

        Args:
            x: As for `GINConv`.
            edge_index: As there; values of a sparse matrix that are rows are edge features.
            edge_attr: Edge features, in the caller's edge order.
            size: As for `GINConv`.
        """
        graph, x_src, x_dst = as_ends("GINEConv", x, edge_index, size)
        if edge_attr is None:
            edge_attr = sparse_values(edge_index)
        if edge_attr is not None and edge_attr.dim() == 2 and self.lin is not None:
            edge_attr = self.lin(edge_attr)
        expected = (graph.num_edges, x_src.shape[-1])
        if edge_attr is None or edge_attr.shape != expected:
            got = None if edge_attr is None else list(edge_attr.shape)
            raise ValueError(
                f"GINEConv: edge_attr must have shape [num_edges={expected[0]}, F={expected[1]}], "
                f"or any width with edge_dim, got {got}"
            )
        # In place: a sum needs none of its values for its gradient.
        rows = Messages(graph, x_src, edge_attr, "add").made().relu_()  # [E, F]
        out = aggregate(self.aggr_module, Messages(graph, None, rows))
        return self.nn(self._with_own(out, x_dst))  # type: ignore[no-any-return]


def _width(module: nn.Module) -> int:
    """Return the input width of the first layer of a network."""
    first = module[0] if isinstance(module, nn.Sequential) else module
    for name in ("in_features", "in_channels"):
        if hasattr(first, name):
            return int(getattr(first, name))
    raise ValueError(
        "GINEConv: edge_dim needs an nn that begins with a linear layer, got "
        f"{type(first).__name__}"
    )
