"""Every row times the matrix of its type."""

import torch
from torch import Tensor

from .segment_matmul import segment_matmul_reference


def gather_matmul_reference(
    x: Tensor,  # [N, K]
    weight: Tensor,  # [R, K, M]
    type_index: Tensor,  # [N]
    bias: Tensor | None = None,  # [R, M]
) -> Tensor:  # [N, M]
    """Return `x[i] @ weight[type_index[i]] + bias[type_index[i]]` as row i."""
    # Rows of one type become a segment, and go back to where they were.
    order = type_index.argsort(stable=True)  # [N]
    count = torch.bincount(type_index, minlength=weight.shape[0])  # [R]
    indptr = torch.nn.functional.pad(count.cumsum(0), (1, 0))  # [R + 1]
    products = segment_matmul_reference(x.index_select(0, order), indptr, weight, bias)
    return products.index_select(0, order.argsort())
