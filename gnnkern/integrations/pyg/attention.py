"""GAT, GATv2 and graph transformer layers of PyG by one op each: scores, softmax and sum fused.

A PyG layer is run by gnnkern's layer of the same name, which looks at the same parameters; nothing
of size edges x width is made but what edges bring themselves. Only for layers of exactly these
types, and where nobody looks at what lies between: hooks, explanations.

What is different: the dropout of weights draws from torch's generator in another way than PyG, and
there is one derivative; `patch_pyg("ops")` has the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules import module as torch_module

from gnnkern import nn
from gnnkern.graph import Graph
from gnnkern.integrations.pyg import report
from gnnkern.integrations.pyg.graph_cache import GraphCache
from gnnkern.integrations.pyg.ops import plain_index
from gnnkern.integrations.pyg.scope import in_force
from gnnkern.integrations.pyg.stepping_aside import observed, reason_against

__all__ = ["apply"]

LAYERS = ("GATConv", "GATv2Conv", "TransformerConv")


def apply(cache: GraphCache) -> Callable[[], None]:
    """Run the layers fused; what is returned undoes it."""
    import torch_geometric.nn

    patched = []
    for name in LAYERS:
        theirs = getattr(torch_geometric.nn, name)
        # A class that calls by itself: `forward` stays as it is, for TorchScript to compile.
        theirs.__call__ = _call(theirs, getattr(nn, name), cache)
        patched.append(theirs)

    def undo() -> None:
        for theirs in patched:
            del theirs.__call__

    return undo


def _call(theirs: Any, ours: Any, cache: GraphCache) -> Callable[..., Any]:
    name = theirs.__name__
    is_compiling = torch.compiler.is_compiling
    plain_call = torch.nn.Module.__call__

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if is_compiling() or type(self) is not theirs or not (in_force() or _is_blind(self)):
            return plain_call(self, *args, **kwargs)
        taken = _arguments(name, *args, **kwargs)
        why = observed() or _reason_against_layer(self)
        if why is None and taken is None:
            why = "arguments that PyG refuses"
        if why is None and taken is not None:
            why = _reason_against_input(self, *taken[:3])
            if why is None and taken[4] and self.training and self.dropout > 0:
                why = "attention weights, which would be drawn twice"
        if why is None and taken is not None:
            x, edge_index, edge_attr, size, wants_weights = taken
            try:
                out = _run(self, ours, cache, x, edge_index, edge_attr, size)
                report.accelerated(f"fused {name}")
                if not wants_weights:
                    return out
                # The weights are PyG's; the result is the same with them as without.
                return out, plain_call(self, *args, **kwargs)[1]
            except ValueError as error:
                why = "refused: " + str(error).split(",")[0]
        report.left(f"fused {name}", why or "")
        return plain_call(self, *args, **kwargs)

    return call


def _arguments(name: str, *args: Any, **kwargs: Any) -> tuple[Any, Any, Any, Any, bool] | None:
    """(x, edge_index, edge_attr, size, whether attention weights are asked for)."""
    names = ["x", "edge_index", "edge_attr", "return_attention_weights"]
    if name == "GATConv":
        names.insert(3, "size")
    if len(args) > len(names) or not set(kwargs) <= set(names[len(args) :]):
        return None
    given = dict(zip(names, args, strict=False)) | kwargs
    if not {"x", "edge_index"} <= set(given):
        return None
    asked = given.get("return_attention_weights")
    wants_weights = isinstance(asked, bool) if name == "TransformerConv" else bool(asked)
    return (
        given["x"],
        given["edge_index"],
        given.get("edge_attr"),
        given.get("size"),
        wants_weights,
    )


_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_propagate_forward_pre_hooks",
    "_propagate_forward_hooks",
    "_message_forward_pre_hooks",
    "_message_forward_hooks",
    "_aggregate_forward_pre_hooks",
    "_aggregate_forward_hooks",
    "_edge_update_forward_pre_hooks",
    "_edge_update_forward_hooks",
)
_GLOBAL_HOOKS = (
    "_global_forward_hooks",
    "_global_forward_pre_hooks",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
)


def _reason_against_layer(layer: Any) -> str | None:
    hooks = [hook for name in _HOOKS for hook in getattr(layer, name).values()]
    if layer.explain or not all(hasattr(hook, "is_blind") for hook in hooks):
        return "hooks, or an explanation"
    if any(getattr(torch_module, name) for name in _GLOBAL_HOOKS):
        return "hooks of all modules"
    # A method or function set on this one object replaces what its class does.
    own = {"forward", "propagate", "message", "edge_update", "aggregate", "update"}
    if own & (vars(layer).keys() - _set_by_pyg(layer)):
        return "methods of the layer's own"
    if layer.aggr not in ("add", "sum") or layer.flow != "source_to_target" or layer.node_dim != 0:
        return f"aggr={layer.aggr!r}, flow={layer.flow!r}, node_dim={layer.node_dim}"
    if type(layer.aggr_module).__name__ != "SumAggregation" or layer.decomposed_layers != 1:
        return "an aggregation of its own, or decomposed layers"
    return None


def _is_blind(layer: Any) -> bool:
    """Whether this layer alone was accelerated: its hooks look at nothing."""
    return any(hasattr(hook, "is_blind") for hook in layer._forward_pre_hooks.values())


def _set_by_pyg(layer: Any) -> set[str]:
    """PyG itself puts the generated `propagate` on an object, where it had been replaced."""
    propagate = vars(layer).get("propagate")
    generated = getattr(type(layer), "_jinja_propagate", None)
    is_generated = propagate is not None and getattr(propagate, "__func__", None) is generated
    return {"propagate"} if is_generated else set()


def _reason_against_input(layer: Any, x: Any, edge_index: Any, edge_attr: Any) -> str | None:
    parts = list(x) if isinstance(x, tuple | list) else [x]
    if len(parts) == 2 and parts[1] is None and type(layer).__name__ == "GATConv":
        parts = parts[:1]
    why = reason_against(*parts, *([] if edge_attr is None else [edge_attr]))
    if why is not None:
        return why
    if any(part.dim() != 2 for part in parts) or isinstance(x, list) or len(parts) > 2:
        return "features of other than two dimensions"
    if torch._C._is_any_autocast_enabled():
        return "autocast"
    index = plain_index(edge_index)
    if type(index) is not Tensor or index.layout != torch.strided or index.is_inference():
        return "no dense edge_index"
    if index.dtype not in (torch.int32, torch.int64) or index.dim() != 2 or index.shape[0] != 2:
        return "no edge_index of shape [2, E]"
    return None


def _run(
    layer: Any,
    ours: Any,
    cache: GraphCache,
    x: Any,
    edge_index: Tensor,
    edge_attr: Tensor | None,
    size: tuple[int, int] | None,
) -> Tensor:
    index = plain_index(edge_index)
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
