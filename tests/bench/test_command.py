"""`gnnkern bench` from end to end on a tiny graph, and its report."""

import base64
import builtins
import json
import re
import sys
from pathlib import Path

import pytest
import torch

from gnnkern.bench import peers, run
from gnnkern.bench.graphs import bench_graph
from gnnkern.bench.harness import TOLERANCE, WrongResult, bind, check, contenders
from gnnkern.bench.problems import make_problem
from gnnkern.bench.results import SCHEMA, read
from gnnkern.bench.run import _far_behind
from gnnkern.bench.specs import Cell, Plan
from gnnkern.cli import main

TINY = ("--graph", "powerlaw:200,1500,50", "--rounds", "3", "--cell-seconds", "0.2", "--quiet")
COMMITTED = sorted((Path(__file__).parents[2] / "bench" / "results" / "cpu").glob("*.json"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def without_dgl():
    """A package that nobody has, whatever is installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "dgl", None)
        peers.absent.cache_clear()
        yield
    peers.absent.cache_clear()


@pytest.fixture(scope="module")
def measured(folder, without_dgl):
    """A run of two ops, with its report: results, exit code."""
    path = folder / "out.json"
    ops = ("spmm_sum", "edge_softmax", "--width", "4,8", "--heads", "2")
    output = ("--json", str(path), "--report", str(folder / "report"))
    pytest.importorskip("matplotlib")
    code = main(["bench", *ops, *TINY, *output])
    return json.loads(path.read_text()), code


def test_cells_of_a_run(measured):
    report, code = measured
    assert code == 0
    assert report["schema"] == SCHEMA and report["finished"]
    assert report["command"].startswith("gnnkern bench spmm_sum edge_softmax --width 4,8")
    assert report["graphs"]["powerlaw:200,1500,50"]["max_in_degree"] == 50
    places = [(row["op"], row["width"], row["direction"]) for row in report["cells"]]
    directions = ("forward", "forward + backward")
    ops = (("spmm_sum", 4), ("spmm_sum", 8), ("edge_softmax", 2))
    assert places == [(*op, direction) for op in ops for direction in directions]
    for row in report["cells"]:
        mine = row["results"]["gnnkern"]
        assert mine["rounds"] == 3 and mine["calls"] >= 1
        assert mine["relative_error"] < TOLERANCE[torch.float32]
        assert row["ratio"] == pytest.approx(
            row["results"][row["best_peer"]]["median_ms"] / mine["median_ms"]
        )
        assert row["num_edges"] == 1500 and row["gb_per_s"] > 0


def test_an_absent_peer_is_absent_everywhere(measured, folder, capsys):
    report, _ = measured
    assert "dgl is absent: " in report["versions"]["dgl"]
    for row in report["cells"]:
        assert row["skipped"]["dgl"].startswith("dgl is absent: ")
        assert "dgl" in row["contenders"] and "dgl" not in row["results"]
    assert main(["bench", "--from", str(folder / "out.json")]) == 0
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.split()[:1] == ["dgl"])
    assert set(line.split()[1:]) == {"absent"}
    page = (folder / "report" / "index.html").read_text()
    assert "<td>dgl</td><td>absent</td>" in page


def test_the_table_tells_microseconds_and_ratios(measured, folder, capsys):
    main(["bench", "--from", str(folder / "out.json")])
    out = capsys.readouterr().out
    for words in (
        "spmm_sum on powerlaw:200,1500,50, float32, median µs",
        "best peer / gnnkern",
        "pyg / gnnkern",
        "6 cells compared with a peer",
        "geometric mean over the best peer: ",
        "geometric mean over PyG's default path: ",
    ):
        assert words in out


def test_the_report_holds_every_op_and_its_pictures(measured, folder):
    files = {path.name for path in (folder / "report").glob("*.png")}
    kinds = {"roofline", "speedup", "memory"}
    assert files >= {f"{kind}_{op}.png" for kind in kinds for op in ("spmm_sum", "edge_softmax")}
    assert "widths_spmm_sum.png" in files and "widths_edge_softmax.png" not in files
    page = (folder / "report" / "index.html").read_text()
    pictures = [base64.b64decode(data) for data in re.findall(r"base64,([^\"]+)", page)]
    assert len(pictures) == len(files)
    assert all(data.startswith(b"\x89PNG") and len(data) > 5000 for data in pictures)
    for op in ("spmm_sum", "edge_softmax"):
        assert f'<h2 id="{op}">' in page
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page), "nothing from outside"


def test_a_run_goes_on_where_it_stopped(measured, folder, capsys):
    whole, _ = measured
    path = folder / "stopped.json"
    path.write_text(json.dumps({**whole, "cells": whole["cells"][:4], "finished": False}))
    ops = ("spmm_sum", "edge_softmax", "--width", "4,8", "--heads", "2")
    resume = ("--json", str(path), "--resume")
    assert main(["bench", *ops, *TINY, *resume]) == 0
    again = json.loads(path.read_text())
    assert again["cells"][:4] == whole["cells"][:4] and len(again["cells"]) == 6
    assert again["finished"]
    path.write_text(json.dumps({**whole, "machine": "another"}))
    assert main(["bench", *ops, *TINY, *resume]) == 2
    assert "cannot continue" in capsys.readouterr().err


def test_every_cell_is_written_as_it_is_made(tmp_path, monkeypatch):
    path = tmp_path / "out.json"
    measure = run._measure
    seen = []

    def stop_at_the_second(*arguments):
        if seen:
            raise KeyboardInterrupt
        seen.append(None)
        return measure(*arguments)

    monkeypatch.setattr(run, "_measure", stop_at_the_second)
    options = ("--width", "2,4", "--peer", "none", "--json", str(path))
    assert main(["bench", "spmm_sum", *TINY, *options]) == 130
    report = read(path)
    assert not report["finished"] and {row["width"] for row in report["cells"]} == {2}


def test_budget_and_impossible_widths_are_told(tmp_path, capsys):
    path = tmp_path / "out.json"
    options = ("--peer", "none", "--json", str(path))
    assert main(["bench", "spmm_sum", *TINY, *options, "--budget", "1e-9"]) == 0
    assert read(path)["not_measured"][0]["reason"] == "the budget is spent"
    assert main(["bench", "gat_layer", *TINY, *options, "--width", "6"]) == 0
    assert "multiple of its 4 heads" in read(path)["not_measured"][0]["reason"]
    assert "multiple of its 4 heads" in capsys.readouterr().out


def test_peers_and_backend_are_chosen(tmp_path):
    path = tmp_path / "out.json"
    options = ("--width", "4", "--peer", "torch", "--backend", "reference", "--json", str(path))
    assert main(["bench", "spmm_max", *TINY, *options]) == 0
    report = read(path)
    assert list(report["versions"]) == ["torch"]
    for row in report["cells"]:
        assert row["backend"] == "reference" and row["ratio_pyg"] is None
        assert row["contenders"] == ["gnnkern", "torch csr reduce", "torch scatter_reduce"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("kind", ["spmm_weighted", "spmm_max", "edge_softmax", "gat_layer"])
def test_gnnkern_is_right_in_every_dtype(kind, dtype):
    problem = make_problem(kind, bench_graph("tiny"), 4, dtype)
    (mine,) = contenders(problem.op, problem.reduce, packages=[], dtype=dtype)
    runner = mine.build(problem)
    for direction in problem.directions:
        check(problem, runner, bind(problem, runner, direction))


def test_a_wrong_half_is_found():
    problem = make_problem("spmm_max", bench_graph("tiny"), 4, torch.bfloat16)
    (mine,) = contenders("spmm", "max", packages=[], dtype=torch.bfloat16)
    runner = mine.build(problem)
    timed = bind(problem, runner, "forward + backward")
    wrong = timed._replace(
        results=lambda upstream: {**timed.results(upstream), "x": 2 * problem.inputs["x"]}
    )
    with pytest.raises(WrongResult, match="x: relative error"):
        check(problem, runner, wrong)


def test_a_wrong_result_of_gnnkern_is_exit_code_1(monkeypatch, capsys):
    monkeypatch.setitem(TOLERANCE, torch.float32, 0.0)
    options = ("--width", "4", "--peer", "none")
    assert main(["bench", "edge_softmax", *TINY, *options]) == 1
    assert "failed: WrongResult: " in capsys.readouterr().out


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_files_can_be_shown(path, capsys):
    assert main(["bench", "--from", str(path)]) == 0
    assert "cells compared with a peer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("spm",), "bench: op must be some of"),
        (("--graph", "nowhere.npz"), "bench: no graph 'nowhere.npz'"),
        (("--graph", "powerlaw:5"), "should read 'powerlaw:"),
        (("--graph", "tiny", "--peer", "numpy"), "bench: peer must be some of"),
        (("--from", "nowhere.json"), "nowhere.json"),
        (("--json", "nowhere/out.json"), "there is no folder"),
        (("--resume",), "--resume must stand beside --json"),
        (("spmm_sum", "--compare", "a", "b"), "OP must not stand beside --compare"),
        (("spmm_sum", "--from", "a"), "OP must not stand beside --from"),
        (("--fail-on-slower",), "--fail-on-slower must stand beside --compare"),
    ],
    ids=str,
)
def test_bad_input_is_an_error_without_traceback(capsys, arguments, message):
    assert main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("gnnkern: error: ") and message in error


def test_without_matplotlib_nothing_is_measured_before_the_message(monkeypatch, tmp_path, capsys):
    real = builtins.__import__

    def none_of_it(name, *arguments, **options):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", none_of_it)
    assert main(["bench", "spmm_sum", *TINY, "--report", str(tmp_path / "report")]) == 2
    assert "pip install 'gnnkern[plot]'" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_peers_far_behind_at_another_width_are_left_out():
    def row(width, direction="forward", **times):
        results = {name: {"median_ms": ms} for name, ms in times.items()}
        return {
            "op": "spmm_sum",
            "graph": "tiny",
            "width": width,
            "dtype": "float32",
            "direction": direction,
            "results": results,
        }

    report = {
        "cells": [
            row(16, gnnkern=1.0, near=100.0, far=900.0, pyg=1000.0, short=90.0),
            row(16, "forward + backward", near=100.0, far=200.0),
            row(16, best=1.0, short=90.0),
        ]
    }
    cell = Cell("spmm_sum", "tiny", 64, "float32")
    left_out = _far_behind(Plan(leave_out=5), report, cell, "forward")
    # PyG's default path stays, and so does what takes no time.
    assert left_out == {"far": "10.0 times the best peer at 16"}
    assert not _far_behind(Plan(leave_out=5), report, cell, "forward + backward")
    assert not _far_behind(Plan(), report, cell, "forward")
    assert not _far_behind(Plan(leave_out=5), report, cell._replace(op="spmm_max"), "forward")
