"""Tests of Triton's kernels: on a GPU, or in Triton's interpreter with small tiles."""

import pytest
from helpers.devices import cannot_run, small_tiles


@pytest.fixture(autouse=True)
def _small_tiles(request):
    """Everything but what is compiled ahead of time runs, on small tiles."""
    if request.module.__name__ == "test_cubins":
        yield
        return
    reason = cannot_run("triton")
    if reason is not None:
        pytest.skip(reason)
    with small_tiles():
        yield
