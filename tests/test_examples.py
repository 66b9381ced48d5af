"""Every example runs to its end, learns something, and computes what it is compared with."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# The least accuracy after the few steps of `--quick`. Guessing gives 0.1, and 0.5 for molecules,
# which so few steps do not teach to tell yet.
LEARNED = {
    "pyg_gat": 0.7,
    "dgl_gat": 0.7,
    "molecules": 0.4,
    "relations": 0.4,
    "mini_batches": 0.4,
    "partitioned": 0.6,
}


def test_every_example_is_run():
    files = {path.stem for path in (ROOT / "examples").glob("*.py")} - {"shared"}
    assert files == set(LEARNED)


@pytest.mark.parametrize("name", LEARNED)
def test_example(name):
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    run = subprocess.run(
        [sys.executable, ROOT / "examples" / f"{name}.py", "--quick"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    accuracies = [float(a) for a in re.findall(r"(?<=accuracy: )\d\.\d+", run.stdout)]
    assert accuracies and min(accuracies) >= LEARNED[name], run.stdout
    line = re.search(r"([\d.]+) times as fast; the first losses differ by (\S+), the", run.stdout)
    assert line, run.stdout
    assert float(line[1]) > 0 and float(line[2]) < 1e-5, run.stdout
