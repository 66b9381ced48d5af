"""The command line of `python -m bench.gpu`."""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench import gpu
from bench.gpu.runner import exit_code, run_stages
from bench.gpu.stages import ROOT, Options, all_stages


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every stage; the exit code is that of the package's docstring, 2 where none can run."""
    arguments = sys.argv[1:] if arguments is None else arguments
    given = _parser().parse_args(arguments)
    options = Options(
        out=given.out.resolve(),
        device=given.device,
        commit=given.commit,
        build=given.build,
        command=shlex.join(["python", "-m", "bench.gpu", *arguments]),
    )
    stages = all_stages(options)
    obstacle = None if options.rehearses else no_gpu()
    if obstacle is not None:
        print(f"bench.gpu: {obstacle}; --device cpu rehearses without one", file=sys.stderr)
        return 2
    names = [stage.name for stage in stages]
    for name in given.stage or ():
        if name not in names:
            print(
                f"bench.gpu: stage must be one of {', '.join(names)}, got {name!r}", file=sys.stderr
            )
            return 2
    chosen = [stage for stage in stages if not given.stage or stage.name in given.stage]
    begin = time.monotonic()
    outcomes = run_stages(chosen, options.out, given.budget, say=_say, cwd=ROOT)
    code = exit_code(outcomes)
    _say(f"{time.monotonic() - begin:.0f} s in all, exit code {code}; files in {options.out}")
    return code


def no_gpu() -> str | None:
    """Why nothing can be measured with this Python; None: it sees a GPU, and has what is needed.

    Asked in a process of its own, so that this one holds no device.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        return f"{sys.executable} has no {', '.join(missing)}"
    look = "import torch; print(torch.cuda.is_available(), torch.version.cuda)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True)
    if done.stdout.startswith("True"):
        return None
    words = (done.stderr.strip().splitlines() or [""])[-1]
    version = done.stdout.partition(" ")[2].strip()
    return words or f"torch (for CUDA {version}) sees no GPU"


_NEEDED = ("torch", "triton", "pytest", "numpy")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu",
        description=gpu.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="where files go; made if need be")
    add(
        "--budget", type=_positive, default=500.0, metavar="S", help="seconds; default: %(default)s"
    )
    add("--device", default="cuda", choices=("cuda", "cpu"), help="cpu: a tiny rehearsal")
    add("--stage", action="append", metavar="NAME", help="this one alone; may be repeated")
    add("--no-build", dest="build", action="store_false", help="the module is built already")
    add("--commit", metavar="TEXT", help="of the files, where git cannot tell it")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be > 0, got {value}")
    return value


def _say(line: str) -> None:
    print(line, flush=True)
