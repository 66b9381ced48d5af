"""The log of the sum of exponentials of rows with equal index."""

import torch
from torch import Tensor

from ._precision import widen
from .scatter_reduce import scatter_reduce_reference


def scatter_logsumexp_reference(
    x: Tensor,  # [E, ...]
    index: Tensor,  # [E]
    num_segments: int,
) -> Tensor:  # [num_segments, ...]
    """Return row i = the logarithm of the sum of `exp(x[e])` over all e with `index[e] == i`.

    An index that never occurs gives -inf. A column that is -inf throughout has gradient 0.
    """
    wide = widen(x)
    highest = scatter_reduce_reference(wide.detach(), index, num_segments, "max")
    highest = highest.masked_fill(highest.isinf(), 0)  # [N, ...]
    power = (wide - highest.index_select(0, index)).exp()  # [E, ...]
    total = scatter_reduce_reference(power, index, num_segments, "sum")  # [N, ...]
    nothing = total == 0
    out = highest + torch.where(nothing, 1, total).log()
    return out.masked_fill(nothing, float("-inf")).to(x.dtype)
