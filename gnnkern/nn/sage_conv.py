"""GraphSAGE: a linear map of what the neighbours reduce to, plus one of the node itself."""

import torch.nn.functional as F
from torch import Tensor, nn

from gnnkern.graph import Graph
from gnnkern.nn.inputs import as_graph
from gnnkern.nn.linear import make_linear
from gnnkern.ops.spmm import spmm

_REDUCE = {"mean": "mean", "sum": "sum", "add": "sum", "max": "max", "min": "min"}


class SAGEConv(nn.Module):
    """`out[v] = W_l reduce over edges (u, v) of x[u] + bias + W_r x[v]`.

    Constructor, `forward` and `state_dict` (`lin_l.weight`, `lin_l.bias`, `lin_r.weight`, and
    `lin.*` with `project`) are those of PyG's layer of the same name.

    A mean and a sum commute with `W_l`: where that makes the rows narrower, it is applied before
    the edges are walked. A node without in-edges reduces to 0. The values of a sparse matrix
    given as `edge_index` are ignored.

    Args:
        in_channels: Input width, or a pair of widths for sources and destinations; -1 takes the
            width of the first input.
        out_channels: Output width.
        aggr: "mean", "sum" (or "add"), "max" or "min".
        normalize: Scale each output row to length 1.
        root_weight: Whether to add `W_r x[v]`.
        project: Replace x[u] by `relu(W x[u] + b)` first.
        bias: Whether `lin_l` has a bias.

    Source: Hamilton, Ying and Leskovec, "Inductive representation learning on large graphs", 2017.
    """

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        aggr: str = "mean",
        normalize: bool = False,
        root_weight: bool = True,
        project: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(aggr, str) or aggr not in _REDUCE:
            raise ValueError(f"SAGEConv: aggr must be one of {', '.join(_REDUCE)}, got {aggr!r}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.aggr = aggr
        self.normalize = normalize
        self.root_weight = root_weight
        self.project = project
        src, dst = (in_channels, in_channels) if isinstance(in_channels, int) else in_channels
        if project:
            if src <= 0:
                raise ValueError(f"SAGEConv: project=True needs in_channels > 0, got {src}")
            self.lin = make_linear(src, src, bias=True)
        self.lin_l = make_linear(src, out_channels, bias=bias)
        if root_weight:
            self.lin_r = make_linear(dst, out_channels, bias=False)

    def reset_parameters(self) -> None:
        """Draw all weights again."""
        if self.project:
            self.lin.reset_parameters()
        self.lin_l.reset_parameters()
        if self.root_weight:
            self.lin_r.reset_parameters()

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
        x_src, x_dst = (x, x) if isinstance(x, Tensor) else x
        num_dst = x_src.shape[0] if x_dst is None else x_dst.shape[0]
        graph = as_graph(edge_index, *(size or (x_src.shape[0], num_dst)))
        if x_dst is not None and x_dst.shape[0] != graph.num_dst:
            raise ValueError(
                f"SAGEConv: x of the destinations must have shape [num_dst={graph.num_dst}, F], "
                f"got {list(x_dst.shape)}"
            )
        if self.project:
            x_src = self.lin(x_src).relu()
        out = self._aggregate(graph, x_src)  # [num_dst, out_channels]
        if self.root_weight and x_dst is not None:
            out = out + self.lin_r(x_dst)
        return F.normalize(out, p=2.0, dim=-1) if self.normalize else out

    def _aggregate(self, graph: Graph, x_src: Tensor) -> Tensor:
        reduce = _REDUCE[self.aggr]
        if reduce not in ("mean", "sum") or x_src.shape[-1] <= self.out_channels:
            return self.lin_l(spmm(graph, x_src, reduce=reduce))  # type: ignore[no-any-return]
        if nn.parameter.is_lazy(self.lin_l.weight):
            self.lin_l(x_src[:0])
        out = spmm(graph, F.linear(x_src, self.lin_l.weight), reduce=reduce)
        return out if self.lin_l.bias is None else out + self.lin_l.bias

    def __repr__(self) -> str:
        """Return e.g. `SAGEConv(16, 32, aggr=mean)`."""
        return f"SAGEConv({self.in_channels}, {self.out_channels}, aggr={self.aggr})"
