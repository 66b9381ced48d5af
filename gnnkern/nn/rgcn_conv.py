"""Relational graph convolution: the neighbours by every relation are reduced and mapped alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gnnkern.graph import Graph
from gnnkern.nn.inputs import as_graph
from gnnkern.nn.linear import glorot_
from gnnkern.ops.gather_matmul import gather_matmul
from gnnkern.ops.segment_matmul import segment_matmul
from gnnkern.ops.spmm import spmm
from gnnkern.relations import Relations

_REDUCE = {"mean": "mean", "add": "sum", "sum": "sum", "max": "max", "min": "min"}


class RGCNConv(nn.Module):
    """`out[v] = root x[v] + bias + sum over relations r of W_r (mean over r-edges (u, v) of x[u])`.

    Constructor, `forward` and `state_dict` (`weight`, `comp` with `num_bases`, `root`, `bias`) are
    those of PyG's layer of the same name.

    Neighbours are reduced to the pairs of a relation and a destination that occur, and one grouped
    product maps these, at most as many rows as edges. Where there are fewer pairs of a relation
    and a source, a mean or sum maps those first, and then reduces them; that is found out for
    `Relations`, which are made once. Either way three ops, whatever the number of relations.

    Ops: `spmm`, `segment_matmul` (`gather_matmul` of blocks), `spmm`.

    Args:
        in_channels: Input width, or a pair of widths for sources and destinations; without
            features, the number of nodes.
        out_channels: Output width.
        num_relations: Number of relations.
        num_bases: The matrix of each relation is a learned mixture of this many; None: its own.
        num_blocks: The matrix of each relation has this many blocks along its diagonal, and 0
            elsewhere; None: one.
        aggr: "mean", "sum" (or "add"), "max" or "min" over the edges of each relation.
        root_weight: Whether to add the map of the node's own features.
        is_sorted: Whether `edge_type` is sorted; here that makes no difference.
        bias: Whether to add a learnable bias.

    Source: Schlichtkrull et al., "Modeling relational data with graph convolutional networks",
    2018.
    """

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        num_relations: int,
        num_bases: int | None = None,
        num_blocks: int | None = None,
        aggr: str = "mean",
        root_weight: bool = True,
        is_sorted: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if aggr not in _REDUCE:
            raise ValueError(f"RGCNConv: aggr must be one of {', '.join(_REDUCE)}, got {aggr!r}")
        if num_bases is not None and num_blocks is not None:
            raise ValueError("RGCNConv: num_bases and num_blocks exclude each other, got both")
        src, dst = (in_channels, in_channels) if isinstance(in_channels, int) else in_channels
        for name, width in (("in_channels", src), ("out_channels", out_channels)):
            if num_blocks is not None and width % num_blocks:
                raise ValueError(
                    f"RGCNConv: {name} must be a multiple of num_blocks={num_blocks}, got {width}"
                )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_relations = num_relations
        self.num_bases = num_bases
        self.num_blocks = num_blocks
        self.aggr = aggr
        self.is_sorted = is_sorted
        self.in_channels_l = src

        blocks = num_blocks or 1
        shape = (src // blocks, out_channels // blocks)
        self.comp: nn.Parameter | None = None
        if num_bases is not None:
            self.weight = nn.Parameter(torch.empty(num_bases, *shape))
            self.comp = nn.Parameter(torch.empty(num_relations, num_bases))
        elif num_blocks is not None:
            self.weight = nn.Parameter(torch.empty(num_relations, num_blocks, *shape))
        else:
            self.weight = nn.Parameter(torch.empty(num_relations, *shape))
        self.root = nn.Parameter(torch.empty(dst, out_channels)) if root_weight else None
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights again and zero the bias."""
        for weight in (self.weight, self.comp, self.root):
            if weight is not None:
                glorot_(weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(
        self,
        # [N, F], or ([num_src, F_s], [num_dst, F_d])
        x: Tensor | tuple[Tensor | None, Tensor] | None,
        edge_index: Graph | Relations | Tensor,
        edge_type: Tensor | None = None,  # [E]
    ) -> Tensor:  # [num_dst, out_channels]
        """Return the convolved features.

        Args:
            x: Node features, or a pair for sources and destinations; or [N] int64 rows of the
                matrices, as embeddings of nodes without features; None: row u for node u.
            edge_index: A `Graph`, an integer tensor [2, E], a torch sparse matrix
                [num_dst, num_src], or the `Relations` of a graph.
            edge_type: Relation of each edge, in the caller's edge order; not used beside
                `Relations`.
        """
        x_src, x_dst = x if isinstance(x, tuple) else (x, x)
        if x_src is None:
            x_src = torch.arange(self.in_channels_l, device=self.weight.device)
        if x_dst is None:
            x_dst = x_src
        relations = self._relations(edge_index, edge_type, x_src, x_dst)
        if x_src.is_floating_point():
            kept = relations is edge_index and _REDUCE[self.aggr] in ("mean", "sum")
            kept = kept and relations.graph.is_whole
            if kept and relations.by_source.num_pairs < relations.num_pairs:
                out = self._map_first(relations, x_src)
            else:
                reduced = spmm(relations.gather, x_src, reduce=_REDUCE[self.aggr])  # [P, F]
                out = spmm(relations.merge, self._map(relations, reduced))
        else:
            out = self._embed(relations, x_src)
        if self.root is not None:
            own = x_dst @ self.root if x_dst.is_floating_point() else self.root[x_dst]
            out = out + own
        return out if self.bias is None else out + self.bias

    def _relations(
        self,
        edge_index: Graph | Relations | Tensor,
        edge_type: Tensor | None,
        x_src: Tensor,
        x_dst: Tensor,
    ) -> Relations:
        if not isinstance(edge_index, Relations):
            if edge_type is None:
                raise ValueError("RGCNConv: edge_type must be given beside edge_index, got None")
            graph = as_graph(edge_index, x_src.shape[0], x_dst.shape[0])
            return Relations.of(graph, edge_type, self.num_relations)
        if edge_index.num_relations != self.num_relations:
            raise ValueError(
                f"RGCNConv: edge_index must have num_relations={self.num_relations}, got "
                f"{edge_index.num_relations}"
            )
        return edge_index

    def _map_first(self, relations: Relations, x: Tensor) -> Tensor:  # [num_dst, out_channels]
        sources = relations.by_source
        mapped = self._map(sources, spmm(sources.merge.reverse, x))  # [P, out_channels]
        share = relations.share.to(x.dtype) if self.aggr == "mean" else None
        return spmm(sources.gather.reverse, mapped, share)

    def _map(self, pairs: Relations, x: Tensor) -> Tensor:  # [P, F] -> [P, out_channels]
        """Return every pair's row times the matrix of its relation."""
        blocks = self.num_blocks
        if blocks is None:
            return segment_matmul(x, pairs.indptr, self._matrices())
        types = pairs.pair_type[:, None] * blocks + torch.arange(blocks, device=x.device)
        rows = x.reshape(-1, x.shape[1] // blocks)  # [P * blocks, F / blocks]
        return gather_matmul(rows, self.weight.flatten(0, 1), types.flatten()).view(
            -1, self.out_channels
        )

    def _matrices(self) -> Tensor:  # [R, in, out]
        if self.comp is None:
            return self.weight
        return (self.comp @ self.weight.flatten(1)).view(-1, *self.weight.shape[1:])

    def _embed(self, relations: Relations, ids: Tensor) -> Tensor:  # [num_dst, out_channels]
        """Return what the rows that nodes name in the matrices of the edges' relations give."""
        if self.num_blocks is not None:
            raise ValueError("RGCNConv: num_blocks needs x to be features, got node ids")
        rows = self._matrices().flatten(0, 1)  # [R * in, out]
        graph = relations.graph
        ids = graph.at_sources(ids).index_select(0, graph.edge_index[0])  # [E]
        row = relations.edge_type * self.in_channels_l + ids
        gather = relations.gather
        pair = gather.edge_index[1]
        table = Graph.from_edge_index(torch.stack([row, pair]), (rows.shape[0], gather.num_dst))
        return spmm(relations.merge, spmm(table, rows, reduce=_REDUCE[self.aggr]))

    def __repr__(self) -> str:
        """Return e.g. `RGCNConv(16, 32, num_relations=4)`."""
        return (
            f"RGCNConv({self.in_channels}, {self.out_channels}, num_relations={self.num_relations})"
        )
