"""Stages under a budget of time: processes that are stopped when their share is spent."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

Status = Literal["passed", "failed", "stopped", "skipped"]

# Between two looks at running processes.
_TICK = 0.05
# From asking a process to end to ending it.
_GRACE = 5.0
# Of its stage's time, what a process is told to plan with.
_PLANNED_PART = 0.9
# Replaced in arguments by the seconds that a process has.
SECONDS = "{seconds}"
# pytest's exit code where no test was selected.
_NO_TESTS = 5


@dataclass(frozen=True)
class Command:
    """A process, and what its log is called."""

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """Processes that belong together.

    Attributes:
        name: What it is called.
        share: Its part of the time that is left, relative to those of itself and all behind it.
        commands: In order; each is stopped when the time of the stage is spent.
        parallel: How many of them run at a time.
        cannot: Why it cannot run; it is then skipped.
        after: Run when the stage is over, whatever came of it, within `after_seconds`.
        matters: Whether its failure is one of the run.
    """

    name: str
    share: float
    commands: tuple[Command, ...]
    parallel: int = 1
    cannot: str | None = None
    after: Command | None = None
    after_seconds: float = 60.0
    matters: bool = True


class Outcome(NamedTuple):
    """What came of a command."""

    stage: str
    name: str
    status: Status
    seconds: float
    said: str  # the last line of its log, or why it did not run
    matters: bool


def run_stages(
    stages: Sequence[Stage],
    out: Path,
    budget: float,
    say: Callable[[str], object] = print,
    cwd: Path | None = None,
) -> list[Outcome]:
    """Run every stage in its share of the budget, in seconds; files go to the folder `out`."""
    (out / "logs").mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    outcomes: list[Outcome] = []

    def note(outcome: Outcome) -> None:
        outcomes.append(outcome)
        write_summary(out, outcomes, budget, time.monotonic() - begin)
        name = "" if outcome.name == outcome.stage else f", {outcome.name}"
        say(
            f"{outcome.stage}{name}: {outcome.status} after {outcome.seconds:.1f} s: {outcome.said}"
        )

    for number, stage in enumerate(stages):
        left = budget - (time.monotonic() - begin)
        rest = sum(s.share for s in stages[number:] if s.cannot is None)
        reason = stage.cannot
        if reason is None and left <= 0:
            reason = "the budget is spent"
        if reason is not None:
            note(Outcome(stage.name, stage.name, "skipped", 0.0, reason, stage.matters))
            continue
        _run_stage(stage, left * stage.share / rest, out, note, cwd)
        if stage.after is not None:
            last = Stage(stage.name, 1, (stage.after,), matters=False)
            _run_stage(last, stage.after_seconds, out, note, cwd)
    return outcomes


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """0: all passed; 1: something failed; 3: something was stopped or skipped."""
    counted = [outcome.status for outcome in outcomes if outcome.matters]
    if "failed" in counted:
        return 1
    return 3 if {"stopped", "skipped"} & set(counted) else 0


class _Process:
    """A running command."""

    def __init__(self, command: Command, seconds: float, log: Path, cwd: Path | None) -> None:
        self.command, self.log, self.begin = command, log, time.monotonic()
        planned = f"{seconds * _PLANNED_PART:.0f}"
        arguments = [argument.replace(SECONDS, planned) for argument in command.arguments]
        with log.open("w") as file:
            file.write(f"$ {' '.join(arguments)}\n")
            file.flush()
            self._process = subprocess.Popen(
                arguments,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **command.environment},
                cwd=cwd,
                # Its own children are stopped with it.
                start_new_session=True,
            )

    def is_over(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        for number, grace in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            try:
                self._process.wait(grace)
            except subprocess.TimeoutExpired:
                continue
            return

    def outcome(self, stage: Stage, stopped: bool) -> Outcome:
        code = self._process.returncode
        status: Status = "stopped" if stopped else "passed" if code in (0, _NO_TESTS) else "failed"
        said = _last_line(self.log)
        if status == "failed":
            said = f"exit code {code}: {said}"
        if stopped:
            said = f"its time was spent: {said}"
        seconds = time.monotonic() - self.begin
        return Outcome(stage.name, self.command.name, status, seconds, said, stage.matters)


def _run_stage(
    stage: Stage, seconds: float, out: Path, note: Callable[[Outcome], None], cwd: Path | None
) -> None:
    deadline = time.monotonic() + seconds
    waiting, running = list(stage.commands), list[_Process]()
    try:
        while waiting or running:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            while waiting and len(running) < stage.parallel:
                command = waiting.pop(0)
                log = out / "logs" / f"{stage.name}-{command.name}.log"
                try:
                    running.append(_Process(command, left, log, cwd))
                except OSError as error:
                    said = f"cannot start: {error}"
                    note(Outcome(stage.name, command.name, "failed", 0.0, said, stage.matters))
            for process in [process for process in running if process.is_over()]:
                running.remove(process)
                note(process.outcome(stage, stopped=False))
            time.sleep(_TICK)
    finally:
        for process in running:
            process.stop()
    for process in running:
        note(process.outcome(stage, stopped=True))
    for command in waiting:
        said = "the time of its stage was spent"
        note(Outcome(stage.name, command.name, "skipped", 0.0, said, stage.matters))


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    lines = [line for line in lines[1:] if line]
    return lines[-1][:200] if lines else "it said nothing"


# -- the summary -----------------------------------------------------------------------------------


def write_summary(out: Path, outcomes: Sequence[Outcome], budget: float, elapsed: float) -> None:
    """Write `summary.json` and `summary.md`, each in one step."""
    facts: dict[str, Any] = {
        "budget_s": budget,
        "elapsed_s": round(elapsed, 1),
        "exit_code_so_far": exit_code(outcomes),
        "outcomes": [outcome._asdict() for outcome in outcomes],
    }
    replace_file(out / "summary.json", json.dumps(facts, indent=1) + "\n")
    lines = [
        f"{elapsed:.0f} of {budget:.0f} seconds",
        "",
        "| stage | process | | seconds | last words |",
        "| --- | --- | --- | --- | --- |",
    ]
    for o in outcomes:
        said = o.said.replace("|", "\\|")
        lines.append(f"| {o.stage} | {o.name} | {o.status} | {o.seconds:.1f} | {said} |")
    replace_file(out / "summary.md", "\n".join(lines) + "\n")


def replace_file(path: Path, text: str) -> None:
    """Write a file that is whole or not there."""
    draft = path.with_name(path.name + ".part")
    draft.write_text(text)
    os.replace(draft, path)
