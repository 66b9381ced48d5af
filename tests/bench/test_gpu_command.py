"""The GPU command without a GPU: budgets, order, files, what is absent, exit codes."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.machines import made_up_machine

from bench.gpu import command, measure, stages
from bench.gpu.child import model_of
from bench.gpu.marks import MARKS, NOT_MEASURED, marks_table
from bench.gpu.runner import SECONDS, Command, Outcome, Stage, exit_code, run_stages
from bench.gpu.stages import Options, all_stages
from bench.gpu.tables import tables
from bench.gpu.tuning import Trial, candidates, table
from gnnkern._triton.configs import Tiles
from gnnkern.bench import cost, harness
from gnnkern.bench.graphs import RECIPES
from gnnkern.bench.problems import KINDS
from gnnkern.bench.results import read
from gnnkern.bench.run import run
from gnnkern.bench.specs import Plan

QUIET = {"say": lambda line: None}


def python(name, code):
    return Command(name, (sys.executable, "-c", code))


def outcomes_of(stages_, out, budget=60.0):
    return {o.name: o for o in run_stages(stages_, out, budget, **QUIET)}


# -- budget ----------------------------------------------------------------------------------------


def test_a_stage_that_runs_out_is_stopped_with_its_children_and_the_next_one_runs(tmp_path):
    child = tmp_path / "child"
    late = f"import time; time.sleep(4); open({str(child)!r}, 'w')"
    sleeper = (
        "import subprocess, sys, time; print('asleep', flush=True); "
        f"subprocess.Popen([sys.executable, '-c', {late!r}]); time.sleep(60)"
    )
    slow = Stage("slow", 1, (python("slow", sleeper), python("behind", "")))
    quick = Stage("quick", 9, (python("quick", "print('done')"),))
    begin = time.monotonic()
    found = outcomes_of([slow, quick], tmp_path, budget=20.0)
    assert found["slow"].status == "stopped" and "asleep" in found["slow"].said
    assert found["behind"].status == "skipped"
    assert found["quick"].status == "passed" and found["quick"].said == "done"
    assert exit_code(list(found.values())) == 3
    time.sleep(max(begin + 5.5 - time.monotonic(), 0))
    assert not child.exists()


def test_time_that_is_left_goes_to_later_stages(tmp_path):
    tell = "import sys; print(sys.argv[1])"
    first = Stage("first", 99, (python("first", ""),))
    last = Stage("last", 1, (Command("last", (sys.executable, "-c", tell, SECONDS)),))
    found = outcomes_of([first, last], tmp_path, budget=100.0)
    # Of nearly a hundred seconds, where its share was one.
    assert 60 < float(found["last"].said) < 91


def test_a_spent_budget_skips_what_is_left(tmp_path):
    stage = Stage("first", 1, (python("first", ""),))
    found = outcomes_of([stage], tmp_path, budget=-1.0)
    assert found["first"].said == "the budget is spent"


def test_commands_run_side_by_side(tmp_path):
    nap = "import time; begin = time.monotonic(); time.sleep(2); print(begin, time.monotonic())"
    stage = Stage("naps", 1, tuple(python(f"nap{i}", nap) for i in range(3)), parallel=3)
    found = outcomes_of([stage], tmp_path)
    begins, ends = zip(*(map(float, o.said.split()) for o in found.values()), strict=True)
    assert max(begins) < min(ends)


# -- files and exit codes --------------------------------------------------------------------------


def test_every_file_is_there_as_soon_as_it_can_be(tmp_path):
    look = (
        "import json, pathlib; "
        f"facts = json.loads(pathlib.Path({str(tmp_path / 'summary.json')!r}).read_text()); "
        "print([o['status'] for o in facts['outcomes']])"
    )
    wrong = Stage("wrong", 1, (python("wrong", "print('no'); raise SystemExit(7)"),))
    found = outcomes_of([wrong, Stage("look", 1, (python("look", look),))], tmp_path)
    assert found["look"].said == "['failed']"
    assert found["wrong"].said == "exit code 7: no"
    assert "| wrong | wrong | failed |" in (tmp_path / "summary.md").read_text()
    assert json.loads((tmp_path / "summary.json").read_text())["exit_code_so_far"] == 1
    assert (tmp_path / "logs" / "wrong-wrong.log").read_text().startswith("$ ")
    assert not list(tmp_path.glob("*.part"))


def test_what_comes_after_a_stage_comes_whatever_came_of_it(tmp_path):
    broken = (python("broken", "raise SystemExit(1)"),)
    stage = Stage("bench", 1, broken, after=python("tables", "print('made')"))
    found = outcomes_of([stage], tmp_path)
    assert found["tables"].said == "made"


def test_a_program_that_is_not_there_is_a_failure(tmp_path):
    found = outcomes_of([Stage("none", 1, (Command("none", ("/nowhere/program",)),))], tmp_path)
    assert found["none"].status == "failed" and "cannot start" in found["none"].said


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["passed", "passed"], 0),
        (["passed", "failed", "stopped"], 1),
        (["passed", "stopped"], 3),
        (["passed", "skipped"], 3),
    ],
)
def test_exit_codes(statuses, code):
    assert exit_code([Outcome("s", "s", status, 0.0, "", True) for status in statuses]) == code


def test_what_does_not_matter_does_not_count():
    assert exit_code([Outcome("s", "s", "failed", 0.0, "", False)]) == 0


def test_no_tests_selected_is_no_failure(tmp_path):
    found = outcomes_of([Stage("t", 1, (python("t", "raise SystemExit(5)"),))], tmp_path)
    assert found["t"].status == "passed"


# -- the stages ------------------------------------------------------------------------------------


def test_the_most_important_comes_first():
    names = [stage.name for stage in all_stages(Options(Path("out")))]
    assert names == [
        "machine",
        "build",
        "tests",
        "sanitizer",
        "probe",
        "headline",
        "hub",
        "compiled",
        "more",
        "profiles",
        "tuning",
    ]


def test_tests_are_those_of_the_device_and_need_pytest_alone():
    (tests,) = (stage for stage in all_stages(Options(Path("out"))) if stage.name == "tests")
    names = [test.name for test in tests.commands]
    assert names[0] == "gpu" and "device-spmm" in names and "ops-gat-attention" in names
    for test in tests.commands:
        # The settings of the project's pytest need plugins.
        assert "addopts=" in test.arguments and "TRITON_INTERPRET" not in test.environment
        assert ("--device" in test.arguments) == test.name.startswith("ops-")
    assert not {"cubins", "configs"} & set(names)


def test_a_rehearsal_interprets_and_keeps_what_it_measures_to_itself(tmp_path):
    for stage in all_stages(Options(tmp_path, device="cpu")):
        if stage.name in ("machine", "tests", "headline"):
            environment = stage.commands[0].environment
            assert environment["TRITON_INTERPRET"] == "1"
            assert environment["XDG_CACHE_HOME"].startswith(str(tmp_path))


def test_what_the_build_lacks_is_named(monkeypatch):
    find = stages.importlib.util.find_spec
    lacking = ("ninja", "pybind11")
    monkeypatch.setattr(
        stages.importlib.util, "find_spec", lambda name: None if name in lacking else find(name)
    )
    monkeypatch.setattr(stages.shutil, "which", lambda name, path=None: None)
    by_name = {stage.name: stage for stage in all_stages(Options(Path("out")))}
    assert by_name["build"].cannot == "not installed: pybind11, ninja"
    assert by_name["sanitizer"].cannot == "compute-sanitizer is not installed"
    assert {"build", "sanitizer"} <= {name for name, stage in by_name.items() if stage.matters}


def test_sanitizers_watch_pytest(monkeypatch):
    monkeypatch.setattr(stages.shutil, "which", lambda name, path=None: f"/cuda/{name}")
    (stage,) = (s for s in all_stages(Options(Path("out"))) if s.name == "sanitizer")
    assert stage.cannot is None
    assert [c.arguments[:3] for c in stage.commands] == [
        ("/cuda/compute-sanitizer", "--tool", "memcheck"),
        ("/cuda/compute-sanitizer", "--tool", "racecheck"),
    ]
    assert stage.commands[0].environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] == "1"


def test_without_a_gpu_nothing_begins(tmp_path, capsys, monkeypatch):
    if command.no_gpu() is None:
        pytest.skip("there is a GPU")
    assert command.main(["--out", str(tmp_path / "out")]) == 2
    assert "sees no GPU; --device cpu rehearses without one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    assert command.no_gpu().endswith("has no torch, triton, pytest, numpy")


def test_an_unknown_stage_is_an_error(tmp_path, capsys):
    arguments = ["--out", str(tmp_path), "--device", "cpu", "--stage", "lunch"]
    assert command.main(arguments) == 2
    assert "stage must be one of machine, build" in capsys.readouterr().err


def test_one_stage_alone(tmp_path, capsys):
    arguments = ["--out", str(tmp_path), "--device", "cpu", "--stage", "sanitizer"]
    assert command.main(arguments) == 0
    assert "sanitizer: skipped" in capsys.readouterr().out
    assert (tmp_path / "summary.md").exists()


# -- what is measured ------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["headline", "hub", "compiled", "more"])
def test_plans_name_what_there_is(stage):
    for plan in (*measure.plans(stage), *measure.rehearsal(stage)):
        assert set(plan.ops) <= set(KINDS) and list(plan.cells())
        assert set(plan.packages) <= set(measure.EAGER + measure.COMPILED)
        assert all(graph in RECIPES for graph in plan.graphs)


def test_every_plan_has_a_file_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "short_name", lambda device: "h200")
    monkeypatch.setattr(measure, "parse_device", lambda device: device)
    for device in ("cpu", "cuda"):
        made = [
            plan.json.name
            for stage in ("headline", "hub", "compiled", "more")
            for plan in measure.in_order(stage, device, tmp_path)
        ]
        assert len(set(made)) == len(made)
    assert made[0] == "h200_headline_arxiv_like.json"
    assert {"h200_compiled_arxiv_like_2.json", "h200_more_arxiv_like_bfloat16.json"} <= set(made)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("Tesla V100-SXM2-16GB", "v100"),
        ("NVIDIA GB200", "gb200"),
        ("NVIDIA", "gpu"),
    ],
)
def test_files_are_called_after_the_device(name, short):
    assert model_of(name) == short


_NO_DGL = "dgl is absent: ModuleNotFoundError"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "out.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "machine", made_up_machine)
        patch.setattr(harness, "absent", lambda name: _NO_DGL if name == "dgl" else None)
        plan = Plan(
            ops=("spmm_sum",),
            graphs=("tiny_hub", "tiny_even"),
            widths=(4,),
            threads=1,
            rounds=3,
            cell_seconds=0.05,
            packages=("torch", "dgl"),
            commit="abc",
            json=path,
        )
        run(plan, "a command", progress=False)
    return read(path)


def test_tables_say_everything(report):
    lines = tables({**report, "finished": False})
    text = "\n".join(lines)
    assert "commit: abc" in text and "the run was stopped before its end" in text
    assert "### spmm_sum on tiny_hub, width 4, float32, forward" in text
    assert "| gnnkern |" in text and "| dgl | absent |" in text
    assert "dgl is absent" in text.partition("## Not measured")[2]
    widths = {line.count("|") for line in lines if line.startswith("|")}
    assert len(widths) == 1


def test_marks_without_a_measurement_say_so():
    lines = [line for line in marks_table([]) if line.startswith("| ")][2:]
    assert len(lines) == len(MARKS) and all(line.count(NOT_MEASURED) == 2 for line in lines)


def test_marks_of_what_was_measured(report):
    rows = report["cells"]
    by_op = {mark.what: mark.measured(rows) for mark in MARKS}
    (hub,) = (value for what, value in by_op.items() if what.startswith("spmm_sum, forward, a row"))
    even = next(r for r in rows if r["graph"] == "tiny_even" and r["direction"] == "forward")
    of_hub = next(r for r in rows if r["graph"] == "tiny_hub" and r["direction"] == "forward")
    floor = max(even["floor_ms"][name] for name in ("T_comp", "T_cache", "T_compute"))
    assert hub == pytest.approx(of_hub["results"]["gnnkern"]["median_ms"] / floor)
    # Hubs are not among the cells of other marks.
    assert by_op["spmm sum: time of the best peer by gnnkern's, least of all cells"] == min(
        row["ratio"] for row in rows if row["graph"] == "tiny_even"
    )


def test_tiles_are_tried_around_those_of_the_rule():
    rule = Tiles(rows=1, edges=32, columns=64)
    tried = candidates(rule)
    assert tried[0] == rule and len(set(tried)) == len(tried) > 5
    assert {t.columns for t in tried} == {64} and min(t.rows for t in tried) == 1
    assert max(t.rows * t.edges for t in tried) == 64
    found = [
        Trial("sum", rule, 5.0),
        Trial("sum", tried[1], 4.0),
        Trial("sum", tried[2], None, "?"),
    ]
    lines = [line for line in table(found) if line.startswith("| ")][2:]
    assert [line.split("|")[-3].strip() for line in lines] == ["4.0", "5.0", "?"]
    assert "the rule" in lines[1]


@pytest.mark.slow
def test_a_rehearsal_of_everything(tmp_path):
    code = command.main(
        ["--out", str(tmp_path), "--device", "cpu", "--no-build", "--budget", "400"]
    )
    assert code == 0
    made = {path.name for path in tmp_path.iterdir()}
    assert {"machine.json", "summary.md", "marks.md", "profiles.md", "tuning.md"} <= made
    for stage in ("headline_tiny", "hub_tiny_hub", "compiled_tiny", "more_tiny"):
        assert {f"cpu_{stage}.json", f"cpu_{stage}.md"} <= made
    shutil.rmtree(tmp_path / "cache")


def test_the_committed_marks_are_those_that_are_asked_for():
    text = (stages.ROOT / "bench" / "results" / "h200" / "marks.md").read_text()
    for mark in MARKS:
        assert f"| {mark.what} |" in text


def test_measuring_needs_neither_rich_nor_matplotlib():
    modules = ", ".join(f"bench.gpu.{name}" for name in ("facts", "probe", "measure", "tables"))
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('rich', 'matplotlib', 'hypothesis'))); "
        f"import {modules}, bench.gpu.profiles, bench.gpu.tuning"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=stages.ROOT)
