"""The scatter family: elements of `src` reduced into the group that `index` names, along `dim`.

In every function:

    src     [..., E, ...] with E along `dim`
    index   [E], or what broadcasts to the shape of src: sizes of 1, leading dimensions alone
    dim     the dimension to reduce, the last by default
    out     what to reduce into, in place, and to return; None: a new tensor
    dim_size  size of a new tensor along dim; None: one more than the largest index

Isolated groups get 0, or 1 for a product. Floats of every precision go to gnnkern's kernels
wherever the index groups rows, with halves summed in float32, and results repeat bit for bit;
integers, and an index with an entry for every element, go to torch, and so do products that are
differentiated. Gradients of src, by any number of derivatives; of `out`, as it was.

Source: torch_scatter. An index out of range raises a ValueError, where torch_scatter writes outside
of the result.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gnnkern.compat._along import broadcast, group_count, reduce_along, select_along

__all__ = [
    "scatter",
    "scatter_add",
    "scatter_max",
    "scatter_mean",
    "scatter_min",
    "scatter_mul",
    "scatter_sum",
]


def scatter_sum(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> Tensor:
    """Sum of each group, added to `out`."""
    count = group_count(index, dim_size if out is None else out.shape[dim])
    total = reduce_along(src, index, dim, count, "sum")
    return total if out is None else out.add_(total)


def scatter_add(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> Tensor:
    """Another name of `scatter_sum`."""
    return scatter_sum(src, index, dim, out, dim_size)


def scatter_mul(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> Tensor:
    """Product of each group, multiplied into `out`.

    An element that is the only 0 of its group has the product of the others for its gradient, where
    torch_scatter gives it 0.
    """
    count = group_count(index, dim_size if out is None else out.shape[dim])
    product = reduce_along(src, index, dim, count, "mul")
    return product if out is None else out.mul_(product)


def scatter_mean(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> Tensor:
    """Mean of each group; of integers rounded down.

    `out` is added to the sum of its group before that is divided by the number of its elements.
    """
    if out is None:
        return reduce_along(src, index, dim, group_count(index, dim_size), "mean")
    scatter_sum(src, index, dim, out)
    count = broadcast(group_sizes(src, index, dim, out.shape[dim]), out, dim)
    return out.div_(count, rounding_mode=None if out.is_floating_point() else "floor")


def group_sizes(src: Tensor, index: Tensor, dim: int, count: int) -> Tensor:
    """The number of elements in each group, at least 1: as many dimensions as the index."""
    dim = dim % src.dim()
    ones = torch.ones(index.shape, dtype=torch.long, device=src.device)
    return reduce_along(ones, index, min(dim, index.dim() - 1), count, "sum").clamp_(min=1)


def select(
    src: Tensor,
    index: Tensor,
    dim: int,
    out: Tensor | None,
    dim_size: int | None,
    reduce: str,
) -> tuple[Tensor, Tensor]:
    """The extreme of each group or of `out`, and where it is along `dim`."""
    if out is None:
        return select_along(src, index, dim, group_count(index, dim_size), reduce)
    size = src.shape[dim]
    best, argument = select_along(src, index, dim, out.shape[dim], reduce)
    better = best > out if reduce == "max" else best < out
    argument = torch.where(better & (argument < size), argument, size)
    out.copy_(torch.where(argument < size, best, out))
    return out, argument


def scatter_min(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Minimum of each group, and of `out`, and the position along `dim` where it lies.

    The first of equal elements wins, NaN and infinity never. Where nothing wins, or `out` does, the
    position is `src.shape[dim]`, and without `out` the result is 0.
    """
    return select(src, index, dim, out, dim_size, "min")


def scatter_max(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Maximum of each group, and of `out`, and the position along `dim` where it lies.

    The first of equal elements wins, NaN and minus infinity never. Where nothing wins, or `out`
    does, the position is `src.shape[dim]`, and without `out` the result is 0.
    """
    return select(src, index, dim, out, dim_size, "max")


_BY_NAME = {
    "sum": scatter_sum,
    "add": scatter_sum,
    "mul": scatter_mul,
    "mean": scatter_mean,
}


def scatter(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    reduce: str = "sum",
) -> Tensor:
    """Reduce by `reduce`: "sum", "add", "mul", "mean", "min" or "max".

    Raises:
        ValueError: `reduce` is none of these, or an index is out of range.
    """
    if reduce in ("min", "max"):
        return select(src, index, dim, out, dim_size, reduce)[0]
    if reduce not in _BY_NAME:
        raise ValueError(f"scatter: reduce must be sum, add, mul, mean, min or max, got {reduce!r}")
    return _BY_NAME[reduce](src, index, dim, out, dim_size)
