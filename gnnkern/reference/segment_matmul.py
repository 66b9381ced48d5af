"""The rows between two boundaries times the matrix of their segment."""

import torch
from torch import Tensor


def segment_matmul_reference(
    x: Tensor,  # [N, K]
    indptr: Tensor,  # [R + 1]
    weight: Tensor,  # [R, K, M]
    bias: Tensor | None = None,  # [R, M]
) -> Tensor:  # [N, M]
    """Return `x[i] @ weight[r] + bias[r]` for the rows `indptr[r]` to `indptr[r + 1]`, all r."""
    parts = zip(x.split(indptr.diff().tolist()), weight.unbind(), strict=True)
    # The empty product stands for no segments at all.
    products = [x[:0] @ weight.sum(0), *(rows @ matrix for rows, matrix in parts)]
    if bias is not None:
        pairs = zip(products, [bias.sum(0), *bias.unbind()], strict=True)
        products = [product + row for product, row in pairs]
    return torch.cat(products)
