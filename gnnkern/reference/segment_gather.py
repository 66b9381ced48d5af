"""Row i of x is repeated once for every position of segment i."""

import torch
from torch import Tensor


def segment_gather_reference(
    x: Tensor,  # [N, ...]
    indptr: Tensor,  # [N + 1]
) -> Tensor:  # [E, ...]
    """Return `x[i]` at every position in `indptr[i] : indptr[i + 1]`."""
    return x.index_select(0, segment_of_position(indptr))


def segment_of_position(indptr: Tensor, num_positions: int | None = None) -> Tensor:  # [E]
    """Return the segment that each position belongs to, as int64.

    `num_positions` is `indptr[-1]` where the caller knows it.
    """
    return torch.repeat_interleave(indptr.diff(), output_size=num_positions).long()
