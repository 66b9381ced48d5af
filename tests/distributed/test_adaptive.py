"""The adaptive period: the rule, the same decisions on every rank, their repetition."""

import json
import math

import pytest
import rank_adaptive

from gnnkern.cli import main
from gnnkern.distributed import Adaptive, Hierarchy, Recorded, by_link
from gnnkern.distributed.adaptive import Seen, next_period

# Computing takes a second; a tenth of it may be waited.
STILL, FAST = 1e-6, 1e6


@pytest.mark.parametrize(
    ("period", "seen", "expected"),
    [
        # Nothing to hide.
        (1, Seen(1, STILL, 0.05, 1.0), (1, "kept")),
        (8, Seen(8, STILL, 0.05, 1.0), (4, "hidden")),
        # A tenth of a second per step: 3 steps hide 0.3.
        (1, Seen(1, STILL, 0.3, 1.0), (2, "hidden")),
        (2, Seen(2, STILL, 0.3, 1.0), (3, "hidden")),
        (3, Seen(3, STILL, 0.3, 1.0), (3, "kept")),
        # At most doubled, at most halved, at most the longest.
        (4, Seen(4, STILL, 100.0, 1.0), (8, "most")),
        (16, Seen(16, STILL, 100.0, 1.0), (20, "most")),
        (9, Seen(9, STILL, 0.1, 1.0), (5, "hidden")),
        # Within a quarter nothing changes.
        (10, Seen(10, STILL, 1.2, 1.0), (10, "kept")),
        (10, Seen(10, STILL, 0.8, 1.0), (10, "kept")),
        (10, Seen(10, STILL, 1.3, 1.0), (13, "hidden")),
        # Rows that moved by 0.04 in 4 steps reach 0.1 in 10, and 0.05 in 5.
        (4, Seen(4, 0.04, 100.0, 1.0), (8, "tolerance")),
        (8, Seen(4, 0.04, 100.0, 1.0), (10, "tolerance")),
        (8, Seen(8, 0.16, 100.0, 1.0), (5, "tolerance")),
        # Too far now: no hysteresis.
        (8, Seen(8, 0.11, 100.0, 1.0), (7, "tolerance")),
        (8, Seen(8, FAST, 100.0, 1.0), (4, "tolerance")),
        (1, Seen(1, FAST, 100.0, 1.0), (1, "kept")),
        (4, Seen(4, math.inf, 100.0, 1.0), (2, "tolerance")),
        (4, Seen(4, math.nan, 100.0, 1.0), (2, "tolerance")),
        # No rows, no time.
        (1, Seen(1, 0.0, 0.0, 0.0), (1, "kept")),
        (4, Seen(4, 0.0, 1.0, 0.0), (8, "most")),
    ],
)
def test_the_next_period(period, seen, expected):
    assert next_period(period, seen, tolerance=0.1, waiting=0.1, most=20) == expected


@pytest.mark.parametrize("waited", [0.0, 0.25, 3.3, 1e3])
@pytest.mark.parametrize("speed", [1e-4, 0.004, 1.0])
def test_periods_settle_where_both_hold(waited, speed):
    """With waits and speeds that stay, the period stops, within a quarter of the target."""
    period, periods = 1, []
    for _ in range(20):
        seen = Seen(period, speed * period, waited, 1.0)
        period, _ = next_period(period, seen, tolerance=0.1, waiting=0.1, most=64)
        periods.append(period)
    assert len(set(periods[-5:])) == 1
    target = max(1, min(math.ceil(waited / 0.1), math.floor(0.1 / speed + 1e-9), 64))
    assert 0.75 * target <= period <= max(target, 1)
    assert all(b <= 2 * a for a, b in zip([1, *periods], periods, strict=False))


def feed(policy, drift, steps=12):
    """Steps of one rank, whose exchanges wait for a second."""
    fresh, last = [], None
    for step in range(steps):
        exchanges = last is None or policy.exchanges(step, steps, last)
        last = step if exchanges else last
        fresh.append(exchanges)
        policy.learn(step, drift, float(exchanges), 1.0 + exchanges, list if exchanges else None)
    return fresh


def test_a_frozen_one_repeats_the_decisions():
    policy = Adaptive(0.5)
    fresh = feed(policy, 0.0)
    assert fresh == [step in (0, 1, 3, 7) for step in range(12)]
    assert [(each.step, each.period) for each in policy.decisions] == [(1, 2), (3, 4), (7, 8)]
    log = json.loads(json.dumps(policy.log()))
    for frozen in (policy.frozen(), Recorded.from_log(log)):
        assert feed(frozen, math.inf) == fresh
    again = Adaptive(0.5)
    again.load_state_dict(policy.state_dict())
    assert again.decisions == policy.decisions and again.period == 8


def test_each_link_has_one_of_its_own():
    policies = by_link(Adaptive(0.5), {"network": 16}, Hierarchy(2, 2))
    assert policies["host"] is not policies["network"]
    assert (policies["host"].most, policies["network"].most) == (64, 16)


@pytest.mark.dist
@pytest.mark.parametrize("tolerance", [0.0, 1e9])
def test_all_ranks_decide_alike(run, tolerance):
    results = run(rank_adaptive.decisions_of_a_training, tolerance, 12)
    assert all(result == results[0] for result in results)
    fresh, decisions = results[0]
    if run.world > 1 and tolerance == 0.0:
        assert all(fresh)
    else:
        # A rank that is alone has no rows that could move, and waits for itself.
        assert [step for step, each in enumerate(fresh) if each] == [0, 1, 3, 7]
        assert [decision[:2] for decision in decisions] == [(1, 2), (3, 4), (7, 8)]


@pytest.mark.dist
def test_another_run_repeats_the_steps(run):
    run(rank_adaptive.replayed_is_the_same, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tolerance", "-1"], "Adaptive: tolerance is out of range, got -1.0"),
        (["--tolerance", "nan"], "Adaptive: tolerance is out of range, got nan"),
        (["--tolerance", "1", "--policy", "hold:2"], "one of --policy, --tolerance and --replay"),
        (["--replay", "/dev/null"], "/dev/null has no decisions"),
    ],
)
def test_what_cannot_be(options, message, capsys):
    assert main(["train", "--quiet", "--parts", "1", *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("decisions", [((3, 1), (2, 1)), ((0, 0),), ((1, 2), (1, 3))])
def test_what_is_no_record(decisions):
    with pytest.raises(ValueError, match="Recorded: steps must rise and periods be >= 1"):
        Recorded(decisions)


def test_the_command_replays_what_it_decided(tmp_path, capsys):
    out = tmp_path / "out.json"
    command = ["train", "--parts", "1", "--method", "random", "--epochs", "3", "--quiet"]
    assert main([*command, "--tolerance", "0.1", "--json", str(out)]) == 0
    assert "1 ranks, tolerance 0.1" in capsys.readouterr().out
    (result,) = json.loads(out.read_text())
    assert [each["step"] for each in result["settings"]["decisions"]["all"]] == [1, 2]
    assert main([*command, "--replay", str(out)]) == 0
    assert "1 ranks, as out.json" in capsys.readouterr().out
