"""A plugin of pytest for PyG's own tests: patches PyG, seeds every test, says what was accelerated.

It is loaded by `run_pyg.py`, before PyG's tests are collected.
"""

import random

import numpy
import pytest
import torch

import gnnkern


def pytest_addoption(parser):
    parser.addoption("--gnnkern-level", default="fuse", choices=["none", "ops", "fuse"])


def pytest_configure(config):
    level = config.getoption("--gnnkern-level")
    if level != "none":
        gnnkern.patch_pyg(level)


@pytest.fixture(autouse=True)
def _seeded():
    random.seed(1)
    numpy.random.seed(1)
    torch.manual_seed(1)


def pytest_terminal_summary(terminalreporter, config):
    if config.getoption("--gnnkern-level") != "none":
        terminalreporter.section("gnnkern")
        terminalreporter.write_line(str(gnnkern.pyg_report()))


def pytest_sessionfinish(session):
    level = session.config.getoption("--gnnkern-level")
    if level != "none" and gnnkern.pyg_report().num_accelerated == 0 and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
