"""Training on ranks: equal to one process when exact; policies do what they say."""

import json
import re

import pytest
import rank_training
import torch
from rank_checks import normal
from ranks import RankError

from gnnkern.cli import main
from gnnkern.distributed.policies import (
    Anneal,
    Drift,
    Exact,
    Hold,
    Periodic,
    Pipelined,
    Sampled,
    parse_policy,
)

pytestmark = pytest.mark.dist


@pytest.mark.parametrize("model", ["gcn", "sage", "gat"])
@pytest.mark.parametrize("how", ["metis", "lopsided"])
def test_an_exact_training_is_that_of_one_process(run, model, how):
    expected, scores, test = rank_training.losses_of(None, 1, model, "exact", 15)
    for losses, my_scores, my_test in run(rank_training.on_ranks, model, "exact", 15, how):
        assert losses == pytest.approx(expected, rel=1e-5)
        assert my_scores == pytest.approx(scores, abs=1e-9)
        assert my_test == pytest.approx(test, abs=1e-9)
    assert expected[-1] < expected[0]


def test_steps_exchange_as_the_policy_says(run):
    fresh = run(rank_training.exchanges_of, "hold:3", 8, 0)[0]
    assert fresh == [True, False, False, True, False, False, True, False]
    fresh = run(rank_training.exchanges_of, "anneal:4,2,1", 12, 2)[0]
    assert [step for step, each in enumerate(fresh) if each] == [0, 1, 4, 6, 8, 9, 10, 11]


def test_held_steps_are_those_of_old_ghosts(run):
    run(rank_training.held_steps_are_those_of_old_ghosts)


def test_rows_that_stay_are_exchanged_once(run):
    run(rank_training.rows_that_stay_are_exchanged_once)


def test_a_loss_that_is_no_number_stops_all(run, four_ranks):
    if run.world == 8:
        pytest.skip("the ranks are asked one by one here")
    culprit = run.world - 1
    four_ranks.send(rank_training.not_a_number, culprit, world=run.world)
    for answer in four_ranks.answers(run.world):
        assert isinstance(answer, RankError) and answer.kind == "NotFinite"
        assert f"of rank {culprit} is not finite in step 7" in answer.message


@pytest.mark.parametrize(
    ("policy", "wire"),
    [
        ("exact", None),
        ("hold:2", "int8,int8"),
        ("drift:0.05,2", None),
        ("drift:0.05,2", "int8,bfloat16"),
        ("pipelined", None),
        ("sampled:0.5", "int8,int8"),
    ],
)
def test_a_resumed_training_is_one_that_did_not_stop(run, policy, wire):
    run(rank_training.resumed_is_not_stopped, policy, wire)


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_dropout_follows_from_global_nodes(sparse):
    x = normal(300, 40).abs() + 1
    nodes = torch.randperm(300, generator=torch.Generator().manual_seed(1))

    def drop(x, nodes, step=3, p=0.25):
        x = x.to_sparse_csr() if sparse else x
        out = rank_training.drop_in_one_process(x, nodes, 5, step, p)
        return out.to_dense()

    whole = drop(x, torch.arange(300))
    assert torch.equal(drop(x[nodes[:50]], nodes[:50]), whole[nodes[:50]])
    kept = whole != 0
    assert torch.allclose(whole[kept], x[kept] / 0.75)
    # Three deviations of a binomial count.
    share = float(kept.double().mean())
    assert abs(share - 0.75) < 3 * (0.75 * 0.25 / x.numel()) ** 0.5
    other = drop(x, torch.arange(300), step=4) != 0
    both = float((kept & other).double().mean())
    assert abs(both - 0.75**2) < 0.02


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("exact", Exact()),
        ("hold:4", Hold(4)),
        ("anneal:8,4,2,1", Anneal(8, 4, 2, 1)),
        ("drift:0.05", Drift(0.05)),
        ("drift:0.05,4", Drift(0.05, window=4)),
        ("pipelined", Pipelined()),
        ("sampled:0.5", Sampled(0.5)),
        ("sampled:1,7", Sampled(1.0, seed=7)),
    ],
)
def test_policies_in_words(text, policy):
    assert parse_policy(text) == policy


@pytest.mark.parametrize(
    "text",
    ["", "hold", "hold:0", "hold:2,3", "anneal:", "anneal:x", "now", "hold:1.5", "pipelined:2"]
    + ["drift", "drift:-1", "drift:nan", "drift:x", "drift:0.1,0", "drift:0.1,0.5"]
    + ["sampled", "sampled:0", "sampled:1.5", "sampled:0.5,0.5", "sampled:0.5,"],
)
def test_no_policy(text):
    with pytest.raises(ValueError, match="^(policy|Drift|Sampled): .*"):
        parse_policy(text)


@pytest.mark.parametrize(
    ("policy", "arguments", "error", "message"),
    [
        (Drift, ["much"], TypeError, "Drift: tol must be a number, got 'much'"),
        (Drift, [float("inf")], ValueError, "Drift: tol must be finite, got inf"),
        (Drift, [-0.1], ValueError, "Drift: tol must be >= 0, got -0.1"),
        (Drift, [0.1, 2.0], TypeError, "Drift: window must be an int, got 2.0"),
        (Drift, [0.1, 0], ValueError, "Drift: window must be >= 1, got 0"),
        (Sampled, [True], TypeError, "Sampled: rate must be a number, got True"),
        (Sampled, [0.0], ValueError, "Sampled: rate must be in (0, 1], got 0.0"),
        (Sampled, [0.5, None], TypeError, "Sampled: seed must be an int, got None"),
    ],
)
def test_wrong_numbers_of_policies(policy, arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        policy(*arguments)


def test_shares_of_a_policy():
    policy = Periodic((8, 4, 2, 1))
    assert [policy.period_at(step, 8) for step in range(9)] == [8, 8, 4, 4, 2, 2, 1, 1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--parts", "2"], "--parts 2 needs as many ranks, got 1; start them with torchrun"),
        (["--log-file", "log.jsonl"], "--log-file is for a training with --parts"),
        (["--parts", "1", "--log-file", "none/log.jsonl"], "there is no folder"),
        (["--parts", "1", "--plain"], "--plain is not for a training with --parts"),
        (["--parts", "1", "--policy", "hold"], "must be exact, hold:K, anneal:K,K,..., drift:TOL"),
        (["--parts", "1", "--wire", "fp4"], "rows must be one of bfloat16, float16, int8 or None"),
    ],
)
def test_the_command_says_what_is_wrong(options, message, capsys):
    assert main(["train", "--quiet", *options]) == 2
    assert message in capsys.readouterr().err


def test_the_command_trains_from_a_folder_of_parts(tmp_path, capsys):
    folder, out = tmp_path / "parts", tmp_path / "out.json"
    assert main(["partition", "--parts", "1", "--out", str(folder)]) == 0
    command = ["train", "--parts", "1", "--data", str(folder), "--epochs", "5", "--quiet"]
    log = tmp_path / "log.jsonl"
    options = ["--wire", "bfloat16", "--cover", "--json", str(out), "--log-file", str(log)]
    assert main([*command, *options]) == 0
    said = capsys.readouterr().out
    assert "GCN on digits, 1 ranks, exact, bfloat16" in said
    assert "5 of 5 epochs exchanged rows: none to send" in said
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (result,) = json.loads(out.read_text())
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5]
    for name, by_epoch in (("loss", "losses"), ("val", "val_scores"), ("seconds", "epoch_seconds")):
        assert [line[name] for line in lines] == result[by_epoch]
    assert all(line["exchanged"] and line["drift"] is None for line in lines)
    assert result["settings"]["exchanges"]["exchanged"] == 5
