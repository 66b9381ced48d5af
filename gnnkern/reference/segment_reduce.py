"""Consecutive rows between two boundaries are reduced to one row."""

from torch import Tensor

from .scatter_reduce import scatter_reduce_reference
from .segment_gather import segment_of_position


def segment_reduce_reference(
    x: Tensor,  # [E, ...]
    indptr: Tensor,  # [N + 1]
    reduce: str,
) -> Tensor:  # [N, ...]
    """Return row i = the reduction of `x[indptr[i] : indptr[i + 1]]`.

    `reduce` is one of `sum`, `mean`, `max`, `min`, `mul`. An empty segment gives 0 (`mul`: 1).
    """
    segment = segment_of_position(indptr, x.shape[0])  # [E]
    return scatter_reduce_reference(x, segment, indptr.shape[0] - 1, reduce)
