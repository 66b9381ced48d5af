"""A probe of a moment, a machine made up, and a cache directory of each test's own."""

import pytest
from helpers.machines import made_up_machine

from gnnkern.hardware import Effort

TINY = Effort(
    row_bytes=(64, 256), largest_bytes=1 << 20, moved_bytes=1 << 16, repeats=2, matrix=32, calls=3
)


@pytest.fixture
def tiny():
    """What takes a fraction of a second."""
    return TINY


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def machine():
    """A machine of round numbers."""
    return made_up_machine()
