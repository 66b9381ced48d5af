"""The command line of `python -m bench.gpu`."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench import gpu
from bench.gpu.runner import exit_code, run_stages
from bench.gpu.stages import ROOT, Options, all_stages


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every stage; the exit code is that of the package's docstring."""
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
