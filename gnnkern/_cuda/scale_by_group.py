"""The launcher of scale_by_group.cu: rows by their distance from what their groups share."""

from __future__ import annotations

from torch import Tensor

from gnnkern._cuda.launch import launch
from gnnkern._cuda.plan import segments_walk
from gnnkern._native import SCALAR_CODES, rows_of
from gnnkern._walk import Walk

__all__ = ["scale_by_group"]


def scale_by_group(
    x: Tensor,  # [E, ...]
    group: Tensor,  # [E], or [num_groups + 1] boundaries
    by_boundaries: bool,
    statistics: Tensor,  # [num_groups, 2 or 3, ...]: the shift, in one part or two, and the slope
    grad: Tensor,  # [num_groups, ...]
    exponential: bool,
) -> Tensor:  # [E, ...]
    """(x - shift) * slope * grad of each row's group, or exp(x - shift) in place of x - shift."""
    out = x.new_empty(x.shape)
    if out.numel() == 0:
        return out
    x, x_stride, width = rows_of(x)
    group = group.contiguous()
    num_edges = x.shape[0]
    walk = Walk(group, None, None, None, num_edges)
    if by_boundaries:
        walk = segments_walk(group, num_edges)
    launch(
        "scale_by_group",
        x.device,
        walk.fields(),
        out,
        x,
        None if by_boundaries else group,
        statistics.contiguous(),
        (statistics[:, -1] * grad.to(statistics.dtype)).contiguous(),
        SCALAR_CODES[x.dtype],
        width,
        x_stride,
        exponential,
    )
    return out
