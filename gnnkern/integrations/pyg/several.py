"""Several aggregations of the same messages by one op: PyG's `MultiAggregation`, as PNA has it.

    reduce(x_j)         one gather of x
    reduce(x_i + m)     x_i + reduce(m), for the mean, the minimum and the maximum; the variance of
                        m is that of the sum
    all else            one pass over the messages, made once

Only for aggregations of exactly PyG's types; what combines the results is PyG's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gnnkern.graph import Graph
from gnnkern.integrations.pyg import report
from gnnkern.integrations.pyg.expressions import Cat, Expression, Gather, Pair, Sum
from gnnkern.integrations.pyg.lazy import LazyMessage, expression_of
from gnnkern.integrations.pyg.ops import plain_index, without_autocast
from gnnkern.integrations.pyg.scope import in_force
from gnnkern.integrations.pyg.stepping_aside import observed, reason_against, reason_against_index
from gnnkern.ops.multi_reduce import multi_reduce

if TYPE_CHECKING:
    from gnnkern.integrations.pyg.fusing import FusedOps

__all__ = ["LEAST_VARIANCE", "apply", "reductions"]

# What is reduced for an aggregation of this name.
_REDUCES = {
    "SumAggregation": "sum",
    "MeanAggregation": "mean",
    "MinAggregation": "min",
    "MaxAggregation": "max",
    "VarAggregation": "var",
    "StdAggregation": "std",
}
# PyG's: the deviation of a variance that is not above it is 0.
LEAST_VARIANCE = 1e-5
# What does not change where all messages of a node do alike.
_SPREADS = ("var", "std")


def apply(ops: FusedOps) -> Callable[[], None]:
    """Have `MultiAggregation` reduce messages at once; what is returned undoes it."""
    from torch_geometric.nn.aggr import Aggregation, MultiAggregation

    plain_call = Aggregation.__call__
    is_compiling = torch.compiler.is_compiling

    def call(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if is_compiling() or type(self) is not MultiAggregation or not in_force():
            return plain_call(self, x, *args, **kwargs)
        given = dict(zip(("index", "ptr", "dim_size", "dim"), args, strict=False)) | kwargs
        reduces = reductions(self)
        index, size = plain_index(given.get("index")), given.get("dim_size")
        why = observed() or reason_against_index(index)
        if why is None and reduces is None:
            why = "aggregations of other types, or hooks"
        elif why is None and not isinstance(x, LazyMessage):
            why = reason_against(x)
        if why is None and (given.get("ptr") is not None or x.dim() < 2):
            why = "sorted messages, or messages of one dimension"
        elif why is None and (given.get("dim", -2) % x.dim() != 0 or index.shape[0] != x.shape[0]):
            why = "another dimension than that of the edges"
        if why is None and reduces is not None:
            if size is None:
                size = int(index.max()) + 1 if index.numel() else 0
            try:
                with without_autocast(x):
                    outs = _reduce(ops, x, index, size, tuple(reduces.values()))
            except ValueError as error:
                why = "refused: " + str(error).split(",")[0]
            else:
                report.accelerated("fused aggregations")
                return self.combine(outs)
        report.left("fused aggregations", why or "")
        return plain_call(self, x, *args, **kwargs)

    # A class that calls by itself: `forward` stays as it is, for TorchScript to compile.
    MultiAggregation.__call__ = call

    def undo() -> None:
        del MultiAggregation.__call__

    return undo


def reductions(aggregation: Any) -> dict[str, str] | None:
    """By name what each aggregation reduces; None where PyG has to do it."""
    from torch_geometric.nn.aggr import basic

    found = {}
    for each in aggregation.aggrs:
        name = type(each).__name__
        variance = getattr(each, "var_aggr", each)
        hooks = [each._forward_hooks, each._forward_pre_hooks, each._backward_hooks]
        if getattr(basic, name, None) is not type(each) or name not in _REDUCES or any(hooks):
            return None
        if getattr(variance, "semi_grad", False) or name in found:
            return None
        found[name] = _REDUCES[name]
    return found if len(found) > 1 else None


def _reduce(
    ops: FusedOps, x: Tensor, index: Tensor, size: int, reduces: tuple[str, ...]
) -> list[Tensor]:
    """Every reduction of the messages, each [size, ...]."""
    from gnnkern.integrations.pyg.fusing import Unfused, split_ends

    expression: Expression | Tensor | None = expression_of(x)
    if expression is None or isinstance(expression, Cat):
        expression = x.value() if isinstance(x, LazyMessage) else x
    own, op = None, "add"
    if isinstance(expression, Pair | Sum):
        try:
            own, expression, op = split_ends(expression, index)
        except Unfused:
            own = None
        if op not in ("add", "sub", "rsub") or (own is not None and own.x.shape[0] != size):
            own = None
        if own is None:
            assert isinstance(x, LazyMessage)
            expression = x.value()
    if op == "rsub":
        expression = _negated(expression)
        op = "add"
    parts = _reduce_rows(ops, expression, index, size, reduces)
    if own is None:
        return parts
    return [
        part if reduce in _SPREADS else ops.joined(own, part, op, index, size, reduce)
        for reduce, part in zip(reduces, parts, strict=True)
    ]


def _negated(expression: Expression | Tensor) -> Expression | Tensor:
    if isinstance(expression, Gather):
        return expression.over(-expression.x)
    assert isinstance(expression, Tensor)
    return -expression


def _reduce_rows(
    ops: FusedOps, rows: Expression | Tensor, index: Tensor, size: int, reduces: tuple[str, ...]
) -> list[Tensor]:
    """Every reduction of rows of nodes, gathered, or of rows of edges."""
    if isinstance(rows, Gather):
        x, width = rows.x, torch.Size(rows.x.shape[1:]).numel()
        graph = ops.cache.graph(index, rows.index, size, x.shape[0], width * len(reduces))
        if graph is None:
            graph = Graph.from_edge_index(torch.stack((rows.index, index)), (x.shape[0], size))
    else:
        x = rows if isinstance(rows, Tensor) else rows.value(*rows.leaves)
        graph = ops.cache.graph_of_edges(index, size)
    flat = x.reshape(x.shape[0], -1)
    out = multi_reduce(graph, flat, reduces=reduces)  # [size, R, F]
    parts = [part.reshape(size, *x.shape[1:]) for part in out.unbind(1)]
    least = math.sqrt(LEAST_VARIANCE)
    return [
        part.masked_fill(part <= least, 0.0) if reduce == "std" else part
        for reduce, part in zip(reduces, parts, strict=True)
    ]
