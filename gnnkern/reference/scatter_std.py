"""The standard deviation of rows with equal index."""

import torch
from torch import Tensor

from ._precision import widen
from .scatter_reduce import scatter_reduce_reference


def scatter_std_reference(
    x: Tensor,  # [E, ...]
    index: Tensor,  # [E]
    num_segments: int,
    unbiased: bool,
) -> Tensor:  # [num_segments, ...]
    """Return row i = the standard deviation of all rows `x[e]` with `index[e] == i`.

    The sum of squared distances from the mean is divided by the number of rows less 1 (`unbiased`)
    or by their number, at least by 1. A deviation of 0 has gradient 0.
    """
    index = index.long()
    wide = widen(x)
    mean = scatter_reduce_reference(wide, index, num_segments, "mean")  # [N, ...]
    square = (wide - mean.index_select(0, index)).square()  # [E, ...]
    total = scatter_reduce_reference(square, index, num_segments, "sum")  # [N, ...]
    count = torch.bincount(index, minlength=num_segments)  # [N]
    divisor = (count - 1 if unbiased else count).clamp(min=1).to(total.dtype)
    variance = total / divisor.view(-1, *[1] * (x.dim() - 1))
    still = variance == 0
    return torch.where(still, 0, torch.where(still, 1, variance).sqrt()).to(x.dtype)
