"""Tests of the kernels for GPUs, by Triton and in CUDA: one body for both, on small graphs.

Where there is no GPU, Triton's run in its interpreter and those in CUDA on the host executor.
"""

import pytest
from helpers.devices import BACKENDS, cannot_run, runs_on, small_tiles

from gnnkern.backends import BackendUnavailable


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", BACKENDS)


@pytest.fixture(autouse=True)
def _on_device(request):
    backend = request.node.callspec.params["backend"]
    reason = cannot_run(backend)
    if reason is not None:
        pytest.skip(reason)
    with small_tiles(), runs_on(backend):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """A backend that has no kernel for an op is passed over, and says so."""
    try:
        return (yield)
    except BackendUnavailable as error:
        absent = f"{item.callspec.params['backend']}: not implemented for this op"
        if absent in str(error):
            pytest.skip(absent)
        raise
