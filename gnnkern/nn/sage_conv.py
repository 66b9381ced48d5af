"""GraphSAGE: a linear map of what the neighbours reduce to, plus one of the node itself."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from gnnkern.graph import Graph
from gnnkern.nn.inputs import as_ends
from gnnkern.nn.linear import make_linear
from gnnkern.nn.multi_aggregation import (
    Aggr,
    AggregatingLayer,
    MultiAggregation,
    aggregate_mapped,
)
from gnnkern.nn.rows import Messages


class SAGEConv(AggregatingLayer):
    """`out[v] = W_l reduce over edges (u, v) of x[u] + bias + W_r x[v]`.

    Constructor, `forward` and `state_dict` (`lin_l.weight`, `lin_l.bias`, `lin_r.weight`, `lin.*`
    with `project`, and `aggr_module.*` where the aggregation has parameters) are those of PyG's
    layer of the same name. GraphSAGE's pooling is `aggr="max", project=True`.

    A mean and a sum commute with `W_l`: where that makes the rows narrower, it is applied before
    the edges are walked. A node without in-edges reduces to 0 (1 for "mul"; what its LSTM makes of
    rows of 0 for "lstm"). Several aggregations are one op. The values of a sparse matrix given as
    `edge_index` are ignored.

    Ops: one `spmm`; for several aggregations one `multi_reduce`.

    Args:
        in_channels: Input width, or a pair of widths for sources and destinations; -1 takes the
            width of the first input.
        out_channels: Output width.
        aggr: "mean", "sum" (or "add"), "max", "min", "mul", "var", "std", "softmax", "lstm" (over
            the neighbours in the order of the edges), an aggregation, or a list of these.
        normalize: Scale each output row to length 1.
        root_weight: Whether to add `W_r x[v]`.
        project: Replace x[u] by `relu(W x[u] + b)` first.
        bias: Whether `lin_l` has a bias.
        aggr_kwargs: Arguments of an aggregation that is given by name.

    Source: Hamilton, Ying and Leskovec, "Inductive representation learning on large graphs", 2017.
    """

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        aggr: Aggr = "mean",
        normalize: bool = False,
        root_weight: bool = True,
        project: bool = False,
        bias: bool = True,
        *,
        aggr_kwargs: dict[str, Any] | None = None,
    ) -> None:
        src, dst = (in_channels, in_channels) if isinstance(in_channels, int) else in_channels
        options = aggr_kwargs or {}
        if isinstance(aggr, str) and aggr == "lstm":
            options = {"in_channels": src, "out_channels": src, **options}
        super().__init__(aggr, **options)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.normalize = normalize
        self.root_weight = root_weight
        self.project = project
        if project:
            if src <= 0:
                raise ValueError(f"SAGEConv: project=True needs in_channels > 0, got {src}")
            self.lin = make_linear(src, src, bias=True)
        width = src
        if src > 0 and isinstance(self.aggr_module, MultiAggregation):
            width = self.aggr_module.get_out_channels(src)
        self.lin_l = make_linear(width, out_channels, bias=bias)
        if root_weight:
            self.lin_r = make_linear(dst, out_channels, bias=False)

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor | None],  # [N, F], or ([num_src, F_s], [num_dst, F_d])
        edge_index: Graph | Tensor,
        size: tuple[int, int] | None = None,
    ) -> Tensor:  # [num_dst, out_channels]
        """Return the convolved features.

        Args:
            x: Node features, or a pair for sources and destinations. The second may be None: its
                term is then left out.
            edge_index: A `Graph`, an integer tensor [2, E], or a torch sparse matrix
                [num_dst, num_src].
            size: (num_src, num_dst), where x does not tell.
        """
        graph, x_src, x_dst = as_ends("SAGEConv", x, edge_index, size)
        if self.project:
            x_src = self.lin(x_src).relu()
        out = aggregate_mapped(self.aggr_module, Messages(graph, x_src), self.lin_l)
        if self.root_weight and x_dst is not None:
            out = out + self.lin_r(x_dst)
        return F.normalize(out, p=2.0, dim=-1) if self.normalize else out

    def __repr__(self) -> str:
        """Return e.g. `SAGEConv(16, 32, aggr=mean)`."""
        return f"SAGEConv({self.in_channels}, {self.out_channels}, aggr={self.aggr})"
