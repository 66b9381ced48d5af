"""The command line: help, what it prints and writes, exit codes."""

import json
import subprocess
import sys

import pytest

from gnnkern.cli import main


def _run(capsys, *arguments):
    code = main(arguments)
    output = capsys.readouterr()
    return code, output.out, output.err


@pytest.mark.parametrize(
    "command", [(), ("info",), ("probe",), ("train",), ("demo",), ("bench",)], ids=str
)
def test_help(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: gnnkern")
    assert "examples:" in out or not command


def test_info_says_machine_versions_build_and_backends(capsys):
    code, out, _ = _run(capsys, "info")
    assert code == 0
    for word in ("machine", "versions", "build", "backends", "spmm", "gat_attention", "torch"):
        assert word in out


def test_info_json(capsys):
    code, out, _ = _run(capsys, "info", "--json")
    facts = json.loads(out)
    assert code == 0
    assert set(facts) == {"machine", "versions", "extras", "build", "probe", "backends"}
    rows = facts["backends"]
    assert {row["op"] for row in rows} >= {"spmm", "sddmm", "edge_softmax", "gat_attention"}
    assert all(row["runs"] == (not row["reasons"]) for row in rows)


def test_train_writes_results_and_plot(capsys, tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    results, plot = tmp_path / "out.json", tmp_path / "out.png"
    code, out, err = _run(
        capsys,
        *("train", "--data", "digits", "--model", "gat", "--epochs", "2", "--seeds", "0,2"),
        *("--hidden", "4", "--heads", "2", "--lr", "0.01", "--dropout", "0.1"),
        *("--json", str(results), "--plot", str(plot)),
    )
    assert code == 0
    assert "GAT on digits" in out and "mean test accuracy of 2" in out
    assert "digits gat seed 2: epoch 2/2" in err
    first, second = json.loads(results.read_text())
    assert (first["seed"], second["seed"]) == (0, 2)
    assert first["epochs"] == 2 and len(first["losses"]) == 2
    assert first["settings"]["hidden"] == 4 and first["settings"]["heads"] == 2
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_train_prints_json_alone(capsys):
    pytest.importorskip("sklearn")
    code, out, _ = _run(capsys, "train", "--plain", "--epochs", "2", "--quiet", "--json", "-")
    assert code == 0
    assert json.loads(out)[0]["path"] == "plain"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "required: COMMAND"),
        (("fly",), "invalid choice: 'fly'"),
        (("train", "--model", "mlp"), "invalid choice: 'mlp'"),
        (("train", "--epochs", "many"), "invalid int value: 'many'"),
        (("train", "--seeds", "a-b"), 'must be like "0-9" or "1,2,5"'),
        (("train", "--seeds", "5-2"), 'must be like "0-9" or "1,2,5"'),
        (("train", "--threads", "0"), "must be >= 1, got 0"),
        (("train", "--plain", "--backend", "cpu"), "not allowed with argument"),
        (("demo", "--epochs", "0"), "must be >= 1, got 0"),
    ],
    ids=str,
)
def test_bad_arguments_stop_at_the_door(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--data", "nowhere.npz"), "no such file or folder: nowhere.npz"),
        (("train", "--data", "grid:3,3"), "has no x, y"),
        (("train", "--backend", "cuda"), "backend 'cuda' cannot run"),
        (("train", "--hidden", "0"), "hidden must be >= 1, got 0"),
        (("train", "--split", "7"), "split must be in [0, 1), got 7"),
        (("train", "--json", "nowhere/out.json"), "there is no folder"),
        (("demo", "--data", "nowhere.npz"), "no such file or folder: nowhere.npz"),
        (("demo", "--plot", "nowhere/out.png"), "there is no folder"),
    ],
    ids=str,
)
def test_bad_input_is_an_error_without_traceback(capsys, arguments, message):
    pytest.importorskip("sklearn")
    code, out, err = _run(capsys, *arguments)
    assert code == 2
    assert err.startswith("gnnkern: error: ") and message in err
    assert "Traceback" not in err and out == ""


def test_demo_compares_both_paths(capsys, tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    plot, numbers = tmp_path / "demo.png", tmp_path / "demo.json"
    arguments = ("demo", "--epochs", "2", "--plot", str(plot), "--json", str(numbers))
    code, out, _ = _run(capsys, *arguments)
    assert code == 0
    for word in ("digits", "GCN", "GAT", "gnnkern", "plain torch", "speed-up", str(plot)):
        assert word in out
    assert plot.read_bytes().startswith(b"\x89PNG")
    pairs = json.loads(numbers.read_text())
    assert [pair["gnnkern"]["model"] for pair in pairs] == ["gcn", "gat"]
    assert all(pair["plain"]["epochs"] == pair["gnnkern"]["epochs"] == 2 for pair in pairs)


def test_module_is_the_command():
    run = subprocess.run(
        [sys.executable, "-m", "gnnkern", "--help"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0 and "info" in run.stdout
