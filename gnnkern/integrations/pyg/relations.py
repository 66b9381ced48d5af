"""PyG's RGCNConv as a whole: one reduction for all relations, and one product.

    reduced first     x_j of the edges of relation r into v, in row (v, r); then rows times W
    mapped first      x W_r for every node and relation; then rows of sources (u, r) into v

Whichever makes the narrower rows, [N * R, F_in] or [N * R, F_out], where the aggregation allows.
PyG picks the edges of one relation after the other and aggregates and multiplies each by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gnnkern.graph import Graph
from gnnkern.integrations.pyg.graph_cache import GraphCache
from gnnkern.integrations.pyg.whole import (
    Refused,
    arguments,
    check_edges,
    check_features,
    replace_calls,
)
from gnnkern.ops.spmm import spmm

__all__ = ["apply"]

_AGGREGATIONS = {
    "add": ("sum", "SumAggregation"),
    "sum": ("sum", "SumAggregation"),
    "mean": ("mean", "MeanAggregation"),
    "max": ("max", "MaxAggregation"),
}


def apply(cache: GraphCache) -> list[Callable[[], None]]:
    """Run the layer fused; what is returned undoes it."""
    from torch_geometric.nn import RGCNConv

    return [replace_calls(RGCNConv, partial(_run, cache))]


def _run(cache: GraphCache, layer: Any, *args: Any, **kwargs: Any) -> Tensor:
    given = arguments(("x", "edge_index", "edge_type"), {"x", "edge_index"}, args, kwargs)
    x: Any = given["x"]
    edge_type: Any = given.get("edge_type")
    src, dst = x if isinstance(x, tuple) and len(x) == 2 else (x, x)
    check_features(src, dst)
    index = check_edges(given["edge_index"])
    reduce, module = _AGGREGATIONS.get(layer.aggr, ("", ""))
    if type(layer.aggr_module).__name__ != module:
        raise Refused(f"aggr={layer.aggr!r}")
    _check_types(layer, src, dst, index, edge_type)
    out = _sum_over_relations(cache, layer, src, dst.shape[0], index, edge_type, reduce)
    if layer.root is not None:
        out = torch.addmm(out, dst, layer.root)
    return out if layer.bias is None else out + layer.bias


def _check_types(layer: Any, src: Tensor, dst: Tensor, index: Tensor, edge_type: Any) -> None:
    if not isinstance(edge_type, Tensor) or type(edge_type) is not Tensor:
        raise Refused("no edge_type")
    if edge_type.dtype not in (torch.int32, torch.int64) or edge_type.shape != index.shape[1:]:
        raise Refused("no edge_type of shape [E]")
    if edge_type.is_inference() or edge_type.device != index.device:
        raise Refused("an edge_type of another device, or made in inference mode")
    # PyG adds to zeros of the default dtype.
    if not src.dtype == dst.dtype == layer.weight.dtype:
        raise Refused("features and weights of different dtypes")
    if torch.promote_types(src.dtype, torch.get_default_dtype()) != src.dtype:
        raise Refused(f"features of {src.dtype}, whose result is wider")
    if torch._C._is_any_autocast_enabled():
        raise Refused("autocast")
    from torch_geometric import backend, typing

    by_segments = typing.WITH_SEGMM and layer.num_bases is None and layer.num_blocks is None
    if by_segments and backend.use_segment_matmul is not False:
        raise Refused("products by segment, where PyG finds them faster")


def _sum_over_relations(
    cache: GraphCache,
    layer: Any,
    x: Tensor,  # [num_src, F_in]
    num_dst: int,
    index: Tensor,  # [2, E]
    edge_type: Tensor,  # [E]
    reduce: str,
) -> Tensor:  # [num_dst, F_out]
    relations, weight = layer.num_relations, layer.weight
    if layer.num_bases is not None:
        weight = (layer.comp @ weight.flatten(1)).view(relations, -1, layer.out_channels)
    width_in, width_out = x.shape[1], layer.out_channels
    if layer.num_blocks is None and weight.shape[1] != width_in:
        raise Refused("features of another width")
    if layer.num_blocks is None and reduce != "max" and width_out < width_in:
        graph, count = _graph_by_source(cache, index, edge_type, num_dst, x.shape[0], relations)
        mapped = x @ weight.transpose(0, 1).reshape(width_in, relations * width_out)
        factor = count.to(x.dtype).reciprocal() if reduce == "mean" else None
        return spmm(graph, mapped.view(-1, width_out), factor)
    graph = _graph_by_row(cache, index, edge_type, num_dst, x.shape[0], relations)
    rows = spmm(graph, x, reduce=reduce)  # [num_dst * R, F_in]
    if layer.num_blocks is None:
        return rows.view(num_dst, -1) @ weight.reshape(-1, width_out)
    rows = rows.view(num_dst, relations, layer.num_blocks, -1)
    out: Tensor = torch.einsum("nrbi,rbio->nbo", rows, weight)
    return out.reshape(num_dst, width_out)


def _of_relations(
    index: Tensor, edge_type: Tensor, relations: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Sources, destinations and types of the edges that are of any relation, as PyG takes them."""
    known = (edge_type >= 0) & (edge_type < relations)
    src, dst, kind = index[0].long(), index[1].long(), edge_type.long()
    if bool(known.all()):
        return src, dst, kind
    return src[known], dst[known], kind[known]


def _graph_by_row(
    cache: GraphCache, index: Tensor, edge_type: Tensor, num_dst: int, num_src: int, relations: int
) -> Graph:
    """Edges into row `dst * R + type`."""

    def build() -> Graph:
        src, dst, kind = _of_relations(index, edge_type, relations)
        _check_nodes(dst, num_dst)
        rows = dst * relations + kind
        return Graph.from_edge_index(torch.stack((src, rows)), (num_src, num_dst * relations))

    key = ("relations by row", num_dst, num_src, relations)
    return cache.remember(key, (index, edge_type), build)  # type: ignore[no-any-return]


def _graph_by_source(
    cache: GraphCache, index: Tensor, edge_type: Tensor, num_dst: int, num_src: int, relations: int
) -> tuple[Graph, Tensor]:
    """Edges from row `src * R + type`, and of how many each is of its node and type, [E]."""

    def build() -> tuple[Graph, Tensor]:
        src, dst, kind = _of_relations(index, edge_type, relations)
        _check_nodes(dst, num_dst)
        _check_nodes(src, num_src)
        rows = src * relations + kind
        graph = Graph.from_edge_index(torch.stack((rows, dst)), (num_src * relations, num_dst))
        group = dst * relations + kind
        count = torch.bincount(group, minlength=num_dst * relations)[group]
        return graph, count

    key = ("relations by source", num_dst, num_src, relations)
    return cache.remember(key, (index, edge_type), build)  # type: ignore[no-any-return]


def _check_nodes(nodes: Tensor, count: int) -> None:
    if nodes.numel() and not 0 <= int(nodes.min()) <= int(nodes.max()) < count:
        raise Refused("nodes that do not exist")
