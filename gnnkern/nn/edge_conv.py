"""Edge convolution: a network of each edge's own end and the difference of its two, reduced."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnkern.graph import Graph
from gnnkern.nn.aggregation import MaxAggregation, MinAggregation
from gnnkern.nn.inputs import as_ends
from gnnkern.nn.linear import run_all, split_first_linear
from gnnkern.nn.multi_aggregation import Aggr, AggregatingLayer, aggregate
from gnnkern.nn.rows import Messages
from gnnkern.ops.sddmm import sddmm

_NEVER_FALL = (nn.Identity, nn.ReLU, nn.Sigmoid, nn.Tanh)


class EdgeConv(AggregatingLayer):
    """`out[v] = max over edges (u, v) of nn([x[v], x[u] - x[v]])`.

    Constructor, `forward` and `state_dict` (`nn.*`) are those of PyG's layer of the same name;
    unlike there, the weights of `nn` are left as they are.

    The linear map that `nn` begins with is a map of x[v] plus one of x[u], both made where the
    nodes are. Where nothing follows, or only activations that never fall under a max or min, the
    layer is one op; otherwise the rest of `nn` sees edges x width of the map.

    Ops: one `spmm`; with layers behind the first `sddmm`, these layers, `spmm`.

    Args:
        nn: The network, of rows twice as wide as x.
        aggr: "max", or what else `SAGEConv` takes.

    Source: Wang et al., "Dynamic graph CNN for learning on point clouds", 2019.
    """

    def __init__(self, nn: nn.Module, aggr: Aggr = "max") -> None:
        super().__init__(aggr)
        self.nn = nn

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],  # [N, F], or ([num_src, F], [num_dst, F])
        edge_index: Graph | Tensor,
    ) -> Tensor:  # [num_dst, F_out]
        """Return what the edges into each node reduce to; 0 where there are none.

        Args:
            x: Node features, or a pair for sources and destinations.
            edge_index: A `Graph`, an integer tensor [2, E], or a torch sparse matrix
                [num_dst, num_src].
        """
        graph, x_src, x_dst = as_ends("EdgeConv", x, edge_index)
        if x_dst is None or x_dst.shape[-1] != x_src.shape[-1]:
            raise ValueError(
                "EdgeConv: x must have features of one width for sources and destinations, got "
                f"{list(x_src.shape)} and {None if x_dst is None else list(x_dst.shape)}"
            )
        split = split_first_linear(self.nn)
        if split is None:
            own = sddmm(graph, x_dst, None, op="copy_lhs")  # [E, F]
            difference = sddmm(graph, x_src, x_dst, op="sub", targets=("src", "dst"))  # [E, F]
            return self._reduce(graph, self.nn(torch.cat([own, difference], -1)))

        linear, follow = split
        if linear.in_features != 2 * x_src.shape[-1]:
            raise ValueError(
                f"EdgeConv: x must have width {linear.in_features // 2}, half of what nn takes, "
                f"got {list(x_src.shape)}"
            )
        of_own, of_difference = linear.weight.chunk(2, dim=1)  # [H, F], [H, F]
        messages = Messages(
            graph,
            F.linear(x_src, of_difference),
            own=F.linear(x_dst, of_own - of_difference, linear.bias),
        )
        if not follow:
            return aggregate(self.aggr_module, messages)
        if not self._may_follow(follow):
            return self._reduce(graph, run_all(follow, messages.made()))
        out = run_all(follow, aggregate(self.aggr_module, messages))
        return torch.where(graph.in_degree[:, None] > 0, out, 0)

    def _reduce(self, graph: Graph, rows: Tensor) -> Tensor:
        return aggregate(self.aggr_module, Messages(graph, None, rows))

    def _may_follow(self, modules: list[nn.Module]) -> bool:
        """Whether the largest of what modules make is what they make of the largest."""
        return isinstance(self.aggr_module, MaxAggregation | MinAggregation) and all(
            type(module) in _NEVER_FALL
            or (type(module) is nn.LeakyReLU and module.negative_slope >= 0)
            for module in modules
        )

    def __repr__(self) -> str:
        """Return the network, e.g. `EdgeConv(nn=Linear(...))`."""
        return f"EdgeConv(nn={self.nn})"
