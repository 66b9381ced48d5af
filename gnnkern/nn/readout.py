"""Graph readouts: one row per graph of a batch, from those of its nodes."""

from __future__ import annotations

from torch import Tensor

from gnnkern.nn.aggregation import Aggregation, MaxAggregation, MeanAggregation, SumAggregation

__all__ = ["global_add_pool", "global_max_pool", "global_mean_pool"]


def global_add_pool(
    x: Tensor,  # [N, F]
    batch: Tensor | None,  # [N]
    size: int | None = None,
) -> Tensor:  # [B, F]
    """Return the sum over the nodes of each graph, as PyG's function of the same name.

    Args:
        x: Node features.
        batch: The graph of each node; None: all are of one.
        size: Number of graphs, B; by default one more than the largest in `batch`.
    """
    return _pool(SumAggregation(), x, batch, size)


def global_mean_pool(x: Tensor, batch: Tensor | None, size: int | None = None) -> Tensor:
    """Return the mean over the nodes of each graph; arguments as for `global_add_pool`."""
    return _pool(MeanAggregation(), x, batch, size)


def global_max_pool(x: Tensor, batch: Tensor | None, size: int | None = None) -> Tensor:
    """Return the largest of the nodes of each graph; arguments as for `global_add_pool`."""
    return _pool(MaxAggregation(), x, batch, size)


def _pool(aggr: Aggregation, x: Tensor, batch: Tensor | None, size: int | None) -> Tensor:
    dim = -1 if x.dim() == 1 else -2
    out: Tensor = aggr(x, batch, dim_size=size, dim=dim)
    return out.squeeze(dim) if batch is None and x.dim() > 2 else out
