"""What the process keeps of its memory."""

import platform
import subprocess
import sys

import pytest

# Page faults of a block of 64 MB, after others of that size were freed: an aligned block needs a
# little more room than it leaves, so the first ones lie side by side.
_NEXT_BLOCK = """
import resource, sys
import torch
from gnnkern.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(12):
    torch.empty(1 << 24).fill_(1.0)
before = faults()
torch.empty(1 << 24).fill_(1.0)
print(faults() - before)
"""


def faults_of_next_block(mode):
    run = [sys.executable, "-c", _NEXT_BLOCK, mode]
    return int(subprocess.run(run, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_used_again_without_page_faults():
    assert faults_of_next_block("keep") < 16
    # By default its pages are new, small or large ones.
    assert faults_of_next_block("default") >= 32
