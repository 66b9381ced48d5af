"""Parts of Triton's kernels that no op shows by itself."""

import pytest
import torch
import triton
import triton.language as tl
from helpers.devices import DEVICE

from gnnkern._attention_loops import Dropout
from gnnkern._triton.dropout import drop
from gnnkern.reference.philox import dropout_threshold, philox_words


@triton.jit
def _drop_kernel(out_ptr, element_ptr, seed_ptr, threshold, scale, BLOCK: tl.constexpr):
    position = tl.arange(0, BLOCK)[None, None, :]
    element = tl.load(element_ptr + position)
    one = tl.full([1, 1, BLOCK], 1, tl.float32)
    tl.store(out_ptr + position, drop(one, seed_ptr, threshold, scale, element))


@pytest.mark.parametrize("first", [0, 2**32 - 33, 2**34 - 30, 2**40 + 3])
@pytest.mark.parametrize("p", [0.2, 0.75])
def test_elements_beyond_32_bits_have_words_of_their_own(first, p):
    seed = torch.tensor([2**61 + 12345], device=DEVICE)
    element = torch.arange(64, device=DEVICE) + first
    kept = torch.empty(64, device=DEVICE)
    _drop_kernel[(1,)](kept, element, *Dropout.of(seed, p), BLOCK=64)
    words = philox_words(seed, element // 4)
    word = words.gather(1, (element % 4)[:, None])[:, 0]
    expected = (word >= dropout_threshold(p)) / (1 - p)
    torch.testing.assert_close(kept, expected.float())


def test_float32_is_multiplied_as_torch_multiplies_it():
    from gnnkern._triton.segment_matmul import _precision

    before = torch.get_float32_matmul_precision()
    try:
        for allowed, expected in (("highest", "ieee"), ("high", "tf32"), ("medium", "tf32")):
            torch.set_float32_matmul_precision(allowed)
            assert _precision(torch.float32) == expected
            assert _precision(torch.float64) == "ieee"
    finally:
        torch.set_float32_matmul_precision(before)
