"""The clock: batches of short calls, one long call."""

import time

from gnnkern.bench.harness import Checked
from gnnkern.bench.run import _timed_already
from gnnkern.bench.timing import BATCH_SECONDS, MAX_ROUNDS, calls_for, rounds_for, time_in_turns


def test_short_calls_are_timed_in_batches():
    timing = time_in_turns({"short": lambda: None}, seconds=1.0, max_rounds=5)["short"]
    assert timing.calls > 100 and timing.rounds == 5
    assert 0 < timing.first_quartile <= timing.median <= timing.third_quartile < 1e-4


def test_long_calls_are_timed_one_by_one():
    def run():
        time.sleep(2 * BATCH_SECONDS)

    timing = time_in_turns({"long": run}, seconds=1.0, max_rounds=3)["long"]
    assert (timing.calls, timing.rounds) == (1, 3)
    assert timing.median >= 2 * BATCH_SECONDS


def test_the_turns_alternate():
    seen = []
    runs = {name: lambda name=name: (seen.append(name), time.sleep(3e-3)) for name in "AB"}
    time_in_turns(runs, seconds=1.0, max_rounds=3)
    assert seen[-6:] == list("ABABAB")


def test_rounds_and_calls():
    assert calls_for(lambda: None, 1.0) == (1, 1.0)
    assert rounds_for(1e-6, 1.0) == MAX_ROUNDS
    assert rounds_for(0.3, 1.0) == 3
    assert rounds_for(2.0, 1.0) == 1


def test_a_slow_call_that_had_its_warm_up_is_not_run_again():
    def run():
        raise AssertionError("called")

    timing = time_in_turns({"slow": run}, seconds=1.0, warm_ups={"slow": (7, 2.0)})["slow"]
    assert (timing.median, timing.rounds, timing.peak_bytes) == (2.0, 1, 7)


def test_who_is_not_called_again():
    took = {"gnnkern": 3.0, "fastest": 0.2, "near": 0.3, "far": 0.5, "compiled": None}
    checked = {name: Checked(0.0, 5, seconds) for name, seconds in took.items()}
    assert _timed_already(checked, seconds=1.0) == {"far": (5, 0.5)}
    assert _timed_already(checked, seconds=10.0) == {}
