"""Runs of the bench on a machine that is not measured."""

import pytest
from helpers.machines import made_up_machine

from gnnkern.bench import cost


@pytest.fixture(autouse=True)
def _made_up_machine(monkeypatch):
    monkeypatch.setattr(cost, "machine", made_up_machine)
