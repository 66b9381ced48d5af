"""Aggregations: modules that turn the rows of each group into one, for messages and for graphs."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from gnnkern.nn.layer import Layer
from gnnkern.nn.rows import Rows, Scattered, Segments

__all__ = [
    "Aggregation",
    "MaxAggregation",
    "MeanAggregation",
    "MinAggregation",
    "MulAggregation",
    "Reduction",
    "StdAggregation",
    "SumAggregation",
    "VarAggregation",
]


class Aggregation(Layer):
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

    def __repr__(self) -> str:
        """Return e.g. `MeanAggregation()`."""
        return f"{type(self).__name__}()"


class Reduction(Aggregation):
    """One reduction, and what is done to its result."""

    reduction: ClassVar[str]

    def aggregate(self, rows: Rows) -> Tensor:
        """Return the reduction, finished."""
        return self.finish(rows.reduce_all([self.reduction])[0])

    def finish(self, reduced: Tensor) -> Tensor:
        """Return what becomes of the reduction; here, nothing."""
        return reduced


class SumAggregation(Reduction):
    """The sum of each group; 0 of an empty one."""

    reduction = "sum"


class MeanAggregation(Reduction):
    """The mean of each group; 0 of an empty one."""

    reduction = "mean"


class MaxAggregation(Reduction):
    """The largest of each group and column; 0 of an empty one."""

    reduction = "max"


class MinAggregation(Reduction):
    """The smallest of each group and column; 0 of an empty one."""

    reduction = "min"


class MulAggregation(Reduction):
    """The product of each group; 1 of an empty one. Messages are made for it."""

    reduction = "mul"


class VarAggregation(Reduction):
    """The variance of each group: the mean of the squared distances from the mean."""

    reduction = "var"


class StdAggregation(Reduction):
    """The root of the variance of each group; 0 where that is 1e-5 or less, as in PyG."""

    reduction = "var"

    def finish(self, reduced: Tensor) -> Tensor:
        """Return the root where it has a gradient."""
        std = reduced.clamp(min=1e-5).sqrt()
        return std.masked_fill(std <= math.sqrt(1e-5), 0.0)
