"""A layer of PyG run as a whole by something else, where nobody looks at what lies inside.

Only layers of exactly a given type: what derives from it may have changed anything. A layer that is
watched (hooks, explanations), changed (methods of its own) or aggregates otherwise stays PyG's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules import module as torch_module

from gnnkern.integrations.pyg import report
from gnnkern.integrations.pyg.ops import plain_index
from gnnkern.integrations.pyg.scope import in_force
from gnnkern.integrations.pyg.stepping_aside import observed, reason_against

__all__ = [
    "Refused",
    "aggregation",
    "arguments",
    "check_edges",
    "check_features",
    "check_plain_precision",
    "is_watched",
    "plain_call",
    "replace_calls",
]

plain_call = torch.nn.Module.__call__


class Refused(Exception):
    """Why a layer is left to PyG."""


def replace_calls(theirs: Any, run: Callable[..., Any]) -> Callable[[], None]:
    """Have `run(layer, ...)` stand for calls of a layer of this type; what is returned undoes it.

    `run` raises `Refused`, or a ValueError of the kernels, where PyG is to do it; NotImplemented is
    for layers whose parts alone are patched.
    """
    name = theirs.__name__
    is_compiling = torch.compiler.is_compiling

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if is_compiling() or type(self) is not theirs or not (in_force() or _is_blind(self)):
            return plain_call(self, *args, **kwargs)
        why = observed() or _reason_against_layer(self)
        if why is None:
            try:
                out = run(self, *args, **kwargs)
            except Refused as refused:
                why = str(refused)
            except ValueError as error:
                why = "refused: " + str(error).split(",")[0]
            else:
                if out is NotImplemented:
                    return plain_call(self, *args, **kwargs)
                report.accelerated(f"fused {name}")
                return out
        report.left(f"fused {name}", why)
        return plain_call(self, *args, **kwargs)

    # A class that calls by itself: `forward` stays as it is, for TorchScript to compile.
    theirs.__call__ = call

    def undo() -> None:
        del theirs.__call__

    return undo


def arguments(
    names: Iterable[str], required: set[str], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The arguments of a layer's `forward` by name.

    Raises:
        Refused: PyG refuses these.
    """
    names = list(names)
    given = dict(zip(names, args, strict=False)) | kwargs
    fits = len(args) <= len(names) and set(kwargs) <= set(names[len(args) :])
    if not fits or not required <= set(given):
        raise Refused("arguments that PyG refuses")
    return given


_AGGREGATIONS = {
    "add": ("sum", "SumAggregation"),
    "sum": ("sum", "SumAggregation"),
    "mean": ("mean", "MeanAggregation"),
    "max": ("max", "MaxAggregation"),
}


def aggregation(layer: Any) -> str | None:
    """The reduction of a layer that aggregates by PyG's own module; None for all others."""
    reduce, module = _AGGREGATIONS.get(str(layer.aggr), (None, ""))
    is_own = type(layer.aggr_module).__name__ == module and not is_watched(layer.aggr_module)
    return reduce if is_own else None


def check_plain_precision() -> None:
    """Raise `Refused` under autocast, whose dtypes follow PyG's order of operations."""
    if torch._C._is_any_autocast_enabled():
        raise Refused("autocast")


def check_features(*tensors: Any) -> None:
    """Raise `Refused` but for floating tensors of two dimensions."""
    why = reason_against(*tensors)
    if why is None and any(tensor.dim() != 2 for tensor in tensors):
        why = "features of other than two dimensions"
    if why is not None:
        raise Refused(why)


def check_edges(edge_index: Any) -> Tensor:
    """The edge_index [2, E] as a plain tensor; raises `Refused` where it is none."""
    index = plain_index(edge_index)
    if type(index) is not Tensor or index.layout != torch.strided or index.is_inference():
        raise Refused("no dense edge_index")
    if index.dtype not in (torch.int32, torch.int64) or index.dim() != 2 or index.shape[0] != 2:
        raise Refused("no edge_index of shape [2, E]")
    return index


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
_METHODS = {"forward", "propagate", "message", "edge_update", "aggregate", "update"}


def is_watched(module: Any) -> bool:
    """Whether hooks of this module look at anything."""
    hooks = [hook for name in _HOOKS for hook in getattr(module, name, {}).values()]
    return not all(hasattr(hook, "is_blind") for hook in hooks)


def _reason_against_layer(layer: Any) -> str | None:
    if layer.explain or is_watched(layer):
        return "hooks, or an explanation"
    if any(getattr(torch_module, name) for name in _GLOBAL_HOOKS):
        return "hooks of all modules"
    # A method or function set on this one object replaces what its class does.
    if _METHODS & (vars(layer).keys() - _set_by_pyg(layer)):
        return "methods of the layer's own"
    # The features have two dimensions.
    if layer.flow != "source_to_target" or layer.node_dim not in (0, -2):
        return f"flow={layer.flow!r}, node_dim={layer.node_dim}"
    if layer.decomposed_layers != 1:
        return "decomposed layers"
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
