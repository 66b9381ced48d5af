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
    aggregation,
    arguments,
    check_edges,
    check_features,
    check_plain_precision,
    replace_calls,
)
from gnnkern.ops.spmm import spmm

__all__ = ["apply"]


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
    reduce = aggregation(layer)
    if reduce is None:
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
    check_plain_precision()
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
    key = (num_dst, x.shape[0], relations)
    by_source = layer.num_blocks is None and reduce != "max" and width_out < width_in
    graph, count = _graph(cache, index, edge_type, *key, by_source)
    # A factor of each edge: the gradient then divides no row of every relation.
    factor = count.to(x.dtype).reciprocal() if reduce == "mean" else None
    if by_source:
        mapped = x @ weight.transpose(0, 1).reshape(width_in, relations * width_out)
        return spmm(graph, mapped.view(-1, width_out), factor)
    rows = spmm(graph, x, factor, reduce="max" if reduce == "max" else "sum")
    out: Tensor
    if layer.num_blocks is None:
        out = rows.view(num_dst, -1) @ weight.reshape(-1, width_out)
        return out
    rows = rows.view(num_dst, relations, layer.num_blocks, -1)  # of [num_dst * R, F_in]
    out = torch.einsum("nrbi,rbio->nbo", rows, weight).reshape(num_dst, width_out)
    return out


def _graph(
    cache: GraphCache,
    index: Tensor,
    edge_type: Tensor,
    num_dst: int,
    num_src: int,
    relations: int,
    by_source: bool,
) -> tuple[Graph, Tensor]:
    """The graph, and how many edges each edge shares its destination and type with, [E].

    Edges lead from `src * R + type` to the destination, or from the source to `dst * R + type`.
    """

    def build() -> tuple[Graph, Tensor]:
        src, dst, kind = index[0].long(), index[1].long(), edge_type.long()
        for numbers, count in ((src, num_src), (dst, num_dst), (kind, relations)):
            _check_range(numbers, count)
        group = dst * relations + kind
        ends = (src * relations + kind, dst) if by_source else (src, group)
        wide, narrow = (relations, 1) if by_source else (1, relations)
        graph = Graph.from_edge_index(torch.stack(ends), (num_src * wide, num_dst * narrow))
        return graph, torch.bincount(group, minlength=num_dst * relations)[group]

    key = ("relations", by_source, num_dst, num_src, relations)
    return cache.remember(key, (index, edge_type), build)  # type: ignore[no-any-return]


def _check_range(numbers: Tensor, count: int) -> None:
    if numbers.numel() and not 0 <= int(numbers.min()) <= int(numbers.max()) < count:
        raise Refused("nodes or types that do not exist")
