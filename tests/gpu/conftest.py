"""Tests that need a GPU, at the sizes and with the configurations that users get."""

import pytest
import torch
from helpers.devices import BACKENDS, cannot_run


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Each backend in turn, where it runs on a GPU."""
    reason = cannot_run(request.param)
    if reason is None and not torch.cuda.is_available():
        reason = "no CUDA device, which torch says it sees none of"
    if reason is not None:
        pytest.skip(reason)
    return request.param
