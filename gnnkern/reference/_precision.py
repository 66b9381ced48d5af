"""Which precision a computation is carried in."""

import torch
from torch import Tensor


def widen(x: Tensor) -> Tensor:
    """Return `x` in the dtype its sums are carried in: float32 for the halves, else its own."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
