"""PyG's PNAConv as a whole, where its messages are linear in what lies at both ends.

A message is `a_i + b_j`, with a and b made at the nodes. So an edge costs one row of b for all
aggregations, and the node's own part is added to what they give. What follows is linear again, and
a scaler is a factor of each node: it goes behind the map, where rows are narrow, and the
[N, scalers x aggregations x F] that PyG maps is not made.

    PNAConv(x) = lin(post(x, s_1 r, s_2 r, ...))        r = aggregations of a_i + b_j
               = lin(W x + s_1 (W_1 r) + s_2 (W_2 r))

Edge features, and maps of several layers before the aggregation, take the general way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gnnkern.graph import Graph
from gnnkern.integrations.pyg.graph_cache import GraphCache
from gnnkern.integrations.pyg.several import LEAST_VARIANCE, reductions
from gnnkern.integrations.pyg.whole import (
    Refused,
    arguments,
    check_edges,
    check_features,
    check_plain_precision,
    is_watched,
    replace_calls,
)
from gnnkern.ops.multi_reduce import multi_reduce

__all__ = ["apply"]


def apply(cache: GraphCache) -> list[Callable[[], None]]:
    """Run the layer fused; what is returned undoes it."""
    from torch_geometric.nn import PNAConv

    return [replace_calls(PNAConv, partial(_run, cache))]


def _run(cache: GraphCache, layer: Any, *args: Any, **kwargs: Any) -> Tensor:
    given = arguments(("x", "edge_index", "edge_attr"), {"x", "edge_index"}, args, kwargs)
    x = given["x"]
    check_features(x)
    index = check_edges(given["edge_index"])
    if given.get("edge_attr") is not None or layer.edge_dim is not None:
        raise Refused("edge features")
    check_plain_precision()
    reduces = _check_modules(layer)
    num_nodes, width = x.shape[0], layer.towers * layer.F_in
    if x.shape[1] != (width if layer.divide_input else layer.F_in):
        raise Refused("features of another width")
    graph = cache.graph(index[1], index[0], num_nodes, num_nodes, width * len(reduces))
    if graph is None:
        graph = Graph.from_edge_index(index, num_nodes)
    towers = x.view(num_nodes, layer.towers, -1).unbind(1) if layer.divide_input else None
    own, other = _ends(layer, x, towers)
    rows = multi_reduce(graph, other, reduces=reduces)  # [N, K, T * F]
    degree = graph.in_degree
    rows = _WithOwn.apply(rows, own, degree, reduces)
    rows = rows.view(num_nodes, len(reduces), layer.towers, layer.F_in)
    scales = _scales(layer.aggr_module, degree.to(x.dtype))
    outs = []
    for tower, post in enumerate(layer.post_nns):
        of_tower = rows[:, :, tower].reshape(num_nodes, -1)  # [N, K * F]
        out = _scaled_map(post[0], x if towers is None else towers[tower], of_tower, scales)
        for module in post[1:]:
            out = module(out)
        outs.append(out)
    joined = outs[0] if len(outs) == 1 else torch.cat(outs, 1)
    return layer.lin(joined)  # type: ignore[no-any-return]


def _check_modules(layer: Any) -> tuple[str, ...]:
    """The reductions of the layer; raises `Refused` where a part of it is not PyG's own."""
    from torch_geometric.nn import Linear
    from torch_geometric.nn.aggr import DegreeScalerAggregation, MultiAggregation

    scaler = layer.aggr_module
    if type(scaler) is not DegreeScalerAggregation or type(scaler.aggr) is not MultiAggregation:
        raise Refused("aggregations of other types")
    reduces = reductions(scaler.aggr)
    if reduces is None or scaler.aggr.mode != "cat":
        raise Refused("aggregations of other types")
    inner = [scaler, scaler.aggr, *layer.pre_nns, *layer.post_nns]
    firsts = [nn[0] for nn in (*layer.pre_nns, *layer.post_nns)]
    if any(map(is_watched, inner + firsts)):
        raise Refused("hooks inside")
    if any(type(first) is not Linear for first in firsts):
        raise Refused("modules of other types")
    if any(len(nn) != 1 for nn in layer.pre_nns):
        raise Refused("several layers before the aggregation")
    return tuple(reduces.values())


def _ends(layer: Any, x: Tensor, towers: tuple[Tensor, ...] | None) -> tuple[Tensor, Tensor]:
    """What a message has of the node and of its neighbour, of all towers: both [N, T * F]."""
    maps = [nn[0] for nn in layer.pre_nns]
    width = layer.F_in
    if towers is None:
        weight = maps[0].weight if len(maps) == 1 else torch.cat([m.weight for m in maps])
        bias = maps[0].bias if len(maps) == 1 else torch.cat([m.bias for m in maps])
        return F.linear(x, weight[:, :width], bias), F.linear(x, weight[:, width:])
    pairs = list(zip(towers, maps, strict=True))
    own = [F.linear(part, m.weight[:, :width], m.bias) for part, m in pairs]
    other = [F.linear(part, m.weight[:, width:]) for part, m in pairs]
    return torch.cat(own, 1), torch.cat(other, 1)


def _scales(scaler: Any, degree: Tensor) -> list[Tensor | None]:
    """The factor of each node for every scaler, [N, 1]; None: 1."""
    degree = degree.unsqueeze(1)
    scales: dict[str, Callable[[], Tensor | None]] = {
        "identity": lambda: None,
        "amplification": lambda: torch.log(degree + 1) / scaler.avg_deg_log,
        "attenuation": lambda: scaler.avg_deg_log / torch.log(degree.clamp(min=1) + 1),
        "linear": lambda: degree / scaler.avg_deg_lin,
        "inverse_linear": lambda: scaler.avg_deg_lin / degree.clamp(min=1),
    }
    if not set(scaler.scaler) <= set(scales):
        raise Refused("scalers that PyG refuses")
    return [scales[name]() for name in scaler.scaler]


def _scaled_map(
    linear: Any,
    x: Tensor,  # [N, F]
    rows: Tensor,  # [N, K * F]
    scales: list[Tensor | None],
) -> Tensor:  # [N, F_out]
    """`linear` of x and, side by side, rows times each scale."""
    of_x, *of_rows = linear.weight.split([x.shape[1], *[rows.shape[1]] * len(scales)], 1)
    out: Tensor = F.linear(x, of_x, linear.bias)
    for mapped, scale in zip(
        F.linear(rows, torch.cat(of_rows)).chunk(len(scales), 1), scales, strict=True
    ):
        out = out + mapped if scale is None else torch.addcmul(out, mapped, scale)
    return out


class _WithOwn(torch.autograd.Function):
    """Reductions of `own + other`, from those of `other`, and PyG's least deviation.

    The gradient of own is that of the extremes and means together, and of the sum as often as the
    node has edges; of a deviation below the least there is none.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,  # [N, K, F]
        own: Tensor,  # [N, F]
        degree: Tensor,  # [N]
        reduces: tuple[str, ...],
    ) -> Tensor:
        out = rows.clone()
        factor = degree.to(own.dtype).unsqueeze(1)
        present = (degree > 0).to(own.dtype).unsqueeze(1)
        large = None
        for k, reduce in enumerate(reduces):
            if reduce == "std":
                large = rows[:, k] > math.sqrt(LEAST_VARIANCE)
                out[:, k] *= large
            elif reduce != "var":
                out[:, k].addcmul_(own, factor if reduce == "sum" else present)
        ctx.save_for_backward(factor, present, *([] if large is None else [large]))
        ctx.reduces = reduces
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        factor, present, *large = ctx.saved_tensors
        grad_own = grad.new_zeros(grad.shape[0], grad.shape[2])
        grad_rows = grad
        for k, reduce in enumerate(ctx.reduces):
            if reduce == "std":
                grad_rows = grad.clone()
                grad_rows[:, k] *= large[0]
            elif reduce != "var":
                grad_own.addcmul_(grad[:, k], factor if reduce == "sum" else present)
        return grad_rows, grad_own, None, None
