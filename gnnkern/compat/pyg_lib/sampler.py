"""pyg-lib's sampler, which gnnkern does not have: PyG reads its signature and finds it wanting."""

from typing import Any, NoReturn

__all__ = ["neighbor_sample"]


def neighbor_sample(*arguments: Any) -> NoReturn:
    """Sample no neighbours.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError(
        "pyg_lib.sampler.neighbor_sample: gnnkern stands in for the ops of pyg-lib and samples "
        "no neighbours; install pyg-lib for NeighborLoader"
    )
