"""The bench of unmodified PyG models."""

import json

import pytest

pytest.importorskip("torch_geometric", reason="torch_geometric is not installed")

import gnnkern  # noqa: E402
from bench import pyg_models  # noqa: E402


@pytest.fixture(autouse=True)
def unpatched():
    yield
    gnnkern.unpatch_pyg()


def test_every_model_is_compared_and_measured(tmp_path, capsys):
    file = tmp_path / "models.json"
    quick = ["--graph", "tiny", "--seconds", "0.01", "--rounds", "1", "--json", str(file)]
    assert pyg_models.main(quick) == 0
    rows = json.loads(file.read_text())["rows"]
    assert [row["model"] for row in rows] == list(pyg_models.models(pyg_models.bench_graph("tiny")))
    assert all(row["ratio"] > 0 and row["difference"] < pyg_models.TOLERANCE for row in rows)
    said = capsys.readouterr().out
    assert "geometric mean of the ratios" in said
    assert "powerlaw" in said or "tiny" in said


def test_a_wrong_result_is_not_measured(monkeypatch):
    def skewed(model, *args):
        results = right(model, *args)
        # Hooks tell the accelerated model from the plain one.
        return [r * 1.5 for r in results] if model._forward_hooks else results

    right = pyg_models.step
    monkeypatch.setattr(pyg_models, "step", skewed)
    with pytest.raises(AssertionError, match="GCN on tiny: results are off"):
        pyg_models.measure(pyg_models.bench_graph("tiny"), "GCN", 0.01, 1)
