"""The stages of the GPU command, in order, and which processes they are."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.gpu.runner import SECONDS, Command, Stage

ROOT = Path(__file__).resolve().parents[2]

# What the build cannot do without, as modules; cmake and ninja may be programs.
_BUILD = ("setuptools", "pybind11")
_PROGRAMS = ("cmake", "ninja")

# Tests run side by side: none starts a pool of compilers of its own.
_ONE_COMPILER = {"TORCHINDUCTOR_COMPILE_THREADS": "1"}
# pytest as it is: the plugins of the project's own settings may be missing.
_PYTEST = (
    *("-m", "pytest", "-q", "-o", "addopts="),
    *("-p", "no:cacheprovider", "--strict-markers", "--tb=short", "-rs"),
    *("-m", "not big and not slow"),
)
# Of the op tests, those whose every tensor lies where `--device` says.
_PLACED = (
    "every_graph or every_width or every_dtype or every_number or every_subset or layouts "
    "or index_dtypes or gradient_of_a_sum or one_input_alone or one_at_a_time or repeatable "
    "or compiles or operators or autocast or gradcheck or second_derivative or expanded or strided "
    "or many_ties"
)
# Under compute-sanitizer a test takes a hundred times as long.
_SANITIZED = "on_every_graph and (hubs or isolated_ends)"
_SANITIZER_ERROR = "99"
# CUDA's kernels are compiled for the device that is there alone.
_NATIVE = {"CUDAARCHS": "native"}
# Files of `tests/triton` that need no device.
_HOST_FILES = ("test_cubins.py", "test_configs.py")


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    out: Path
    device: str = "cuda"
    commit: str | None = None
    build: bool = True
    command: str = ""

    @property
    def rehearses(self) -> bool:
        """Whether there is no GPU: everything is tiny, and Triton interprets."""
        return self.device == "cpu"


def all_stages(options: Options) -> list[Stage]:
    """Every stage, the most important first; one that cannot run here says why."""
    python = sys.executable
    return [
        Stage("machine", 2, (_module("facts", options),), matters=False),
        Stage(
            "build",
            20,
            (Command("build", (python, "setup.py", "--quiet", "build_ext", "--inplace"), _NATIVE),),
            cannot=_cannot_build(options),
            matters=options.build,
        ),
        Stage("tests", 30, _tests(options), parallel=_workers(options)),
        Stage(
            "sanitizer",
            10,
            _sanitizers(options),
            parallel=2,
            cannot=_cannot_sanitize(options),
            matters=not options.rehearses,
        ),
        Stage("probe", 4, (_module("probe", options),), matters=False),
        _measure("headline", 20, options),
        _measure("hub", 4, options),
        _measure("compiled", 22, options),
        _measure("more", 12, options),
        Stage("profiles", 4, (_timed("profiles", options),), matters=False),
        Stage("tuning", 6, (_timed("tuning", options),), matters=False),
    ]


def _environment(options: Options) -> dict[str, str]:
    environment = {"PYTHONUNBUFFERED": "1"}
    if options.rehearses:
        # What is measured meanwhile of the processor is not kept for others.
        environment |= {"TRITON_INTERPRET": "1", "XDG_CACHE_HOME": str(options.out / "cache")}
    return environment


def _module(name: str, options: Options, *more: str) -> Command:
    """A module of this package as a process."""
    arguments = ["--out", str(options.out), "--device", options.device]
    if options.commit is not None:
        arguments += ["--commit", options.commit]
    if name == "facts":
        arguments += ["--command", options.command]
    module = f"bench.gpu.{name}"
    full = (sys.executable, "-m", module, *arguments, *more)
    return Command(name, full, _environment(options))


def _timed(name: str, options: Options) -> Command:
    """One that ends by itself when its time is spent."""
    return _module(name, options, "--seconds", SECONDS)


def _measure(name: str, share: float, options: Options) -> Stage:
    """Benches, then their tables, which are made of what there is."""
    measure = _module("measure", options, "--stage", name, "--seconds", SECONDS)
    return Stage(name, share, (measure,), after=_module("tables", options, "--stage", name))


# -- build -----------------------------------------------------------------------------------------


def _cannot_build(options: Options) -> str | None:
    if not options.build:
        return "not asked for"
    missing = [name for name in _BUILD if importlib.util.find_spec(name) is None]
    missing += [
        name
        for name in _PROGRAMS
        if importlib.util.find_spec(name) is None and shutil.which(name) is None
    ]
    return f"not installed: {', '.join(missing)}" if missing else None


# -- tests -----------------------------------------------------------------------------------------


def _workers(options: Options) -> int:
    """Compiling kernels takes most of the time of a test, on one core each."""
    return 1 if options.rehearses else max(1, min(8, (os.cpu_count() or 1) // 2))


def _pytest(name: str, options: Options, *arguments: str) -> Command:
    environment = {**_environment(options), **_ONE_COMPILER}
    return Command(name, (sys.executable, *_PYTEST, *arguments), environment)


def _tests(options: Options) -> tuple[Command, ...]:
    if options.rehearses:
        few, first = "on_every_graph and hubs and sum", "every_width and sum and x2-"
        return (
            _pytest("gpu", options, "tests/gpu"),
            _pytest("device-spmm", options, "tests/device/test_device_spmm.py", "-k", few),
            _pytest("ops-spmm", options, "tests/ops/test_spmm.py", "--device", "cpu", "-k", first),
        )
    device = _files("tests/device") + _files("tests/triton", but=_HOST_FILES)
    ops = _files("tests/ops")
    placed = ("--device", options.device, "-k", _PLACED)
    return (
        _pytest("gpu", options, "tests/gpu"),
        *(_pytest(_short(path), options, path) for path in device),
        # The last of two expressions counts.
        _pytest("gpu-big", options, "tests/gpu", "-m", "big"),
        *(_pytest(f"ops-{_short(path)}", options, path, *placed) for path in ops),
    )


def _files(folder: str, but: Sequence[str] = ()) -> list[str]:
    paths = sorted((ROOT / folder).glob("test_*.py"))
    return [f"{folder}/{path.name}" for path in paths if path.name not in but]


def _short(path: str) -> str:
    return Path(path).stem.removeprefix("test_").replace("_", "-")


# -- sanitizers ------------------------------------------------------------------------------------


def _sanitizer() -> str | None:
    name = "compute-sanitizer"
    return shutil.which(name) or shutil.which(name, path="/usr/local/cuda/bin")


def _cannot_sanitize(options: Options) -> str | None:
    if options.rehearses:
        return "no GPU"
    return None if _sanitizer() is not None else "compute-sanitizer is not installed"


def _sanitizers(options: Options) -> tuple[Command, ...]:
    program = _sanitizer() or "compute-sanitizer"
    # Every tensor has an allocation of its own, so that what lies behind it is not another's.
    alone = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    commands = []
    for tool in ("memcheck", "racecheck"):
        tests = _pytest(tool, options, "tests/device", "-k", _SANITIZED, "-x")
        watched = (program, "--tool", tool, "--error-exitcode", _SANITIZER_ERROR)
        commands.append(Command(tool, (*watched, *tests.arguments), {**tests.environment, **alone}))
    return tuple(commands)
