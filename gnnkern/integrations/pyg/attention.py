"""GAT, GATv2 and graph transformer layers of PyG by one op each: scores, softmax and sum fused.

A PyG layer is run by gnnkern's layer of the same name, which looks at the same parameters; nothing
of size edges x width is made but what edges bring themselves.

Under autocast scores and sums are of the autocast dtype, summed in float32, and the result has the
dtype of PyG's.

What is different: the dropout of weights draws from torch's generator in another way than PyG, and
there is one derivative; `patch_pyg("ops")` has the others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gnnkern import nn
from gnnkern.graph import Graph
from gnnkern.integrations.pyg.graph_cache import GraphCache
from gnnkern.integrations.pyg.scope import paused
from gnnkern.integrations.pyg.whole import (
    Refused,
    aggregation,
    arguments,
    check_edges,
    check_features,
    plain_call,
    replace_calls,
)

__all__ = ["apply"]

_OPTIONS = ("x", "edge_index", "edge_attr", "return_attention_weights")
_FORWARDS = {
    "GATConv": ("x", "edge_index", "edge_attr", "size", "return_attention_weights"),
    "GATv2Conv": _OPTIONS,
    "TransformerConv": _OPTIONS,
}


def apply(cache: GraphCache) -> list[Callable[[], None]]:
    """Run the layers fused; what is returned undoes it."""
    import torch_geometric.nn

    return [
        replace_calls(
            getattr(torch_geometric.nn, name), partial(_run, name, getattr(nn, name), cache)
        )
        for name in _FORWARDS
    ]


def _run(name: str, ours: Any, cache: GraphCache, layer: Any, *args: Any, **kwargs: Any) -> Any:
    given = arguments(_FORWARDS[name], {"x", "edge_index"}, args, kwargs)
    x, edge_attr, size = given["x"], given.get("edge_attr"), given.get("size")
    asked = given.get("return_attention_weights")
    wants_weights = isinstance(asked, bool) if name == "TransformerConv" else bool(asked)
    if aggregation(layer) != "sum":
        raise Refused(f"aggr={layer.aggr!r}")
    _check_features(name, x, edge_attr)
    index = check_edges(given["edge_index"])
    if wants_weights and layer.training and layer.dropout > 0:
        raise Refused("attention weights, which would be drawn twice")
    out = _forward(layer, ours, cache, x, index, edge_attr, size)
    if torch._C._is_any_autocast_enabled():
        out = out.to(_dtype_under_autocast(layer, index, x, edge_attr))
    if not wants_weights:
        return out
    # The weights are PyG's; the result is the same with them as without.
    return out, plain_call(layer, *args, **kwargs)[1]


def _check_features(name: str, x: Any, edge_attr: Any) -> None:
    parts = list(x) if isinstance(x, tuple | list) else [x]
    if len(parts) == 2 and parts[1] is None and name == "GATConv":
        parts = parts[:1]
    if isinstance(x, list) or len(parts) > 2:
        raise Refused("features of other than two dimensions")
    check_features(*parts)
    if edge_attr is not None:
        check_features(edge_attr if edge_attr.dim() == 2 else edge_attr.reshape(-1, 1))


def _forward(
    layer: Any,
    ours: Any,
    cache: GraphCache,
    x: Any,
    index: Tensor,
    edge_attr: Tensor | None,
    size: tuple[int, int] | None,
) -> Tensor:
    src, dst = x if isinstance(x, tuple) else (x, x)
    num_src, num_dst = size or (src.shape[0], (src if dst is None else dst).shape[0])
    width = layer.heads * layer.out_channels
    graph = cache.graph(index[1], index[0], num_dst, num_src, width)
    if graph is None:
        graph = Graph.from_edge_index(index, (num_src, num_dst))
    twin = ours.__new__(ours)
    # The same parameters, options and mode, under the same names.
    twin.__dict__ = layer.__dict__
    if size is not None:
        out: Tensor = twin.forward(x, graph, edge_attr, size)
    else:
        out = twin.forward(x, graph, edge_attr)
    return out


# By what decides it.
_dtypes: dict[Any, torch.dtype] = {}


def _dtype_under_autocast(
    layer: Any, index: Tensor, x: Any, edge_attr: Tensor | None
) -> torch.dtype:
    """The dtype that PyG's operations come to, found out once on a node with one edge."""
    parts = x if isinstance(x, tuple) else (x,)
    kind = index.device.type
    kinds = tuple(None if part is None else part.dtype for part in (*parts, edge_attr))
    weights = tuple(sorted({str(parameter.dtype) for parameter in layer.parameters()}))
    enabled = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    key = (type(layer), kind, enabled, kinds, weights)
    if key not in _dtypes:
        devices = [index.device] if index.is_cuda else []
        one = [None if part is None else part.new_zeros(1, part.shape[1]) for part in parts]
        attr = None if edge_attr is None else edge_attr.new_zeros(1, *edge_attr.shape[1:])
        loop = index.new_zeros(2, 1)
        with torch.no_grad(), torch.random.fork_rng(devices), paused():
            out = plain_call(layer, tuple(one) if isinstance(x, tuple) else one[0], loop, attr)
        _dtypes[key] = out.dtype
    return _dtypes[key]
