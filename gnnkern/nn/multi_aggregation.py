"""Several aggregations at once, and what the `aggr` argument of a layer stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnkern.nn.aggregation import (
    Aggregation,
    MaxAggregation,
    MeanAggregation,
    MinAggregation,
    MulAggregation,
    Reduction,
    StdAggregation,
    SumAggregation,
    VarAggregation,
)
from gnnkern.nn.layer import Layer
from gnnkern.nn.learned_aggregation import LSTMAggregation, SoftmaxAggregation
from gnnkern.nn.linear import make_linear
from gnnkern.nn.rows import Messages, Rows

__all__ = [
    "Aggr",
    "AggregatingLayer",
    "MultiAggregation",
    "aggr_names",
    "aggregate",
    "aggregate_mapped",
    "make_aggregation",
]

_COMBINE: dict[str, Callable[..., Tensor]] = {
    "sum": torch.sum,
    "mean": torch.mean,
    "max": torch.amax,
    "min": torch.amin,
    "logsumexp": torch.logsumexp,
    "std": torch.std,
    "var": torch.var,
}


# A name, an aggregation, or several of them.
Aggr = str | Sequence[str | nn.Module] | nn.Module


class MultiAggregation(Aggregation):
    """Several aggregations of the same rows, combined.

    Sums, means, extremes, variances and standard deviations are one op where the messages are rows
    of features. `state_dict` (`aggrs.*`, `lin.*` with mode "proj") is that of PyG's aggregation.

    Args:
        aggrs: Names or modules.
        aggrs_kwargs: Arguments of each that is given by name.
        mode: "cat" (side by side), "proj" (a linear map of that), or "sum", "mean", "max", "min",
            "logsumexp", "std" or "var" of the results.
        mode_kwargs: For "proj", `in_channels` (a number, or one per aggregation), `out_channels`
            and `bias`.

    Source: Corso et al., "Principal neighbourhood aggregation for graph nets", 2020.
    """

    def __init__(
        self,
        aggrs: Sequence[str | nn.Module],
        aggrs_kwargs: Sequence[dict[str, Any]] | None = None,
        mode: str = "cat",
        mode_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(aggrs, list | tuple) or not aggrs:
            raise ValueError(f"MultiAggregation: aggrs must be a list of at least 1, got {aggrs!r}")
        if aggrs_kwargs is not None and len(aggrs_kwargs) != len(aggrs):
            raise ValueError(
                f"MultiAggregation: aggrs_kwargs must have {len(aggrs)} entries as aggrs, got "
                f"{len(aggrs_kwargs)}"
            )
        if mode not in ("cat", "proj", *_COMBINE):
            raise ValueError(
                f"MultiAggregation: mode must be one of cat, proj, {', '.join(_COMBINE)}, got "
                f"{mode!r}"
            )
        options = [{}] * len(aggrs) if aggrs_kwargs is None else aggrs_kwargs
        self.aggrs = nn.ModuleList(
            make_aggregation("MultiAggregation", aggr, **kwargs)
            for aggr, kwargs in zip(aggrs, options, strict=True)
        )
        self.mode = mode
        given = dict(mode_kwargs or {})
        in_channels = given.pop("in_channels", None)
        self.out_channels: int | None = None
        if mode == "proj":
            self.out_channels = given.pop("out_channels", None)
            if in_channels is None or self.out_channels is None or len(aggrs) == 1:
                raise ValueError(
                    "MultiAggregation: mode='proj' needs several aggrs, and mode_kwargs with "
                    "in_channels and out_channels"
                )
            width = in_channels * len(aggrs) if isinstance(in_channels, int) else sum(in_channels)
            self.lin = make_linear(width, self.out_channels, bias=given.pop("bias", True))

    def get_out_channels(self, in_channels: int) -> int:
        """Return the width of the result for rows of this width."""
        if self.out_channels is not None:
            return self.out_channels
        return in_channels * len(self.aggrs) if self.mode == "cat" else in_channels

    def aggregate(self, rows: Rows) -> Tensor:
        """Return the combined results."""
        outs = self.each(rows)
        if len(outs) == 1:
            return outs[0]
        if self.mode in _COMBINE:
            return _COMBINE[self.mode](torch.stack(outs), dim=0)
        out = torch.cat(outs, -1)
        return self.lin(out) if self.mode == "proj" else out

    def each(self, rows: Rows) -> list[Tensor]:
        """Return the result of each aggregation."""
        simple = [aggr.reduction for aggr in self.aggrs if isinstance(aggr, Reduction)]
        names = [name for name in dict.fromkeys(simple) if name != "mul"]
        reduced = dict(zip(names, rows.reduce_all(names), strict=True)) if names else {}
        return [
            aggr.finish(reduced[aggr.reduction])
            if isinstance(aggr, Reduction) and aggr.reduction in reduced
            else aggregate(aggr, rows)
            for aggr in self.aggrs
        ]

    def __repr__(self) -> str:
        """Return the aggregations and the mode."""
        aggrs = "".join(f"  {aggr},\n" for aggr in self.aggrs)
        return f"MultiAggregation([\n{aggrs}], mode={self.mode})"


_BY_NAME: dict[str, type[Aggregation]] = {
    "sum": SumAggregation,
    "add": SumAggregation,
    "mean": MeanAggregation,
    "max": MaxAggregation,
    "min": MinAggregation,
    "mul": MulAggregation,
    "var": VarAggregation,
    "std": StdAggregation,
    "softmax": SoftmaxAggregation,
    "lstm": LSTMAggregation,
}


def make_aggregation(layer: str, aggr: Aggr, **kwargs: Any) -> nn.Module:
    """Return the module that an `aggr` argument stands for.

    Args:
        layer: Who asks, for the error.
        aggr: A name, a list of names and modules, or a module, which is returned as it is.
        **kwargs: Arguments of the aggregation.
    """
    if isinstance(aggr, nn.Module):
        return aggr
    if isinstance(aggr, list | tuple):
        return MultiAggregation(aggr, **kwargs)
    if not isinstance(aggr, str) or aggr not in _BY_NAME:
        raise ValueError(
            f"{layer}: aggr must be one of {', '.join(_BY_NAME)}, a list of them or an "
            f"aggregation, got {aggr!r}"
        )
    return _BY_NAME[aggr](**kwargs)


def aggregate(aggr: nn.Module, rows: Rows) -> Tensor:  # [N, ...]
    """Return one row per group; a foreign module is called as PyG's: `(x, index, dim_size=)`."""
    if isinstance(aggr, Aggregation):
        return aggr.aggregate(rows)
    messages = rows.on_graph()
    destinations, size = messages.graph.edge_index[1], messages.graph.num_dst
    return aggr(messages.made(), destinations, dim_size=size, dim=0)  # type: ignore[no-any-return]


def aggr_names(aggr: Aggr) -> str | list[str]:
    """Return what a layer has as its `aggr` attribute."""
    return [str(one) for one in aggr] if isinstance(aggr, list | tuple) else str(aggr)


class AggregatingLayer(Layer):
    """A layer that reduces what comes along the edges; its `aggr` attribute has names, as in PyG.

    Args:
        aggr: A name, an aggregation, or a list of them.
        **kwargs: Arguments of an aggregation that is given by name.
    """

    def __init__(self, aggr: Aggr, **kwargs: Any) -> None:
        super().__init__()
        self.aggr_module = make_aggregation(type(self).__name__, aggr, **kwargs)
        self.aggr = aggr_names(aggr)


def aggregate_mapped(aggr: nn.Module, messages: Messages, linear: nn.Linear) -> Tensor:
    """Return the linear map of what messages reduce to.

    A sum and a mean commute with it: where that makes the rows narrower, it is applied before the
    edges are walked.

    Args:
        aggr: The aggregation.
        messages: Rows of features, with a number for each edge or without.
        linear: The map.
    """
    x = messages.x
    assert x is not None
    commutes = isinstance(aggr, SumAggregation | MeanAggregation)
    if not commutes or x.shape[-1] <= linear.out_features:
        return linear(aggregate(aggr, messages))  # type: ignore[no-any-return]
    if isinstance(linear, nn.LazyLinear):
        linear(x[:0])
    out = aggregate(aggr, replace(messages, x=F.linear(x, linear.weight)))
    return out if linear.bias is None else out + linear.bias
