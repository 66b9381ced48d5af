"""Tests that need a GPU, at the sizes and with the configurations that users get."""

import pytest
import torch
from helpers.devices import cannot_run


@pytest.fixture(autouse=True)
def _needs_a_gpu():
    reason = cannot_run("triton")
    if reason is None and not torch.cuda.is_available():
        reason = "no CUDA device, which torch says it sees none of"
    if reason is not None:
        pytest.skip(reason)
