"""Aggregations: modules that turn the rows of each group into one, for messages and for graphs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnkern.nn.linear import make_linear, reset_parameters_of
from gnnkern.nn.rows import Messages, Rows, Scattered, Segments

__all__ = [
    "Aggregation",
    "AttentionalAggregation",
    "LSTMAggregation",
    "MaxAggregation",
    "MeanAggregation",
    "MinAggregation",
    "MulAggregation",
    "MultiAggregation",
    "SoftmaxAggregation",
    "StdAggregation",
    "SumAggregation",
    "VarAggregation",
    "aggr_names",
    "aggregate",
    "aggregate_mapped",
    "make_aggregation",
]


class Aggregation(nn.Module):
    """What turns the rows of each group into one; a subclass says how, in `aggregate`.

    As a readout it is called on the nodes of many graphs, `aggr(x, index)` or `aggr(x, ptr=ptr)`;
    layers hand it their `Messages`, which need not be made.
    """

    def aggregate(self, rows: Rows) -> Tensor:  # [N, ...]
        """Return one row per group."""
        raise NotImplementedError(f"{type(self).__name__}: a subclass must define aggregate(rows)")

    def forward(
        self,
        x: Tensor,  # [M, ...], or [..., M, F] with dim=-2
        index: Tensor | None = None,  # [M]
        ptr: Tensor | None = None,  # [N + 1]
        dim_size: int | None = None,
        dim: int = -2,
    ) -> Tensor:
        """Return one row per group in the place of those of x.

        Args:
            x: The rows.
            index: The group of each row, in any order.
            ptr: Where each group begins, for rows in order; wins over `index`. Without either, all
                rows are one group.
            dim_size: Number of groups; by default one more than the largest index.
            dim: The dimension of x in which the rows lie.
        """
        if not -x.dim() <= dim < x.dim():
            raise ValueError(
                f"{type(self).__name__}: dim must be in [{-x.dim()}, {x.dim()}) for x of shape "
                f"{list(x.shape)}, got {dim}"
            )
        x = x.movedim(dim, 0)
        if ptr is not None:
            if dim_size not in (None, ptr.shape[0] - 1):
                raise ValueError(
                    f"{type(self).__name__}: dim_size must be {ptr.shape[0] - 1} as in ptr, got "
                    f"{dim_size}"
                )
            rows: Rows = Segments(x, ptr)
        elif index is not None:
            rows = Scattered(x, index, dim_size)
        else:
            rows = Segments(x, torch.tensor([0, x.shape[0]], device=x.device))
        return self.aggregate(rows).movedim(0, dim)

    def reset_parameters(self) -> None:
        """Draw all weights again."""
        for child in self.children():
            reset_parameters_of(child)

    def __repr__(self) -> str:
        """Return e.g. `MeanAggregation()`."""
        return f"{type(self).__name__}()"


class _Reduction(Aggregation):
    """One reduction, and what is done to its result."""

    reduction: ClassVar[str]

    def aggregate(self, rows: Rows) -> Tensor:
        return self.finish(rows.reduce_all([self.reduction])[0])

    def finish(self, reduced: Tensor) -> Tensor:
        return reduced


class SumAggregation(_Reduction):
    """The sum of each group; 0 of an empty one."""

    reduction = "sum"


class MeanAggregation(_Reduction):
    """The mean of each group; 0 of an empty one."""

    reduction = "mean"


class MaxAggregation(_Reduction):
    """The largest of each group and column; 0 of an empty one."""

    reduction = "max"


class MinAggregation(_Reduction):
    """The smallest of each group and column; 0 of an empty one."""

    reduction = "min"


class MulAggregation(_Reduction):
    """The product of each group; 1 of an empty one. Messages are made for it."""

    reduction = "mul"


class VarAggregation(_Reduction):
    """The variance of each group: the mean of the squared distances from the mean."""

    reduction = "var"


class StdAggregation(_Reduction):
    """The root of the variance of each group; 0 where that is 1e-5 or less, as in PyG."""

    reduction = "var"

    def finish(self, reduced: Tensor) -> Tensor:
        """Return the root where it has a gradient."""
        std = reduced.clamp(min=1e-5).sqrt()
        return std.masked_fill(std <= math.sqrt(1e-5), 0.0)


class SoftmaxAggregation(Aggregation):
    """`sum over the rows x of each group of softmax(t * x) * x`, for every column by itself.

    `state_dict` (`t` with `learn`) is that of PyG's aggregation of the same name. Messages are made
    for the scores.

    Args:
        t: Inverse temperature, at first.
        learn: Whether t is a parameter.
        semi_grad: Whether the weights are constants for the gradient.
        channels: Number of inverse temperatures, one per column; 1: one for all.

    Source: Li et al., "DeeperGCN: all you need to train deeper GCNs", 2020.
    """

    def __init__(
        self, t: float = 1.0, learn: bool = False, semi_grad: bool = False, channels: int = 1
    ) -> None:
        super().__init__()
        if learn and semi_grad:
            raise ValueError("SoftmaxAggregation: semi_grad=True needs learn=False")
        if not learn and channels != 1:
            raise ValueError(f"SoftmaxAggregation: channels={channels} needs learn=True")
        self.initial_t = t
        self.learn = learn
        self.semi_grad = semi_grad
        self.channels = channels
        self.t = nn.Parameter(torch.full((channels,), t)) if learn else t

    def reset_parameters(self) -> None:
        """Set t to its first value."""
        if isinstance(self.t, Tensor):
            nn.init.constant_(self.t, self.initial_t)

    def aggregate(self, rows: Rows) -> Tensor:
        """Return the weighted sums."""
        score = rows.made() * self.t
        alpha = rows.softmax(score.detach() if self.semi_grad else score)
        return rows.weighted_sum(alpha)

    def __repr__(self) -> str:
        """Return e.g. `SoftmaxAggregation(learn=True)`."""
        return f"SoftmaxAggregation(learn={self.learn})"


class LSTMAggregation(Aggregation):
    """The last output of an LSTM that reads each group's rows in their order.

    As in PyG, every group is as long as the longest, and the LSTM reads rows of 0 behind its own;
    an empty group gets what it makes of these. Unlike there, rows may be in any order of groups.
    Needs memory for groups x longest x width. `state_dict` (`lstm.*`) is that of PyG's aggregation.

    Args:
        in_channels: Width of the rows.
        out_channels: Width of the result.
        **kwargs: Further arguments of `torch.nn.LSTM`.

    Source: Hamilton, Ying and Leskovec, "Inductive representation learning on large graphs", 2017.
    """

    def __init__(self, in_channels: int, out_channels: int, **kwargs: Any) -> None:
        super().__init__()
        if in_channels < 1:
            raise ValueError(f"LSTMAggregation: in_channels must be >= 1, got {in_channels}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.lstm = nn.LSTM(in_channels, out_channels, batch_first=True, **kwargs)

    def aggregate(self, rows: Rows) -> Tensor:
        """Return the last outputs."""
        return self.lstm(rows.on_graph().padded())[0][:, -1]  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        """Return e.g. `LSTMAggregation(16, 32)`."""
        return f"LSTMAggregation({self.in_channels}, {self.out_channels})"


class AttentionalAggregation(Aggregation):
    """`sum over the rows x of each group of softmax(gate_nn(x)) * nn(x)`.

    `state_dict` (`gate_nn.*`, `nn.*`) is that of PyG's aggregation of the same name, unless one of
    the two is PyG's own `MLP`. Messages are made for it, as each is a row for both networks.

    Args:
        gate_nn: Maps rows to scores of width 1, or one per column of the result.
        nn: Maps rows to what is summed; None: the rows themselves.

    Source: Li et al., "Graph matching networks for learning the similarity of graph structured
    objects", 2019.
    """

    def __init__(self, gate_nn: nn.Module, nn: nn.Module | None = None) -> None:
        super().__init__()
        self.gate_nn = gate_nn
        self.nn = nn

    def aggregate(self, rows: Rows) -> Tensor:
        """Return the weighted sums."""
        x = rows.made()
        alpha = rows.softmax(self.gate_nn(x))
        return (rows if self.nn is None else rows.with_rows(self.nn(x))).weighted_sum(alpha)

    def __repr__(self) -> str:
        """Return the two networks."""
        return f"AttentionalAggregation(gate_nn={self.gate_nn}, nn={self.nn})"


_COMBINE: dict[str, Callable[..., Tensor]] = {
    "sum": torch.sum,
    "mean": torch.mean,
    "max": torch.amax,
    "min": torch.amin,
    "logsumexp": torch.logsumexp,
    "std": torch.std,
    "var": torch.var,
}


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
        simple = [aggr.reduction for aggr in self.aggrs if isinstance(aggr, _Reduction)]
        names = [name for name in dict.fromkeys(simple) if name != "mul"]
        reduced = dict(zip(names, rows.reduce_all(names), strict=True)) if names else {}
        return [
            aggr.finish(reduced[aggr.reduction])
            if isinstance(aggr, _Reduction) and aggr.reduction in reduced
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


def make_aggregation(
    layer: str, aggr: str | Sequence[str | nn.Module] | nn.Module, **kwargs: Any
) -> nn.Module:
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


def aggr_names(aggr: str | Sequence[str | nn.Module] | nn.Module) -> str | list[str]:
    """Return what a layer has as its `aggr` attribute: names, as in PyG."""
    return [str(one) for one in aggr] if isinstance(aggr, list | tuple) else str(aggr)


def aggregate(aggr: nn.Module, rows: Rows) -> Tensor:  # [N, ...]
    """Return one row per group; a foreign module is called as PyG's: `(x, index, dim_size=)`."""
    if isinstance(aggr, Aggregation):
        return aggr.aggregate(rows)
    messages = rows.on_graph()
    destinations, size = messages.graph.edge_index[1], messages.graph.num_dst
    return aggr(messages.made(), destinations, dim_size=size, dim=0)  # type: ignore[no-any-return]


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
    if nn.parameter.is_lazy(linear.weight):
        linear(x[:0])
    out = aggregate(aggr, replace(messages, x=F.linear(x, linear.weight)))
    return out if linear.bias is None else out + linear.bias
