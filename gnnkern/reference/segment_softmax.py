"""Softmax over the rows of each segment, column by column."""

from torch import Tensor

from ._precision import widen
from .scatter_reduce import scatter_reduce_reference
from .segment_gather import segment_of_position


def segment_softmax_reference(
    x: Tensor,  # [E, ...]
    indptr: Tensor,  # [N + 1]
) -> Tensor:  # [E, ...]
    """Return the softmax of `x[indptr[i] : indptr[i + 1]]` over dimension 0, for every i.

    A column of a segment that is -inf throughout gives 0.
    """
    return softmax_by_index(x, segment_of_position(indptr, x.shape[0]), indptr.shape[0] - 1)


def softmax_by_index(
    x: Tensor,  # [E, ...]
    index: Tensor,  # [E]
    num_segments: int,
) -> Tensor:  # [E, ...]
    """Return the softmax of `x` over all rows with equal `index`, column by column."""
    wide = widen(x)
    highest = scatter_reduce_reference(wide.detach(), index, num_segments, "max")
    highest = highest.masked_fill(highest == float("-inf"), 0)  # [N, ...]
    power = (wide - highest.index_select(0, index)).exp()  # [E, ...]
    total = scatter_reduce_reference(power, index, num_segments, "sum")  # [N, ...]
    # The highest score alone contributes 1, so that a total of 0 has nothing but -inf in it.
    total = total.masked_fill(total == 0, 1)
    return (power / total.index_select(0, index)).to(x.dtype)
