"""The family of sorted indices: rows reduced along the last dimension of `index`.

    src     [..., E, ...] with E along `dim = index.dim() - 1`
    index   [E], or with leading dimensions that broadcast to those of src; sorted along its last

`out` and `dim_size` mean what they mean in `scatter`, and so do results, gradients and errors. An
index that is not sorted gives the right result too.
"""

import torch
from torch import Tensor

from gnnkern.compat._along import broadcast
from gnnkern.compat._script import called_in_python
from gnnkern.compat.torch_scatter.scatter import average, scatter_sum, select

__all__ = [
    "gather_coo",
    "segment_add_coo",
    "segment_coo",
    "segment_max_coo",
    "segment_mean_coo",
    "segment_min_coo",
    "segment_sum_coo",
]


def _expanded(src: Tensor, index: Tensor) -> Tensor:
    """The index with the leading sizes of src."""
    return index.expand(src.shape[: index.dim() - 1] + index.shape[-1:])


@called_in_python
def gather(src: Tensor, index: Tensor, out: Tensor | None) -> Tensor:
    """`gather_coo` with every argument, as TorchScript calls it."""
    dim = index.dim() - 1
    if dim == 0:
        gathered = src.index_select(0, index)
    else:
        index = _expanded(src, index)
        shape = torch.Size((*src.shape[:dim], index.shape[-1], *src.shape[dim + 1 :]))
        gathered = src.gather(dim, broadcast(index, src.new_empty(()).expand(shape), dim).long())
    return gathered if out is None else out.copy_(gathered)


def segment_sum_coo(
    src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None
) -> Tensor:
    """Sum of each segment, added to `out`."""
    return scatter_sum(src, _expanded(src, index), index.dim() - 1, out, dim_size)


def segment_add_coo(
    src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None
) -> Tensor:
    """Another name of `segment_sum_coo`."""
    return segment_sum_coo(src, index, out, dim_size)


def segment_mean_coo(
    src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None
) -> Tensor:
    """Mean of each segment; of integers rounded towards 0."""
    return average(src, _expanded(src, index), index.dim() - 1, out, dim_size, "trunc")


def segment_min_coo(
    src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Minimum of each segment and its position, as in `scatter_min`."""
    return select(src, _expanded(src, index), index.dim() - 1, out, dim_size, "min")


def segment_max_coo(
    src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Maximum of each segment and its position, as in `scatter_max`."""
    return select(src, _expanded(src, index), index.dim() - 1, out, dim_size, "max")


def segment_coo(
    src: Tensor,
    index: Tensor,
    out: Tensor | None = None,
    dim_size: int | None = None,
    reduce: str = "sum",
) -> Tensor:
    """Reduce by `reduce`: "sum", "add", "mean", "min" or "max".

    Raises:
        ValueError: `reduce` is none of these, or an index is out of range.
    """
    if reduce == "sum" or reduce == "add":
        return segment_sum_coo(src, index, out, dim_size)
    if reduce == "mean":
        return segment_mean_coo(src, index, out, dim_size)
    if reduce == "min" or reduce == "max":
        return select(src, _expanded(src, index), index.dim() - 1, out, dim_size, reduce)[0]
    raise ValueError(f"segment_coo: reduce must be sum, add, mean, min or max, got {reduce}")


def gather_coo(src: Tensor, index: Tensor, out: Tensor | None = None) -> Tensor:
    """Row `index[e]` of src for every e: the inverse of a reduction by `segment_coo`.

    Args:
        src: [..., N, ...] with N along `dim = index.dim() - 1`.
        index: [E], or with the leading sizes of src.
        out: What to write into, or None.

    Returns:
        [..., E, ...], of any dtype. Gradients: of src, by any number of derivatives.
    """
    return gather(src, index, out)
