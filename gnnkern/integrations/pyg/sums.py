"""PyG's SAGEConv, GraphConv and GINConv as a whole: a map and a sum, the narrower one first.

A linear map of a sum or mean over neighbours is the sum or mean of what was mapped. Where a layer
narrows its features, what is gathered for every edge is narrower when they are mapped first. The
map of the node's own features is added where the result already lies.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
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
    is_watched,
    replace_calls,
)
from gnnkern.ops.spmm import spmm

__all__ = ["apply"]

_OF_ALL = ("x", "edge_index")


def apply(cache: GraphCache) -> list[Callable[[], None]]:
    """Run the layers fused; what is returned undoes it."""
    from torch_geometric import nn

    return [
        replace_calls(nn.SAGEConv, partial(_sage, cache)),
        replace_calls(nn.GraphConv, partial(_graph_conv, cache)),
        replace_calls(nn.GINConv, partial(_gin, cache)),
    ]


def _sage(cache: GraphCache, layer: Any, *args: Any, **kwargs: Any) -> Any:
    given = arguments((*_OF_ALL, "size"), set(_OF_ALL), args, kwargs)
    if _mode(layer) is None:
        return NotImplemented
    src, dst, graph = _inputs(cache, layer.lin_l, given)
    if layer.project:
        src = layer.lin(src).relu()
    out = _mapped(layer, graph, src, None, layer.lin_l)
    if layer.root_weight and dst is not None:
        out = _plus(out, dst, layer.lin_r)
    return F.normalize(out, p=2.0, dim=-1) if layer.normalize else out


def _graph_conv(cache: GraphCache, layer: Any, *args: Any, **kwargs: Any) -> Any:
    given = arguments((*_OF_ALL, "edge_weight", "size"), set(_OF_ALL), args, kwargs)
    if _mode(layer) is None:
        return NotImplemented
    weight = given.get("edge_weight")
    src, dst, graph = _inputs(cache, layer.lin_rel, given)
    if weight is not None:
        check_features(weight.reshape(-1, 1))
        if weight.numel() != graph.num_edges or weight.dtype != src.dtype:
            raise Refused("weights of another number, or of another dtype")
        weight = weight.reshape(-1)
    out = _mapped(layer, graph, src, weight, layer.lin_rel)
    return out if dst is None else _plus(out, dst, layer.lin_root)


def _gin(cache: GraphCache, layer: Any, *args: Any, **kwargs: Any) -> Any:
    given = arguments((*_OF_ALL, "size"), set(_OF_ALL), args, kwargs)
    inner: Any = layer.nn
    reduce = _mode(layer)
    if reduce is None or type(inner) is not torch.nn.Sequential or len(inner) == 0:
        return NotImplemented
    first = inner[0]
    if type(first) is not torch.nn.Linear or first.out_features >= first.in_features:
        return NotImplemented
    if is_watched(inner):
        return NotImplemented
    src, dst, graph = _inputs(cache, first, given)
    mapped = F.linear(src, first.weight)
    out = spmm(graph, mapped, reduce=reduce)
    if dst is not None:
        own = mapped if dst is src else F.linear(dst, first.weight)
        out = out + (1 + layer.eps) * own
    out = out if first.bias is None else out + first.bias
    for module in list(inner)[1:]:
        out = module(out)
    return out


def _mode(layer: Any) -> str | None:
    """The reduction of a layer where a map may go before it: "sum" or "mean"."""
    reduce = aggregation(layer)
    return reduce if reduce in ("sum", "mean") else None


def _inputs(
    cache: GraphCache, linear: Any, given: dict[str, Any]
) -> tuple[Tensor, Tensor | None, Graph]:
    """Features of sources and of destinations, and the graph."""
    x, size = given["x"], given.get("size")
    src, dst = x if isinstance(x, tuple) and len(x) == 2 else (x, x)
    check_features(src, *([] if dst is None else [dst]))
    check_plain_precision()
    if is_watched(linear):
        raise Refused("hooks inside")
    index = check_edges(given["edge_index"])
    num_src, num_dst = src.shape[0], None if dst is None else dst.shape[0]
    if size is not None and (size[0], num_dst or size[1]) != (num_src, size[1]):
        raise Refused("a size that PyG refuses")
    if size is not None:
        num_dst = size[1]
    if num_dst is None:
        raise Refused("an unknown number of nodes")
    graph = cache.graph(index[1], index[0], num_dst, num_src, src.shape[1])
    if graph is None:
        raise Refused("a graph met for the first time, and narrow messages")
    return src, dst, graph


def _mapped(layer: Any, graph: Graph, x: Tensor, weight: Tensor | None, linear: Any) -> Tensor:
    """`linear` of the reduction of x."""
    reduce = _mode(layer)
    assert reduce is not None
    if linear.out_channels >= x.shape[1] or linear.in_channels != x.shape[1]:
        return linear(spmm(graph, x, weight, reduce=reduce))  # type: ignore[no-any-return]
    out = spmm(graph, F.linear(x, linear.weight), weight, reduce=reduce)
    return out if linear.bias is None else out + linear.bias


def _plus(out: Tensor, x: Tensor, linear: Any) -> Tensor:
    """`out + linear(x)`, of a linear map without bias."""
    if is_watched(linear) or out.dtype != x.dtype or linear.in_channels != x.shape[1]:
        return out + linear(x)  # type: ignore[no-any-return]
    return torch.addmm(out, x, linear.weight.t())
