"""Settings of every test: two threads, fixed seeds, repeatable property tests."""

import pytest
import torch
from helpers.checks import poisoned_memory
from helpers.placement import Placement

# Tests on a GPU need no more than pytest.
try:
    import hypothesis
except ImportError:
    pass
else:
    hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
    hypothesis.settings.load_profile("repeatable")


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="where op tests put their tensors")


def pytest_configure(config):
    Placement.device = torch.device(config.getoption("--device"))


@pytest.fixture(autouse=True)
def _pinned_threads_and_seed():
    torch.set_num_threads(2)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(2)


@pytest.fixture
def poison():
    """Fills uninitialised memory with NaN, so that an unwritten element shows."""
    with poisoned_memory():
        yield
