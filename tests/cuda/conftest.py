"""Tests of CUDA's kernels alone: on a GPU, or on the host executor."""

import pytest
from helpers.devices import cannot_run, runs_on


@pytest.fixture
def cuda():
    """The backend, where it runs."""
    reason = cannot_run("cuda")
    if reason is not None:
        pytest.skip(reason)
    with runs_on("cuda"):
        yield "cuda"
