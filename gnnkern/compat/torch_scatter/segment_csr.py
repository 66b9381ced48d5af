"""The family of boundaries: rows `indptr[i]` to `indptr[i + 1]` of `src` reduced into row i.

    src     [..., E, ...] with E along `dim = indptr.dim() - 1`
    indptr  [N + 1], or with leading dimensions that broadcast to those of src; does not decrease

An empty segment gets 0. `out` is written over. Results, numerics and gradients are those of the
scatter family. Rows outside of all segments have no part in it, as in torch_scatter.
"""

import torch
from torch import Tensor

from gnnkern.backends import FLOAT_DTYPES
from gnnkern.compat._along import reduce_along, select_along
from gnnkern.compat._script import called_in_python
from gnnkern.compat.torch_scatter.segment_coo import gather
from gnnkern.ops.segment_gather import segment_gather
from gnnkern.ops.segment_reduce import segment_reduce

__all__ = [
    "gather_csr",
    "segment_add_csr",
    "segment_csr",
    "segment_max_csr",
    "segment_mean_csr",
    "segment_min_csr",
    "segment_sum_csr",
]


def _boundaries(indptr: Tensor) -> Tensor:
    """The boundaries, one-dimensional where all leading dimensions share them."""
    *lead, _ = zip(indptr.shape, indptr.stride(), strict=True)
    if all(size == 1 or stride == 0 for size, stride in lead) and 0 not in indptr.shape:
        for _ in range(indptr.dim() - 1):
            indptr = indptr.select(0, 0)
    return indptr


def _covers(indptr: Tensor, num_rows: int) -> bool:
    """Whether the segments hold every row: else the kernels would refuse them."""
    return bool((indptr[0] == 0) & (indptr[-1] == num_rows))


def _segment_of_row(indptr: Tensor, src: Tensor) -> Tensor:  # [..., E]
    """The segment of each row; N for a row in none."""
    dim, num_segments = indptr.dim() - 1, indptr.shape[-1] - 1
    indptr = indptr.expand(*src.shape[:dim], num_segments + 1).contiguous()
    row = torch.arange(src.shape[dim], dtype=indptr.dtype, device=indptr.device)
    row = row.expand(*src.shape[:dim], -1).contiguous()
    segment = torch.searchsorted(indptr, row, right=True) - 1
    return torch.where(segment < 0, num_segments, segment)


@called_in_python
def _reduce(src: Tensor, indptr: Tensor, out: Tensor | None, reduce: str) -> Tensor:
    dim, shared = indptr.dim() - 1, _boundaries(indptr)
    plain = shared.dim() == 1 and src.dtype in FLOAT_DTYPES
    if plain and _covers(shared, src.shape[dim]):
        rows = segment_reduce(src.movedim(dim, 0), shared, reduce=reduce)
        result = rows.movedim(0, dim).contiguous()
    else:
        num_segments = indptr.shape[-1] - 1
        segment = _segment_of_row(indptr, src)
        result = reduce_along(src, segment, dim, num_segments + 1, reduce, "trunc")
        result = result.narrow(dim, 0, num_segments).contiguous()
    return result if out is None else out.copy_(result)


@called_in_python
def _select(src: Tensor, indptr: Tensor, out: Tensor | None, reduce: str) -> tuple[Tensor, Tensor]:
    dim, num_segments = indptr.dim() - 1, indptr.shape[-1] - 1
    segment = _segment_of_row(_boundaries(indptr) if dim == 0 else indptr, src)
    best, argument = select_along(src, segment, dim, num_segments + 1, reduce)
    best = best.narrow(dim, 0, num_segments).contiguous()
    argument = argument.narrow(dim, 0, num_segments).contiguous()
    return best if out is None else out.copy_(best), argument


@called_in_python
def _gather(src: Tensor, indptr: Tensor, out: Tensor | None) -> Tensor:
    dim, shared = indptr.dim() - 1, _boundaries(indptr)
    if shared.dim() == 1 and src.dtype in FLOAT_DTYPES:
        rows = segment_gather(src.movedim(dim, 0), shared)
        gathered = rows.movedim(0, dim).contiguous()
    else:
        num_rows = int(indptr.flatten()[-1]) if src.numel() else 0
        lead = src.new_empty(()).expand(*src.shape[:dim], num_rows)
        gathered = gather(src, _segment_of_row(indptr, lead), None)
    return gathered if out is None else out.copy_(gathered)


def segment_sum_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Tensor:
    """Sum of each segment."""
    return _reduce(src, indptr, out, "sum")


def segment_add_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Tensor:
    """Another name of `segment_sum_csr`."""
    return _reduce(src, indptr, out, "sum")


def segment_mean_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Tensor:
    """Mean of each segment; of integers rounded towards 0."""
    return _reduce(src, indptr, out, "mean")


def segment_min_csr(
    src: Tensor, indptr: Tensor, out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Minimum of each segment and the position where it lies, as in `scatter_min`."""
    return _select(src, indptr, out, "min")


def segment_max_csr(
    src: Tensor, indptr: Tensor, out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Maximum of each segment and the position where it lies, as in `scatter_max`."""
    return _select(src, indptr, out, "max")


def segment_csr(
    src: Tensor, indptr: Tensor, out: Tensor | None = None, reduce: str = "sum"
) -> Tensor:
    """Reduce by `reduce`: "sum", "add", "mean", "min" or "max".

    Raises:
        ValueError: `reduce` is none of these.
    """
    if reduce == "min" or reduce == "max":
        return _select(src, indptr, out, reduce)[0]
    if reduce == "sum" or reduce == "add":
        return _reduce(src, indptr, out, "sum")
    if reduce == "mean":
        return _reduce(src, indptr, out, "mean")
    raise ValueError(f"segment_csr: reduce must be sum, add, mean, min or max, got {reduce}")


def gather_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Tensor:
    """Row i of src at every position `indptr[i]` to `indptr[i + 1]`.

    Args:
        src: [..., N, ...] with N along `dim = indptr.dim() - 1`.
        indptr: [N + 1], or with leading dimensions that broadcast to those of src, from 0 to E.
        out: What to write into, or None.

    Returns:
        [..., E, ...], of any dtype. Gradients: of src, by any number of derivatives.
    """
    return _gather(src, indptr, out)
