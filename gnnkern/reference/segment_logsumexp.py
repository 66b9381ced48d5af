"""The log of the sum of exponentials of the rows between two boundaries."""

from torch import Tensor

from .scatter_logsumexp import scatter_logsumexp_reference
from .segment_gather import segment_of_position


def segment_logsumexp_reference(
    x: Tensor,  # [E, ...]
    indptr: Tensor,  # [N + 1]
) -> Tensor:  # [N, ...]
    """Return row i = the logarithm of the sum of `exp(x[indptr[i] : indptr[i + 1]])`.

    An empty segment gives -inf.
    """
    segment = segment_of_position(indptr, x.shape[0])  # [E]
    return scatter_logsumexp_reference(x, segment, indptr.shape[0] - 1)
