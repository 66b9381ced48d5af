"""Periods by kind of link across optimizer steps: what travels when, values and gradients."""

import pytest
import rank_links
import rank_training

from gnnkern.cli import main
from gnnkern.distributed import Anneal, Exact, Hierarchy, Hold, LinkSchedule, Pipelined, by_link
from gnnkern.distributed.link_schedule import parse_period

pytestmark = pytest.mark.dist

# Ranks of one host have no network between them.
BOTH = Hierarchy(2, 2)


@pytest.mark.parametrize("cover", [False, True], ids=["rows", "cover"])
@pytest.mark.parametrize("periods", [{"host": 2, "network": 6}, {"network": 3}, {"host": 4}])
def test_equals_the_emulation_in_one_process(run, periods, cover):
    run(rank_links.equals_the_emulation, periods, cover)


def test_only_links_that_are_due_travel(run):
    found, ghosts = run(rank_links.rows_by_step, {"host": 2, "network": 3}, 8)[0]
    for step, rows in enumerate(found):
        for level, count in rows.items():
            period = {"host": 2, "network": 3}.get(level, 1)
            # Once there and the gradient once back.
            expected = 2 * ghosts[level] if step % period == 0 else 0
            assert count == expected, (step, level)
    if run.world == 4:
        assert ghosts["host"] > 0 and ghosts["network"] > 0


def test_the_same_policy_on_all_links_is_that_policy(run):
    run(rank_links.all_links_alike_is_one_policy, "hold:2", 5)


def test_a_resumed_training_is_one_that_did_not_stop(run):
    policies = {"host": "hold:2", "network": "drift:0.1"}
    run(rank_training.resumed_is_not_stopped, policies)


@pytest.mark.parametrize(
    ("policy", "period", "expected"),
    [
        (Exact(), {"host": 2, "network": 8}, {"host": Hold(2), "network": Hold(8)}),
        (Exact(), 4, {"host": Hold(4), "network": Hold(4)}),
        (Exact(), {"network": 8}, {"host": Exact(), "network": Hold(8)}),
        (Hold(4), {"host": 2, "network": 8}, {"host": Hold(2), "network": Hold(4)}),
        (Anneal(8, 2, 1), {"host": 4}, {"host": Anneal(4, 2, 1), "network": Anneal(8, 2, 1)}),
    ],
)
def test_a_policy_and_a_period_make_one_for_each_link(policy, period, expected):
    assert by_link(policy, period, BOTH) == expected
    on_one_host = by_link(policy, period, Hierarchy(1, 4))
    assert on_one_host == {"host": expected["host"]}


@pytest.mark.parametrize(
    ("text", "period"), [("4", 4), ("host:2,network:8", {"host": 2, "network": 8})]
)
def test_periods_in_words(text, period):
    assert parse_period(text) == period


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "period: must be like 4 or host:2,network:8"),
        ("host", "period: must be like"),
        ("host:2,host:3", "each kind of link once"),
        ("host:x", "got 'host:x'"),
        ("street:2", "kinds of links are device, host, network, got 'street'"),
        ("host:0", "must be >= 1, got 0 for host"),
    ],
)
def test_no_period(text, message, capsys):
    assert main(["train", "--quiet", "--parts", "1", "--period", text]) == 2
    assert message in capsys.readouterr().err


def test_policies_without_periods_take_none():
    with pytest.raises(ValueError, match="only exact, hold, anneal and a tolerance take"):
        by_link(Pipelined(), 2, BOTH)


def test_no_such_link():
    with pytest.raises(ValueError, match="LinkSchedule: kinds of links are .*, got 'street'"):
        LinkSchedule(None, {"street": Hold(2)}, steps=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hosts", "2"], "--hosts must be a divisor of --parts 1, got 2"),
        (["--hosts", "-1"], "--hosts must be a divisor of --parts 1, got -1"),
    ],
)
def test_hosts_that_cannot_be(options, message, capsys):
    assert main(["train", "--quiet", "--parts", "1", *options]) == 2
    assert message in capsys.readouterr().err


def test_hosts_of_a_folder_are_its_own(tmp_path, capsys):
    folder = str(tmp_path / "parts")
    assert main(["partition", "--parts", "1", "--out", folder]) == 0
    command = ["train", "--parts", "1", "--data", folder, "--quiet", "--epochs", "3"]
    assert main([*command, "--hosts", "2"]) == 2
    assert "are of 1 hosts, got --hosts 2" in capsys.readouterr().err
    assert main([*command, "--period", "host:2,network:8"]) == 0
    said = capsys.readouterr()
    assert "1 ranks, exact, period host:2,network:8" in said.out
    assert "no period of host, network: there is no such link between 1 ranks" in said.err
