"""Row i of x is repeated once for every position of segment i."""

import torch
from torch import Tensor


def segment_gather_reference(
    x: Tensor,  # [N, ...]
    indptr: Tensor,  # [N + 1]
) -> Tensor:  # [E, ...]
    """Return `x[i]` at every position in `indptr[i] : indptr[i + 1]`."""
    return x.index_select(0, segment_of_position(indptr, int(indptr[-1])))


def segment_of_position(indptr: Tensor, num_positions: int) -> Tensor:  # [E]
    """Return the segment of each position: that of the last boundary at or before it."""
    position = torch.arange(num_positions, device=indptr.device)
    return torch.searchsorted(indptr.long().contiguous(), position, right=True) - 1
