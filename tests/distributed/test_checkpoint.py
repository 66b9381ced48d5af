"""Checkpoints: whole or not there; a training that goes on is one that did not stop."""

import json
import shutil

import pytest
import rank_faults
import torch
from forked import Forked
from spoiling import delete, flip, truncate

from gnnkern.cli import main
from gnnkern.distributed.packing import pack, unpack

pytestmark = pytest.mark.dist

EPOCHS = 8


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A function from a number of ranks to a folder of as many parts."""
    root = tmp_path_factory.mktemp("parts")

    def folder(ranks):
        place = root / str(ranks)
        if not place.exists():
            assert main(["partition", "--parts", str(ranks), "--out", str(place)]) == 0
        return place

    return folder


@pytest.fixture
def train(parts, tmp_path):
    """A function that trains on ranks: exit codes, what was said, and the result on rank 0."""

    def run(ranks, folder, *options, fault=None):
        out = tmp_path / "out.json"
        out.unlink(missing_ok=True)
        command = ["train", "--parts", str(ranks), "--data", str(parts(ranks)), "--json", str(out)]
        command += ["--warmup", "1", "--epochs", str(EPOCHS), "--checkpoint-every", "3"]
        command += ["--checkpoint", str(tmp_path / folder), *options]
        with Forked(ranks if ranks > 1 else None, rank_faults.command, command, fault) as forked:
            answers = forked.answers()
        return answers, json.loads(out.read_text())[0] if out.exists() else None

    return run


def steps_in(folder):
    return sorted(int(place.name.removeprefix("step-")) for place in folder.glob("step-*"))


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize(
    ("model", "policy", "ranks"),
    [
        pytest.param("gat", "anneal:3,1", 2, id="anneal"),
        pytest.param("gcn", "exact", 3, id="exact", marks=pytest.mark.slow),
    ],
)
def test_a_training_that_died_goes_on_bit_for_bit(train, tmp_path, model, policy, ranks):
    """Weights, optimizer, halo rows, generators and record; attention drops weights at random."""
    options = ("--model", model, "--policy", policy)
    answers, whole = train(ranks, "whole", *options)
    assert [code for code, _ in answers] == [0] * ranks, answers
    assert steps_in(tmp_path / "whole") == [6, 8]
    answers, nothing = train(ranks, "broken", *options, fault=("killed in mid-epoch", 1, 7))
    assert nothing is None and answers[1] is None
    for code, said in (answer for rank, answer in enumerate(answers) if rank != 1):
        assert code == 2 and "exchange 2 of step 7 did not end" in said, said
        assert "Rank 1 gives no sign of life" in said, said
    assert steps_in(tmp_path / "broken") == [3, 6]
    answers, resumed = train(ranks, "broken", *options, "--resume")
    assert "going on at epoch 7" in answers[0][1], answers
    for name in ("losses", "val_scores", "best_epoch", "test", "val"):
        assert whole[name] == resumed[name], name
    states = [
        rank_faults.state_of(tmp_path / name / "step-00000008", ranks)
        for name in ("whole", "broken")
    ]
    assert same(*states)
    assert states[0]["rank0"]["schedule"]["sites"]


@pytest.mark.parametrize(
    ("ranks", "then"),
    [
        (2, 1),
        pytest.param(1, 2, marks=pytest.mark.slow),
        pytest.param(3, 2, marks=pytest.mark.slow),
        pytest.param(2, 4, marks=pytest.mark.slow),
    ],
)
def test_a_checkpoint_goes_on_with_another_number_of_ranks(train, tmp_path, ranks, then):
    """Losses are those of the exact training that did not stop, whatever was in the halo."""
    plot = tmp_path / "plot.png"
    _, whole = train(ranks, "whole", "--plot", str(plot))
    assert plot.read_bytes().startswith(b"\x89PNG")
    sent, by_epoch = (whole["settings"][name] for name in ("bytes_sent", "bytes_by_epoch"))
    assert sent == {level: sum(counts) for level, counts in by_epoch.items()}
    assert [len(counts) for counts in by_epoch.values()] == [EPOCHS] * 3
    assert (sent["host"] > 0) == (ranks > 1)
    shutil.copytree(tmp_path / "whole" / "step-00000006", tmp_path / "other" / "step-00000006")
    answers, other = train(then, "other", "--resume")
    assert "its halo rows are dropped, and the next step is exact" in answers[0][1], answers
    assert other["losses"][:6] == whole["losses"][:6]
    assert other["losses"] == pytest.approx(whole["losses"], rel=1e-5)


@pytest.mark.parametrize(
    "fault",
    [
        ("killed in a checkpoint", 0, 4),
        ("full disk", 1, 2),
        pytest.param(("killed in a checkpoint", 1, 2), marks=pytest.mark.slow),
        pytest.param(("full disk", 0, 2), marks=pytest.mark.slow),
    ],
    ids=lambda fault: f"{fault[0]} {fault[1]}",
)
def test_a_checkpoint_that_broke_off_is_none(train, tmp_path, fault):
    what, rank, _ = fault
    answers, _ = train(2, "some", fault=fault)
    assert steps_in(tmp_path / "some") == [3]
    said = answers[1 - rank][1]
    if what == "full disk":
        assert "checkpoint of step 6: " in said and "earlier ones are whole" in said, said
        assert f"rank {rank}: " in said and "File too large" in said, said
        assert not list((tmp_path / "some").glob(".*"))
    else:
        assert f"Rank {rank} gives no sign of life" in said, said
        assert list((tmp_path / "some").glob(".*.tmp")), "it broke off too early"
    answers, _ = train(2, "some", "--resume")
    assert [code for code, _ in answers] == [0, 0], answers
    assert "going on at epoch 4" in answers[0][1]
    assert steps_in(tmp_path / "some") == [6, 8]
    assert not list((tmp_path / "some").glob(".*"))


def other_version(path):
    path.write_text(path.read_text().replace('"version": 1', '"version": 9'))


def empty_json(path):
    path.write_text("{}")


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        ((truncate, "__0_0.distcp"), ["--resume"], "the file is torn"),
        ((flip, ".metadata"), ["--resume"], "the file was changed"),
        ((delete, "__0_0.distcp"), ["--resume"], "the checkpoint is torn"),
        ((other_version, "manifest.json"), ["--resume"], "of version 9, this gnnkern reads"),
        ((empty_json, "manifest.json"), ["--resume"], "not the manifest of a checkpoint"),
        (None, ["--resume", "--policy", "hold:2"], "policy 'exact', not 'hold:2'"),
        (None, ["--resume", "--lr", "0.5", "--seed", "3"], "lr 0.01, not 0.5, seed 0, not 3"),
        (None, [], "has checkpoints; add --resume"),
        (None, ["--resume", "--checkpoint-every", "0"], "every must be >= 1"),
    ],
)
def test_what_is_not_this_trainings_is_refused(parts, tmp_path, capsys, spoil, options, message):
    folder = tmp_path / "some"
    command = ["train", "--parts", "1", "--data", str(parts(1)), "--checkpoint", str(folder)]
    assert main([*command, "--epochs", "1"]) == 0
    if spoil is not None:
        how, name = spoil
        how(folder / "step-00000001" / name)
    capsys.readouterr()
    assert main([*command, "--epochs", "2", *options]) == 2
    assert message in capsys.readouterr().err
    assert steps_in(folder) == [1]


def test_more_epochs_may_be_asked_for(parts, tmp_path, capsys):
    command = ["train", "--parts", "1", "--data", str(parts(1)), "--resume"]
    command += ["--checkpoint", str(tmp_path / "some"), "--epochs"]
    assert main([*command, "1"]) == 0
    assert "has no whole checkpoint: beginning at epoch 1" in capsys.readouterr().err
    assert main([*command, "3"]) == 0
    assert "going on at epoch 2; to epoch 3, not 1" in capsys.readouterr().err
    assert steps_in(tmp_path / "some") == [1, 3]


def test_checkpoints_are_of_trainings_on_ranks(capsys):
    for options, message in ((["--resume"], "need --parts"), (["--parts", "1", "--resume"], "DIR")):
        assert main(["train", "--quiet", *options]) == 2
        assert message in capsys.readouterr().err


def test_nests_come_back_as_they_were():
    state = {
        "a": [torch.arange(3), (1, 2.5, None, True), {}],
        0: {"x": float("inf"), "y": "text"},
        "b.c": torch.ones(2, 0),
        "b": {"c": torch.zeros(())},
    }
    assert same(unpack(pack(state, "some"), "some"), state)
    with pytest.raises(TypeError, match="checkpoint: some.a.1 must be of tensors, .* got <obj"):
        pack({"a": [1, object()]}, "some")
