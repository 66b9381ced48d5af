"""PyG's self loops and `gcn_norm` remembered for an edge_index that comes again.

Layers call these in every forward, and each time they make a new edge_index, whose graph would be
sorted anew. Only calls without edge weights or attributes are remembered: what they return depends
on the edges alone. A result that somebody writes to is made anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnnkern.integrations.pyg import report
from gnnkern.integrations.pyg.graph_cache import GraphCache
from gnnkern.integrations.pyg.stepping_aside import observed

__all__ = ["NAMES", "Memo"]

NAMES = ("gcn_norm", "add_self_loops", "add_remaining_self_loops", "remove_self_loops")

# In place of an argument that a function returns as it is: a result may not hold it.
_ARGUMENT = object()


class Memo:
    """The functions.

    Args:
        originals: PyG's functions by name.
        cache: Where their results are kept.
    """

    def __init__(self, originals: dict[str, Callable[..., Any]], cache: GraphCache) -> None:
        self.originals = originals
        self.cache = cache

    def function(self, name: str) -> Callable[..., Any]:
        """The function of this name."""
        original = self.originals[name]

        def call(edge_index: Any, *args: Any, **kwargs: Any) -> Any:
            why = observed() or _reason(edge_index, args, kwargs)
            if why is not None:
                report.left(name, why)
                return original(edge_index, *args, **kwargs)
            key = (name, args, tuple(sorted(kwargs.items())))

            def make() -> tuple[Any, ...]:
                return tuple(
                    _ARGUMENT if item is edge_index else item
                    for item in original(edge_index, *args, **kwargs)
                )

            result = self.cache.remember(key, (edge_index,), make)
            report.accelerated(name)
            return tuple(edge_index if item is _ARGUMENT else item for item in result)

        return call


def _reason(edge_index: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    if type(edge_index) is not Tensor or edge_index.layout != torch.strided:
        return "no dense edge_index"
    if edge_index.dtype not in (torch.int32, torch.int64) or edge_index.dim() != 2:
        return f"an edge_index of {edge_index.dtype} with {edge_index.dim()} dimensions"
    arguments = (*args, *kwargs.values())
    if any(not isinstance(a, str | int | float | bool | torch.dtype | None) for a in arguments):
        return "edge weights or attributes"
    return None
