"""The CUDA build: no kernel spills registers, and it imports on a machine without a GPU."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench import cuda_resources

BUILD = Path(__file__).resolve().parents[2] / "build/cuda"
needs_build = pytest.mark.skipif(
    not any(BUILD.glob("_C_cuda*.so")), reason="no CUDA build (`make cuda` makes one)"
)

SAMPLE = """
ptxas info    : 11 bytes gmem
ptxas info    : Compiling entry function '_Z5plainv' for 'sm_90'
ptxas info    : Function properties for _Z5plainv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 46 registers, used 1 barriers, 2048 bytes smem, 16 bytes cmem[0]
ptxas info    : Compile time = 62.414 ms
ptxas info    : Compiling entry function '_Z8spillingIfLi4EEvT_' for 'sm_80'
ptxas info    : Function properties for _Z8spillingIfLi4EEvT_
    24 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Function properties for _Z6helperv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers
"""


def test_what_ptxas_says_is_read(tmp_path, capsys):
    plain, spilling = cuda_resources.parse(SAMPLE)
    assert plain == ("_Z5plainv", "sm_90", 46, 0, 0, 2048)
    assert spilling == ("_Z8spillingIfLi4EEvT_", "sm_80", 255, 20, 24, 0)
    (tmp_path / "kernels.cu.o.ptxas").write_text(SAMPLE)
    assert cuda_resources.main([str(tmp_path)]) == 1
    assert "spilling<float, 4> on sm_80 spills 20 bytes" in capsys.readouterr().out
    (tmp_path / "kernels.cu.o.ptxas").write_text(
        SAMPLE[: SAMPLE.index("ptxas info    : Compil", 200)]
    )
    assert cuda_resources.main([str(tmp_path)]) == 0
    assert "1 kernels, 0 of them" in capsys.readouterr().out
    assert cuda_resources.main([str(tmp_path / "nothing")]) == 1


@needs_build
def test_no_kernel_spills(capsys):
    assert cuda_resources.main([str(BUILD)]) == 0, capsys.readouterr().out


def disassembled(name):
    """Instructions of a stem's object, by architecture; Triton brings the program along."""
    spec = importlib.util.find_spec("triton")
    tool = Path(spec.origin).parent / "backends/nvidia/bin/cuobjdump" if spec else Path("absent")
    if not tool.exists():
        pytest.skip("no cuobjdump")
    (file,) = BUILD.rglob(f"{name}.cu.o")
    text = subprocess.run([tool, "-sass", file], capture_output=True, text=True, check=True).stdout
    parts = re.split(r"code for sm_(\d+)", text)
    return {int(number): code for number, code in zip(parts[1::2], parts[2::2], strict=True)}


@needs_build
def test_four_floats_are_added_at_once_where_the_architecture_can():
    code = disassembled("scatter_atomics")
    for architecture, instructions in code.items():
        assert ("RED" in instructions) and "ATOMG.E.ADD" not in instructions
        assert ("ADD.F32x4" in instructions) == (architecture >= 90)
    assert code


@needs_build
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_build_imports_without_a_gpu_and_says_why_it_cannot_run():
    code = (
        "import json, sys, gnnkern, torch\n"
        f"gnnkern.__path__.append({str(BUILD)!r})\n"
        "from gnnkern import _C_cuda, backends, info\n"
        "query = backends.Query('cpu', torch.float32)\n"
        "print(json.dumps([backends.cuda_unsupported(query), info.collect()['backends']]))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    reasons, rows = json.loads(result.stdout)
    assert len(reasons) == 2 and "driver" in reasons[1]
    told = [row["reasons"] for row in rows if row["backend"] == "cuda"]
    # An op without a CUDA kernel says that alone.
    assert told and all(why in (reasons, ["not implemented yet"]) for why in told)
