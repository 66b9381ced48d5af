"""Softmax, log-softmax, logs of sums of exponentials and standard deviations of groups.

Arguments and shapes are those of the scatter family. Gradients of src, by any number of derivatives
for a softmax or log-softmax.
"""

import torch
from torch import Tensor

from gnnkern.compat._along import broadcast, group_count, reduce_along, rows_along, select_along
from gnnkern.compat._script import called_in_python
from gnnkern.compat.torch_scatter.scatter import group_sizes, scatter_sum
from gnnkern.ops.scatter_logsumexp import scatter_logsumexp as _logsumexp_of_rows

__all__ = ["scatter_log_softmax", "scatter_logsumexp", "scatter_softmax", "scatter_std"]


def _check_floats(name: str, src: Tensor) -> None:
    if not src.is_floating_point():
        raise ValueError(f"{name}: src must be of a floating dtype, got {src.dtype}")


def _spread(values: Tensor, src: Tensor, index: Tensor, dim: int) -> Tensor:
    """For every element of src the value of its group."""
    rows = rows_along(src, index, dim, values.shape[dim])
    if rows is not None:
        return rows.spread(values, src)
    return values.gather(dim, broadcast(index, src, dim).long())


def _log_sum_exp(src: Tensor, index: Tensor, dim: int, count: int) -> Tensor:
    """The log of each group's sum of exponentials; minus infinity where there is no element."""
    rows = rows_along(src, index, dim, count)
    if rows is not None:
        return rows.back(_logsumexp_of_rows(rows.of(src), rows.index, num_segments=rows.num_groups))
    largest = select_along(src.detach(), index, dim, count, "max")[0]
    distance = src - _spread(largest, src, index, dim)
    return reduce_along(distance.exp(), index, dim, count, "sum").log() + largest


def _normalised(src: Tensor, index: Tensor, dim: int, dim_size: int | None) -> Tensor:
    total = _log_sum_exp(src, index, dim, group_count(index, dim_size))
    # A group of minus infinities has nothing to subtract.
    total = total.masked_fill(total == -torch.inf, 0.0)
    return (src - _spread(total, src, index, dim)).to(src.dtype)


@called_in_python
def _softmax(src: Tensor, index: Tensor, dim: int, dim_size: int | None, epsilon: float) -> Tensor:
    _check_floats("scatter_softmax", src)
    dim = dim % src.dim()
    if epsilon < torch.finfo(src.dtype).eps / 4:
        return _normalised(src, index, dim, dim_size).exp()
    count = group_count(index, dim_size)
    largest = select_along(src.detach(), index, dim, count, "max")[0]
    power = (src - _spread(largest, src, index, dim)).exp()
    total = reduce_along(power, index, dim, count, "sum") + epsilon
    return power / _spread(total, src, index, dim)


@called_in_python
def _log_softmax(src: Tensor, index: Tensor, dim: int, eps: float, dim_size: int | None) -> Tensor:
    _check_floats("scatter_log_softmax", src)
    return _normalised(src, index, dim % src.dim(), dim_size)


@called_in_python
def _logsumexp(
    src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None, eps: float
) -> Tensor:
    _check_floats("scatter_logsumexp", src)
    dim = dim % src.dim()
    count = group_count(index, dim_size if out is None else out.shape[dim])
    total = _log_sum_exp(src, index, dim, count).to(src.dtype)
    if out is None:
        return total.masked_fill(total == -torch.inf, 0.0)
    # As it was: copying changes what autograd has kept.
    before = out.clone()
    joined = torch.where(total == -torch.inf, before, torch.logaddexp(before, total))
    return out.copy_(joined)


@called_in_python
def _std(
    src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None, unbiased: bool
) -> Tensor:
    dim = dim % src.dim()
    count = group_count(index, dim_size if out is None else out.shape[dim])
    mean = reduce_along(src, index, dim, count, "mean")
    square = (src - _spread(mean, src, index, dim)).square()
    number = broadcast(group_sizes(src, index, dim, count), mean, dim).to(src.dtype)
    divisor = (number - 1).clamp(min=1) if unbiased else number
    total = scatter_sum(square, index, dim, out, count)
    variance = total.div_(divisor) if out is not None else total / divisor
    is_zero = variance == 0
    # The root has no derivative at 0.
    root = variance.masked_fill(is_zero, 1.0).sqrt().masked_fill(is_zero, 0.0)
    return root if out is None else out.copy_(root)


# -- public ----------------------------------------------------------------------------------------


def scatter_softmax(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    dim_size: int | None = None,
    epsilon: float = 1e-16,
) -> Tensor:
    """Softmax over each group, of the shape of src.

    A group of minus infinities gets 0. `epsilon`, which torch_scatter adds to a sum that is at
    least 1, changes nothing below the precision of src; a larger one is honoured.

    Raises:
        ValueError: src is not floating, or an index is out of range.
    """
    return _softmax(src, index, dim, dim_size, epsilon)


def scatter_log_softmax(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    eps: float = 1e-12,
    dim_size: int | None = None,
) -> Tensor:
    """Log of the softmax over each group, of the shape of src.

    `eps` guards a logarithm of 0 in torch_scatter; here none is taken.

    Raises:
        ValueError: src is not floating, or an index is out of range.
    """
    return _log_softmax(src, index, dim, eps, dim_size)


def scatter_logsumexp(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    eps: float = 1e-12,
) -> Tensor:
    """Log of the sum of exponentials of each group, and of `out`.

    A group without elements gets 0, or keeps its `out`; so does one of minus infinities. `eps`
    guards a logarithm of 0 in torch_scatter; here none is taken.

    Raises:
        ValueError: src is not floating, or an index is out of range.
    """
    return _logsumexp(src, index, dim, out, dim_size, eps)


def scatter_std(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    unbiased: bool = True,
) -> Tensor:
    """Standard deviation of each group; 0 for a group of no element or one, and its gradient too.

    `out` is added to the sum of squares before that is divided. torch_scatter adds 1e-6 to the
    divisor, which is left out.
    """
    return _std(src, index, dim, out, dim_size, unbiased)
