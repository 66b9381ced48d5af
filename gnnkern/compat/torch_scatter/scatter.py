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

TorchScript calls these functions in Python, so that what it compiles can run but not be saved.

Source: torch_scatter. An index out of range raises a ValueError, where torch_scatter writes outside
of the result.
"""

import torch
from torch import Tensor

from gnnkern.compat._along import broadcast, group_count, reduce_along, select_along
from gnnkern.compat._script import called_in_python

__all__ = [
    "scatter",
    "scatter_add",
    "scatter_max",
    "scatter_mean",
    "scatter_min",
    "scatter_mul",
    "scatter_sum",
]


# -- what the public functions do, with every argument: TorchScript knows no defaults of these -----


@called_in_python
def _add(src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None) -> Tensor:
    count = group_count(index, dim_size if out is None else out.shape[dim])
    total = reduce_along(src, index, dim, count, "sum")
    return total if out is None else out.add_(total)


@called_in_python
def _multiply(
    src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None
) -> Tensor:
    count = group_count(index, dim_size if out is None else out.shape[dim])
    product = reduce_along(src, index, dim, count, "mul")
    return product if out is None else out.mul_(product)


@called_in_python
def average(
    src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None, rounding: str
) -> Tensor:
    """`scatter_mean`, with the rounding of integers."""
    if out is None:
        return reduce_along(src, index, dim, group_count(index, dim_size), "mean", rounding)
    _add(src, index, dim, out, None)
    count = broadcast(group_sizes(src, index, dim, out.shape[dim]), out, dim)
    return out.div_(count, rounding_mode=None if out.is_floating_point() else rounding)


def group_sizes(src: Tensor, index: Tensor, dim: int, count: int) -> Tensor:
    """The number of elements in each group, at least 1: as many dimensions as the index."""
    dim = dim % src.dim()
    ones = torch.ones(index.shape, dtype=torch.long, device=src.device)
    return reduce_along(ones, index, min(dim, index.dim() - 1), count, "sum").clamp_(min=1)


@called_in_python
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


# -- public ----------------------------------------------------------------------------------------


def scatter_sum(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> Tensor:
    """Sum of each group, added to `out`."""
    return _add(src, index, dim, out, dim_size)


def scatter_add(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> Tensor:
    """Another name of `scatter_sum`."""
    return _add(src, index, dim, out, dim_size)


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
    return _multiply(src, index, dim, out, dim_size)


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
    return average(src, index, dim, out, dim_size, "floor")


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
    if reduce == "sum" or reduce == "add":
        return _add(src, index, dim, out, dim_size)
    if reduce == "mul":
        return _multiply(src, index, dim, out, dim_size)
    if reduce == "mean":
        return average(src, index, dim, out, dim_size, "floor")
    if reduce == "min" or reduce == "max":
        return select(src, index, dim, out, dim_size, reduce)[0]
    raise ValueError(f"scatter: reduce must be sum, add, mul, mean, min or max, got {reduce}")
