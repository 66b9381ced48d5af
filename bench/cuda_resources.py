"""Registers, spills and memory of every CUDA kernel of a build.

    python -m bench.cuda_resources build/cuda [--all]

Reads what ptxas said of each kernel while it was compiled (the build leaves it beside the objects).
Ends with 1 where a kernel spills registers, or where there is nothing to read.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

_ENTRY = re.compile(r"Compiling entry function '(?P<name>\S+)' for '(?P<architecture>\w+)'")
_MEMORY = re.compile(
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads"
)
_USED = re.compile(r"Used (?P<registers>\d+) registers(?P<rest>.*)")
_SHARED = re.compile(r"(\d+) bytes smem")


class Kernel(NamedTuple):
    """What one kernel takes on one architecture."""

    name: str
    architecture: str
    registers: int
    spilled: int  # bytes of a thread's registers stored to memory and loaded again
    stack: int  # bytes of a thread's own memory, spills included
    shared: int  # bytes of a block, without those asked for at the launch


def parse(text: str) -> list[Kernel]:
    """Return the kernels of one compilation."""
    kernels = []
    entry = memory = None
    for line in text.splitlines():
        if match := _ENTRY.search(line):
            entry, memory = match, None
        elif match := _MEMORY.search(line):
            # Functions that are not inlined have such lines too: an entry's comes first.
            memory = memory or match
        elif (match := _USED.search(line)) and entry is not None and memory is not None:
            shared = _SHARED.search(match["rest"])
            kernels.append(
                Kernel(
                    entry["name"],
                    entry["architecture"],
                    int(match["registers"]),
                    int(memory["stores"]) + int(memory["loads"]),
                    int(memory["stack"]),
                    int(shared[1]) if shared else 0,
                )
            )
            entry = None
    return kernels


def read(folder: Path) -> list[Kernel]:
    """Return the kernels of a build, with readable names."""
    logs = sorted(folder.rglob("*.ptxas"))
    kernels = [kernel for log in logs for kernel in parse(log.read_text(errors="replace"))]
    names = _readable([kernel.name for kernel in kernels])
    return [kernel._replace(name=names[kernel.name]) for kernel in kernels]


def _readable(names: Sequence[str]) -> dict[str, str]:
    program = shutil.which("c++filt")
    if program is None or not names:
        return dict(zip(names, names, strict=True))
    result = subprocess.run(
        [program], input="\n".join(names), capture_output=True, text=True, check=True
    )
    return dict(zip(names, map(_short, result.stdout.splitlines()), strict=True))


def _short(name: str) -> str:
    """A kernel's name and template arguments, without namespaces and parameters."""
    name = re.sub(r"\(anonymous namespace\)::|gnnkern::(cuda::)?", "", name)
    name = re.sub(r"\((?:int|bool|unsigned int|\w+)\)(?=-?\d)", "", name)
    return name.removeprefix("void ").rpartition("(")[0] or name


def families(kernels: Iterable[Kernel]) -> list[tuple[str, str, list[Kernel]]]:
    """Return (name without template arguments, architecture, kernels), in order of the names."""
    groups: dict[tuple[str, str], list[Kernel]] = {}
    for kernel in kernels:
        groups.setdefault((kernel.name.partition("<")[0], kernel.architecture), []).append(kernel)
    return [(*key, groups[key]) for key in sorted(groups)]


def table(kernels: Sequence[Kernel], every: bool) -> str:
    """Return the text of the report: one line for a family of kernels, or for every one."""
    lines = [f"{'registers':>9} {'spilled':>7} {'stack':>6} {'shared':>6}  architecture  kernel"]
    for name, architecture, members in families(kernels):
        rows = [(member.name, [member]) for member in members] if every else [(name, members)]
        for title, group in sorted(rows, key=lambda row: row[0]):
            fewest, most = (f(kernel.registers for kernel in group) for f in (min, max))
            registers = f"{fewest}-{most}" if fewest < most else f"{most}"
            spilled, stack, shared = (max(kernel[field] for kernel in group) for field in (3, 4, 5))
            count = f" ({len(group)})" if len(group) > 1 else ""
            lines.append(
                f"{registers:>9} {spilled:>7} {stack:>6} {shared:>6}  {architecture:12}  "
                f"{title}{count}"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; 1 where a kernel spills, or there is none."""
    parser = argparse.ArgumentParser(prog="python -m bench.cuda_resources", description=__doc__)
    parser.add_argument("build", type=Path, help="the folder that CMake built in")
    parser.add_argument("--all", action="store_true", help="every kernel, not one line a family")
    options = parser.parse_args(arguments)
    kernels = read(options.build)
    if not kernels:
        print(f"{options.build} has no CUDA build: make cuda", file=sys.stderr)
        return 1
    print(table(kernels, options.all))
    spilling = [kernel for kernel in kernels if kernel.spilled]
    print(f"{len(kernels)} kernels, {len(spilling)} of them spill registers")
    for kernel in spilling:
        print(f"{kernel.name} on {kernel.architecture} spills {kernel.spilled} bytes")
    return 1 if spilling else 0


if __name__ == "__main__":
    sys.exit(main())
