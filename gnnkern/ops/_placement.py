"""Where an op's operands lie, so that a graph that is more than its arrays can run the op itself.

An op that walks a graph says of each tensor whether its rows belong to sources, destinations or
edges, and of its result likewise. On a `Graph` that is not looked at. Another kind of graph, such
as one whose sources lie partly on other ranks, has a method `run_op` that is given the op, its
arguments by name and their places; it makes ordinary graphs and tensors of these and calls the op
on them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from gnnkern.graph import Graph

__all__ = ["placed"]

P = ParamSpec("P")
T = TypeVar("T")

# The places of an op's tensors by name, from its arguments where these decide.
Places = Callable[[dict[str, Any]], dict[str, str]]


def placed(
    result: str, by_arguments: Places | None = None, **places: str
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Declare where the tensors of an op lie: "src", "dst" or "edge"; others go as they are.

    Args:
        result: Where the rows of the result lie, "dst" or "edge".
        by_arguments: Says it of a call's arguments by name, where it is not always the same.
        places: The places by the name of the argument.
    """

    def declare(op: Callable[P, T]) -> Callable[P, T]:
        names = tuple(inspect.signature(op).parameters)

        @functools.wraps(op)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            graph = args[0] if args else kwargs.get(names[0])
            if type(graph) is Graph or not isinstance(graph, Graph):
                return op(*args, **kwargs)
            arguments = dict(zip(names, args, strict=False)) | kwargs
            del arguments[names[0]]
            where = places if by_arguments is None else by_arguments(arguments)
            return graph.run_op(op, arguments, where, result)  # type: ignore[no-any-return]

        return call

    return declare
