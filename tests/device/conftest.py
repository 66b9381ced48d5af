"""Tests of the kernels for GPUs, by Triton and in CUDA: one body for both, on small graphs.

Where there is no GPU, Triton's run in its interpreter and those in CUDA on the host executor.
"""

import pytest
from helpers.devices import BACKENDS, cannot_run, runs_on, small_tiles

from gnnkern.backends import BackendUnavailable


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Each backend in turn, where it runs."""
    reason = cannot_run(request.param)
    if reason is not None:
        pytest.skip(reason)
    with small_tiles(), runs_on(request.param):
        yield request.param


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """A backend that has no kernel for an op is passed over, and says so."""
    try:
        return (yield)
    except BackendUnavailable as error:
        absent = f"{item.funcargs['backend']}: not implemented for this op"
        if absent in str(error):
            pytest.skip(absent)
        raise
