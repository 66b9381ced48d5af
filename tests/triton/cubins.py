"""Compiles what a launcher would launch, ahead of time and without a GPU."""

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

# Modules whose launches are caught.
MODULES = (
    "attention",
    "attention_backward",
    "fold",
    "gatv2_backward",
    "multi_reduce",
    "multi_reduce_backward",
    "plan",
    "row_reduce",
    "scale_by_group",
    "score_gradient",
    "sddmm",
    "segment_matmul",
    "segment_softmax",
    "select_backward",
)

_TYPES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int16: "i16",
    torch.uint8: "u8",
}


@dataclass(frozen=True)
class Launch:
    """A kernel with the types and constants that a launch compiles it for."""

    kernel: Any
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    aligned: tuple[int, ...]  # arguments that are multiples of 16
    warps: int

    @property
    def name(self) -> str:
        return self.kernel.fn.__name__

    def __str__(self) -> str:
        constants = " ".join(f"{k}={v}" for k, v in self.constants if v is not None)
        return f"{self.name} {dict(self.signature).get('x_ptr', '')} {constants}"


def launch_of(kernel: Any, args: tuple[Any, ...], meta: dict[str, Any], warps: int) -> Launch:
    """Return what Triton would compile for these arguments, which it specialises likewise."""
    values = {**dict(zip(kernel.arg_names, args, strict=False)), **meta}
    assert set(values) == set(kernel.arg_names)
    plain = {p.name for p in kernel.params if p.do_not_specialize}
    annotated = {p.name: p.annotation_type for p in kernel.params}
    signature, constants, aligned = [], [], []
    for i, name in enumerate(kernel.arg_names):
        value = values[name]
        kind = "constexpr"
        if isinstance(value, Tensor):
            kind = f"*{_TYPES[value.dtype]}"
            aligned += [i] if value.data_ptr() % 16 == 0 else []
        elif isinstance(value, float):
            kind = annotated[name] or "fp32"
        elif name not in meta and value is not None and (name in plain or value != 1):
            kind = "i32" if -(2**31) <= value < 2**31 else "i64"
            aligned += [i] if name not in plain and value % 16 == 0 else []
        else:
            constants.append((name, value))
        signature.append((name, kind))
    return Launch(kernel, tuple(signature), tuple(constants), tuple(aligned), warps)


@contextmanager
def launches() -> Iterator[list[Launch]]:
    """Inside the block, launches are noted instead of run, each once."""
    found: list[Launch] = []

    def note(kernel: Any, grid: Any, device: Any, *args: Any, warps: int = 4, **meta: Any) -> None:
        launch = launch_of(kernel, args, meta, warps)
        if min(grid) and launch not in found:
            found.append(launch)

    modules = [import_module(f"gnnkern._triton.{name}") for name in MODULES]
    before = [module.run for module in modules]
    for module in modules:
        module.run = note
    try:
        yield found
    finally:
        for module, run in zip(modules, before, strict=True):
            module.run = run


@dataclass(frozen=True)
class Usage:
    """What a compiled kernel takes of a multiprocessor."""

    registers: int
    spills: int  # bytes of stack to a thread
    shared: int  # bytes
    cubin: int  # bytes


def compile_for(launch: Launch, capability: int) -> Usage:
    """Compile for an architecture such as 90; the cubin's use of registers and memory."""
    source = ASTSource(
        launch.kernel,
        dict(launch.signature),
        dict(launch.constants),
        {(i,): [["tt.divisibility", 16]] for i in launch.aligned},
    )
    target = GPUTarget("cuda", capability, 32)
    compiled = triton.compile(source, target=target, options={"num_warps": launch.warps})
    cubin = compiled.asm["cubin"]
    registers, stack = _resources(cubin)
    return Usage(registers, stack, compiled.metadata.shared, len(cubin))


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of stack of a thread, by cuobjdump."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin", delete=False) as file:
        file.write(cubin)
    try:
        command = [str(tool), "-res-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    finally:
        os.unlink(file.name)
    found = re.search(r"REG:(\d+) STACK:(\d+)", text)
    assert found, text
    return int(found[1]), int(found[2])


def catch(*calls: Callable[[], object]) -> list[Launch]:
    """Return the distinct launches of some calls."""
    with launches() as found:
        for call in calls:
            call()
    return found
