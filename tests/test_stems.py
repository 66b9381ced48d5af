"""One op, one stem: every file of every op is where its name says."""

import ast
from pathlib import Path

import pytest
from helpers.cases import OPS

import gnnkern

ROOT = Path(__file__).parent.parent

# Kernels that share one source because they are one loop: the edges into a node and the rows of a
# segment are the same to it.
SHARED_SOURCES = {
    "edge_softmax": "segment_softmax",
    "spmm": "row_reduce",
    "segment_reduce": "row_reduce",
    "scatter_reduce": "row_reduce",
    "segment_logsumexp": "row_reduce",
    "scatter_logsumexp": "row_reduce",
    "gather_matmul": "segment_matmul",
}

# Triton's kernels, likewise. Ops without one say so in their table of implementations.
SHARED_TRITON_SOURCES = {
    "edge_softmax": "segment_softmax",
    "spmm": "row_reduce",
    "segment_reduce": "row_reduce",
    "scatter_reduce": "row_reduce",
    "segment_gather": "sddmm",
    "segment_logsumexp": "row_reduce",
    "scatter_logsumexp": "row_reduce",
    "gather_matmul": "segment_matmul",
}

# Launchers for GPUs, by backend. Those of CUDA lie as Triton's do.
SHARED_DEVICE_SOURCES = {"triton": SHARED_TRITON_SOURCES, "cuda": SHARED_TRITON_SOURCES}

# Modules of `reference/` that several ops use and none is named after.
REFERENCE_PARTS = {"philox"}

# Tests that run over several ops.
SHARED_TESTS = {"test_transforms"}

FILES = {
    "op": "gnnkern/ops/{op}.py",
    "reference": "gnnkern/reference/{op}.py",
    "kernel": "csrc/cpu/{source}.cpp",
    "test": "tests/ops/test_{op}.py",
    "bench": "bench/bench_{op}.py",
}


def public_stems(folder):
    return {path.stem for path in (ROOT / folder).glob("[!_]*.py")}


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("kind", FILES)
def test_every_op_has_its_files(op, kind):
    path = FILES[kind].format(op=op, source=SHARED_SOURCES.get(op, op))
    assert (ROOT / path).is_file(), f"{op}: {path} is missing"


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("backend", SHARED_DEVICE_SOURCES)
def test_every_launcher_of_a_gpu_is_found_from_the_op(op, backend):
    # Its import, inside of the launcher, names the file.
    if backend not in [row.backend for row in gnnkern.ops.implementations()[op]]:
        pytest.skip(f"not implemented in {backend}")
    source = SHARED_DEVICE_SOURCES[backend].get(op, op)
    assert (ROOT / f"gnnkern/_{backend}/{source}.py").is_file()
    text = (ROOT / f"gnnkern/ops/{op}.py").read_text()
    assert f"def {op}_{backend}(" in text
    assert f"from gnnkern._{backend}.{source} import" in text
    tests = [path.read_text() for path in (ROOT / "tests/device").glob("test_device_*.py")]
    assert any(f"test_{op}" in test for test in tests), f"{op}: no test in tests/device"


@pytest.mark.parametrize("op", OPS)
def test_every_op_is_public_under_its_name(op):
    assert op in gnnkern.__all__
    assert getattr(gnnkern, op).__name__ == op


def test_every_op_is_tested():
    assert public_stems("gnnkern/ops") == set(OPS)
    assert public_stems("gnnkern/reference") - REFERENCE_PARTS == set(OPS)
    for stem in public_stems("tests/ops") - SHARED_TESTS:
        assert stem.startswith(tuple(f"test_{op}" for op in OPS)), f"{stem} tests no op"


@pytest.mark.parametrize("op", OPS)
def test_the_reference_and_the_launchers_carry_the_name(op):
    # Three hops from the public name to the kernel, and every hop has the name in it.
    reference = functions_of(ROOT / f"gnnkern/reference/{op}.py")
    assert f"{op}_reference" in reference
    defined = functions_of(ROOT / f"gnnkern/ops/{op}.py")
    assert {op, f"{op}_cpu"} <= defined


def functions_of(path):
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
