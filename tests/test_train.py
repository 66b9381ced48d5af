"""Training: it learns, repeats bit for bit, keeps to its limits, and says what it cannot do."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from gnnkern.data import GraphData, load
from gnnkern.measure import MeasuredTraining
from gnnkern.memory import PeakMemory
from gnnkern.metrics import accuracy, roc_auc
from gnnkern.recipes import RECIPES, WITHOUT_PLAIN_PATH
from gnnkern.train import TrainResult, train_node_classifier

MODELS = tuple(RECIPES)
PLAIN_MODELS = tuple(model for model in MODELS if model not in WITHOUT_PLAIN_PATH)
CORA = Path(__file__).resolve().parents[2] / "shared" / "data" / "cora.npz"


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("sklearn")
    return load("digits")


def _two_classes(nodes: int = 60) -> GraphData:
    """Return a ring whose first half is one class, with sparse features that tell the classes."""
    ring = torch.arange(nodes)
    y = (ring >= nodes // 2).long()
    x = torch.zeros(nodes, 100)
    x[ring, y * 5 + ring % 5] = 1.0
    part = ring % 3
    return GraphData(
        name="ring",
        edge_index=torch.stack([ring, ring.roll(1)]),
        num_nodes=nodes,
        x=x,
        y=y,
        train_mask=(part == 0)[None],
        val_mask=(part == 1)[None],
        test_mask=(part == 2)[None],
    )


def _train(data, model="gcn", **options):
    return train_node_classifier(data, model, progress=False, **options)


@pytest.mark.parametrize(
    ("model", "plain"),
    [*((model, False) for model in MODELS), *((model, True) for model in PLAIN_MODELS)],
)
def test_learns_the_digits(digits, model, plain):
    result = _train(digits, model, epochs=30, lr=0.02, plain=plain)
    assert result.metric == "accuracy"
    # Ten classes: chance is 10 %.
    assert result.test > 0.7
    assert result.epochs == len(result.val_scores) == len(result.epoch_seconds) == 30
    assert result.losses[-1] < 0.8 * result.losses[0]
    assert result.val == max(result.val_scores)
    assert result.val == result.val_scores[result.best_epoch - 1]


@pytest.mark.parametrize("model", MODELS)
def test_same_seed_same_losses_bit_for_bit(digits, model):
    first = _train(digits, model, epochs=4, seed=3)
    assert _train(digits, model, epochs=4, seed=3).losses == first.losses
    assert _train(digits, model, epochs=4, seed=4).losses != first.losses


@pytest.mark.parametrize("model", PLAIN_MODELS)
def test_sparse_features_repeat_too(model):
    data = _two_classes()
    first = _train(data, model, epochs=10)
    assert _train(data, model, epochs=10).losses == first.losses


def test_has_no_plain_path(digits):
    with pytest.raises(ValueError, match="diffusion has no path of plain torch ops"):
        _train(digits, "diffusion", plain=True)


@pytest.mark.parametrize("model", PLAIN_MODELS)
def test_starts_like_the_plain_path(digits, model):
    # Without dropout both paths are the same function of the same parameters.
    fast = _train(digits, model, epochs=3, dropout=0.0)
    plain = _train(digits, model, epochs=3, dropout=0.0, plain=True)
    assert fast.losses == pytest.approx(plain.losses, rel=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not CORA.exists(), reason=f"needs {CORA.name} in a folder beside the checkout")
@pytest.mark.parametrize(("model", "least"), [("gcn", 0.81), ("gat", 0.82)])
def test_reaches_the_published_accuracy_on_cora(model, least):
    data = load(str(CORA))
    tests = [_train(data, model, seed=seed).test for seed in range(10)]
    assert sum(tests) / len(tests) >= least


def test_leaves_torchs_generator_alone(digits):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    _train(digits, epochs=1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("model", PLAIN_MODELS)
def test_two_classes_are_scored_by_roc_auc(model):
    result = _train(_two_classes(), model, epochs=40, lr=0.05)
    assert result.metric == "ROC AUC"
    assert result.test > 0.9


def test_stops_when_patience_runs_out_or_asked_to(digits):
    result = _train(digits, epochs=300, lr=1e-9, patience=5)
    assert result.stopped == "patience"
    assert result.epochs == result.best_epoch + 5
    result = train_node_classifier(digits, epochs=5, progress=lambda epoch: epoch.epoch == 3)
    assert (result.stopped, result.epochs) == ("asked", 3)
    result = train_node_classifier(digits, epochs=3, progress=lambda epoch: epoch.epoch == 3)
    assert (result.stopped, result.epochs) == ("epochs", 3)


def test_reports_each_epoch(digits):
    seen = []
    train_node_classifier(digits, epochs=3, progress=seen.append)
    assert [epoch.epoch for epoch in seen] == [1, 2, 3]
    assert all(epoch.epochs == 3 and epoch.loss > 0 for epoch in seen)


def test_plain_lines_where_there_is_no_terminal(digits, capsys):
    train_node_classifier(digits, epochs=8)
    lines = capsys.readouterr().err.splitlines()
    assert 1 < len(lines) <= 6
    assert lines[-1].startswith("digits gcn seed 0: epoch 8/8, loss ")


def test_result_survives_json(digits):
    result = _train(digits, epochs=3)
    again = TrainResult.from_dict(json.loads(json.dumps(result.to_dict())))
    assert again == result
    assert again.epoch_median == sorted(result.epoch_seconds)[1]
    assert 0 <= again.epoch_iqr <= max(result.epoch_seconds) - min(result.epoch_seconds)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "mlp"}, "model must be one of gcn, sage, gat, gin, appnp, diffusion, got 'mlp'"),
        ({"epochs": 0}, "epochs must be >= 1, got 0"),
        ({"hidden": 0}, "hidden must be >= 1, got 0"),
        ({"model": "gat", "heads": 0}, "heads must be >= 1, got 0"),
        ({"heads": 4}, "heads must be 1 for gcn, got 4"),
        ({"lr": 0.0}, "lr must be > 0, got 0.0"),
        ({"weight_decay": -1.0}, "weight_decay must be >= 0, got -1.0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"patience": 0}, "patience must be >= 1, got 0"),
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
        ({"split": 1}, r"split must be in \[0, 1\), got 1"),
    ],
    ids=str,
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        _train(_two_classes(), **options)


def test_data_that_cannot_be_trained_on():
    data = _two_classes()
    with pytest.raises(ValueError, match="ring has no y, test_mask: nothing to train on"):
        _train(dataclasses.replace(data, y=None, test_mask=None))
    with pytest.raises(ValueError, match="ring has no nodes in val_mask of split 0"):
        _train(dataclasses.replace(data, val_mask=torch.zeros_like(data.val_mask)))


def test_measured_in_a_process_of_its_own():
    pytest.importorskip("sklearn")
    seen = []
    with (
        MeasuredTraining("digits", epochs=5, seed=3) as whole,
        MeasuredTraining("digits", epochs=5, seed=3) as part,
    ):
        for training in (whole, part):
            training.wait_until_ready()
        assert whole.advance(2, seen.append)
        assert part.advance(3)
        assert not whole.advance(9, seen.append)
        assert [epoch.epoch for epoch in seen] == [1, 2, 3, 4, 5]
        result, stopped = whole.stop(), part.stop()
    assert result.stopped == "epochs" and result.peak_memory > 0
    assert stopped.stopped == "asked"
    assert result.losses == _train("digits", epochs=5, seed=3).losses
    assert stopped.losses == result.losses[:3]


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("grid:3,3", {"hidden": 0}, "hidden must be >= 1, got 0"),
        ("nowhere.npz", {}, "no such file or folder"),
    ],
    ids=str,
)
def test_a_process_of_its_own_says_what_it_rejects(source, options, message):
    with (
        MeasuredTraining(source, **options) as training,
        pytest.raises(ValueError, match=message),
    ):
        training.wait_until_ready()


def test_peak_memory_counts_what_was_added():
    size = 64 << 20
    with PeakMemory() as memory:
        torch.ones(size // 4)
    assert 0.9 * size < memory.added < 1.5 * size


def test_metrics():
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 1.0]])
    y = torch.tensor([0, 1, 1, 0])
    assert accuracy(logits, y) == 0.75
    # Pairs of a 1 and a 0: three are won, one is a tie.
    assert roc_auc(logits, y) == 3.5 / 4
    assert math.isnan(roc_auc(logits, torch.ones(4, dtype=torch.int64)))


def test_roc_auc_same_as_sklearn():
    metrics = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(2)
    score = torch.randint(20, (500,), generator=generator).float()
    y = torch.randint(2, (500,), generator=generator)
    logits = torch.stack([torch.zeros(500), score], dim=1)
    assert roc_auc(logits, y) == pytest.approx(metrics.roc_auc_score(y, score), abs=1e-12)
