"""Products per segment by torch, one call each: where its matrix units outweigh the calls."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

# Multiply-adds of an average segment from which BLAS is faster in bfloat16, with matrix units and 2
# threads (8 and 64 segments of 64 x 64, 256 x 256 and 512 x 512 on a Xeon with AMX).
_LEAST_WORK = 1 << 25
# Sums of outer products that are larger than this would take much memory for their parts.
_LARGEST_SUM = 1 << 18


@lru_cache
def _has_bfloat16_units() -> bool:
    return any(
        getattr(torch.cpu, name, bool)()
        for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    )


def prefers_dense(x: Tensor, num_segments: int, width: int, out_width: int, sums: bool) -> bool:
    """Whether the products of [E, width] rows with [width, out_width] matrices belong to BLAS."""
    if sums and width * out_width > _LARGEST_SUM:
        return True
    work = x.shape[0] * width * out_width
    return (
        x.dtype == torch.bfloat16 and work >= _LEAST_WORK * num_segments and _has_bfloat16_units()
    )


def _is_sorted(order: Tensor) -> bool:
    return bool((order[1:] > order[:-1]).all())


def multiply_dense(
    x: Tensor,  # [E, K]
    indptr: Tensor,  # [R + 1]
    order: Tensor | None,  # [E]
    weight: Tensor,  # [R, K, M]
    bias: Tensor | None,  # [R, M]
) -> Tensor:  # [E, M]
    """out[i] = x[i] @ weight[r] + bias[r] for the positions i = order[e] of segment r."""
    if order is not None and not _is_sorted(order):
        sorted_out = multiply_dense(x.index_select(0, order), indptr, None, weight, bias)
        return torch.empty_like(sorted_out).index_copy_(0, order, sorted_out)
    sizes = indptr.diff().tolist()
    out = x.new_empty((x.shape[0], weight.shape[2]))
    for r, (rows, to) in enumerate(zip(x.split(sizes), out.split(sizes), strict=True)):
        if sizes[r] == 0:
            continue
        if bias is None:
            torch.mm(rows, weight[r], out=to)
        else:
            torch.addmm(bias[r], rows, weight[r], out=to)
    return out


def sum_outer_dense(
    x: Tensor,  # [E, K]
    y: Tensor,  # [E, M]
    indptr: Tensor,  # [R + 1]
    order: Tensor | None,  # [E]
) -> Tensor:  # [R, K, M]
    """out[r] = the sum of x[i]^T y[i] over the positions i = order[e] of segment r."""
    if order is not None and not _is_sorted(order):
        x, y = x.index_select(0, order), y.index_select(0, order)
    sizes = indptr.diff().tolist()
    out = x.new_empty((len(sizes), x.shape[1], y.shape[1]))
    for r, (left, right) in enumerate(zip(x.split(sizes), y.split(sizes), strict=True)):
        torch.mm(left.t(), right, out=out[r])
    return out
