"""Dropout of attention: which elements are kept depends on a seed and on their position alone."""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

__all__ = ["drop"]


@triton.jit
@no_type_check
def drop(value, seed_ptr, threshold, scale, element):
    """`value * scale` where the element is kept, otherwise 0.

    Element i has word i % 4 of Philox's block i // 4, in 7 rounds, as `reference.philox` says.
    """
    if seed_ptr is None:
        kept = value
    else:
        block = element >> 2
        low = (block & 0xFFFFFFFF).to(tl.uint32)
        high = (block >> 32).to(tl.uint32)
        zero = low * 0
        seed = tl.load(seed_ptr)
        word_0, word_1, word_2, word_3 = tl.philox(seed, low, high, zero, zero, n_rounds=7)
        place = element & 3
        word = tl.where(
            place < 2,
            tl.where(place == 0, word_0, word_1),
            tl.where(place == 2, word_2, word_3),
        )
        is_kept = word.to(tl.int64) - 2147483648 >= threshold.to(tl.int64)
        kept = tl.where(is_kept, value * tl.full([1, 1, 1], scale, value.dtype), 0.0)
    return kept
