"""Aggregations that weigh the rows of each group, or read them one after another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gnnkern.nn.aggregation import Aggregation
from gnnkern.nn.rows import Rows

__all__ = ["AttentionalAggregation", "LSTMAggregation", "SoftmaxAggregation"]


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
