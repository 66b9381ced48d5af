"""`KeyedDropout`: dropout that does not depend on which rank holds a node."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["KeyedDropout", "kept_places", "mixed"]


class KeyedDropout:
    """Dropout whose masks follow from global node, column, site and step: the same for any parts.

    Called as `dropout(x, p, training)`, in place of `gnnkern.nn.models.drop`. Masks are bits of
    a 64-bit hash (splitmix64) of the element's place in the whole tensor; the probability is met
    within 2^-24.

    Args:
        nodes: int64 [n] global ids of the rows.
        seed: Of all masks.
    """

    def __init__(self, nodes: Tensor, seed: int = 0) -> None:
        self._nodes, self._seed = nodes, seed
        self._step = self._site = 0

    def begin(self, step: int) -> None:
        """Begin a step, or a step of a window of that number: masks follow from the number."""
        self._step, self._site = step, 0

    def __call__(self, x: Tensor, p: float, training: bool) -> Tensor:  # [n, F] -> [n, F]
        """Drop elements of x with probability p, and scale the others by 1 / (1 - p)."""
        if not training or p == 0.0:
            return x
        self._site += 1
        salt = mixed(mixed(self._seed * 1_000_003 + self._step) + self._site)
        if x.layout is torch.sparse_csr:
            return self._sparse(x, p, salt)
        columns = torch.arange(x.shape[1], device=x.device)
        place = self._nodes.to(x.device)[:, None] * x.shape[1] + columns
        return x * kept_places(place, salt, p).to(x.dtype).div_(1.0 - p)

    def _sparse(self, x: Tensor, p: float, salt: int) -> Tensor:
        """Of a sparse matrix the stored values."""
        rows = torch.repeat_interleave(self._nodes.to(x.device), x.crow_indices().diff())
        kept = kept_places(rows * x.shape[1] + x.col_indices(), salt, p)
        values = x.values() * kept.to(x.dtype).div_(1.0 - p)
        return torch.sparse_csr_tensor(
            x.crow_indices(), x.col_indices(), values, x.shape, check_invariants=False
        )


# Of splitmix64 (Steele, Lea and Flood 2014), as signed integers.
_STEP = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


def kept_places(place: Tensor, salt: int, p: float) -> Tensor:
    """Whether each place of a tensor is kept: 24 bits of its hash at or above p."""
    bits = place * _STEP + salt
    bits = (bits ^ ((bits >> 30) & (2**34 - 1))) * _FIRST
    bits = (bits ^ ((bits >> 27) & (2**37 - 1))) * _SECOND
    return ((bits >> 40) & (2**24 - 1)) >= int(p * 2**24)


def mixed(value: int) -> int:
    """The same hash of one number, as a signed 64-bit integer."""
    wrap = 2**64 - 1
    bits = (value * (_STEP & wrap)) & wrap
    bits = ((bits ^ (bits >> 30)) * (_FIRST & wrap)) & wrap
    bits = ((bits ^ (bits >> 27)) * (_SECOND & wrap)) & wrap
    bits ^= bits >> 31
    return bits - 2**64 if bits >= 2**63 else bits
