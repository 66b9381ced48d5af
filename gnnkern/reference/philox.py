"""Random bits that are a function of a seed and a position, the same on every backend."""

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_NUM_ROUNDS = 7
_MULTIPLIER_0, _MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
_KEY_STEP_0, _KEY_STEP_1 = 0x9E3779B9, 0xBB67AE85


def dropout_keep_mask(
    seed: Tensor,  # [1] int64
    num_edges: int,
    heads: int,
    p: float,
) -> Tensor:  # [E, H] bool
    """Return True where dropout with probability `p` keeps an attention coefficient.

    Element i, an edge's position in the caller's order times the heads plus the head, is kept where
    its random word reaches `dropout_threshold(p)`.
    """
    num_elements = num_edges * heads
    block = torch.arange((num_elements + 3) // 4, device=seed.device)
    word = philox_words(seed, block).flatten()[:num_elements]  # [E * H]
    return (word >= dropout_threshold(p)).view(num_edges, heads)


def dropout_threshold(p: float) -> int:
    """Return the first 32-bit word that is kept: round(p * 2^32), at most 2^32 - 1."""
    return min(int(p * 4294967296.0 + 0.5), _WORD)


def philox_words(
    seed: Tensor,  # [1] int64
    block: Tensor,  # [n] int64
) -> Tensor:  # [n, 4] int64, each in 0 .. 2^32 - 1
    """Return the four output words of Philox4x32 with 7 rounds for each counter (block, 0).

    Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011).
    """
    key_0, key_1 = seed & _WORD, (seed >> 32) & _WORD
    counter_0, counter_1 = block & _WORD, (block >> 32) & _WORD
    counter_2 = counter_3 = torch.zeros_like(block)
    for _ in range(_NUM_ROUNDS):
        # An int64 product wraps, and its bits are those of the unsigned product.
        product_0, product_1 = _MULTIPLIER_0 * counter_0, _MULTIPLIER_1 * counter_2
        high_0, low_0 = (product_0 >> 32) & _WORD, product_0 & _WORD
        high_1, low_1 = (product_1 >> 32) & _WORD, product_1 & _WORD
        counter_0, counter_1, counter_2, counter_3 = (
            high_1 ^ counter_1 ^ key_0,
            low_1,
            high_0 ^ counter_3 ^ key_1,
            low_0,
        )
        key_0, key_1 = (key_0 + _KEY_STEP_0) & _WORD, (key_1 + _KEY_STEP_1) & _WORD
    return torch.stack([counter_0, counter_1, counter_2, counter_3], dim=1)
