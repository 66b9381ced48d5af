"""Run PyG's own tests on patched functions, and say which results differ from unpatched ones.

    python tests/third_party/run_pyg.py /path/to/pytorch_geometric [--level fuse] [test/nn/aggr ...]

The checkout is of a tag near the installed version and stays outside of this repository; its tests
run against the installed package. A test that fails patched and passes unpatched is an error.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
TESTS = (
    "test/utils/test_scatter.py",
    "test/utils/test_segment.py",
    "test/utils/test_softmax.py",
    "test/utils/test_spmm.py",
    "test/nn/aggr",
    "test/nn/conv",
    "test/test_edge_index.py",
)
# They need packages that are not there, or compare times.
IGNORED = ("test/nn/conv/cugraph", "test/nn/aggr/test_quantile.py")


def run(checkout, tests, level, arguments):
    """The outcome of every test, and what pytest wrote."""
    with tempfile.TemporaryDirectory() as folder:
        # Without the package of the checkout, whose files the installed one stands for.
        Path(folder, "test").symlink_to(checkout / "test")
        present = [test for test in tests if Path(folder, test).exists()]
        command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-p", "gnnkern_plugin"]
        command += ["-p", "no:cacheprovider", "-rA", "-q", "--tb=short", f"--gnnkern-level={level}"]
        command += [f"--ignore={path}" for path in IGNORED if path.startswith(tuple(present))]
        paths = [str(HERE), str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        done = subprocess.run(
            [*command, *arguments, *present],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    pattern = re.compile(r"^(PASSED|FAILED|ERROR|SKIPPED|XFAIL) (\S+::\S+)", re.MULTILINE)
    outcomes = {name: outcome for outcome, name in pattern.findall(done.stdout)}
    return outcomes, done.stdout + done.stderr


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("checkout", type=Path)
    parser.add_argument("tests", nargs="*", default=list(TESTS))
    parser.add_argument("--level", default="fuse", choices=["ops", "fuse"])
    parser.add_argument("--pytest", nargs="*", default=[], help="further arguments of pytest")
    options = parser.parse_args()
    tests = options.tests or TESTS
    checkout = options.checkout.resolve()
    if not (checkout / "test").is_dir():
        sys.exit(f"{checkout}: no folder `test` there")
    patched, text = run(checkout, tests, options.level, options.pytest)
    print(text[text.rfind("= gnnkern =") :])
    if not patched:
        sys.exit("no test ran:\n" + text)
    plain, _ = run(checkout, tests, "none", options.pytest)
    count = sum(outcome == "PASSED" for outcome in plain.values())
    print(f"unpatched: {count} passed of {len(plain)}")
    broken = [n for n, outcome in plain.items() if outcome == "PASSED" != patched.get(n)]
    for name in broken:
        print(f"passes unpatched, {patched.get(name, 'not run')} patched: {name}")
    if broken:
        print(text)
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
