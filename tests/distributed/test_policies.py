"""Policies on ranks: equal to an emulation in one process, exact at their extremes, recorded."""

import pytest
import rank_policies
import torch
from rank_checks import normal, whole_graph

import gnnkern
from gnnkern.distributed import PartitionedGraph, StepRecord, partition, summary
from gnnkern.distributed.policies import Drift, Exact, Sampled
from gnnkern.distributed.schedule import Schedule
from gnnkern.distributed.train_log import in_words

pytestmark = pytest.mark.dist


@pytest.mark.parametrize("text", rank_policies.POLICIES)
def test_equals_the_emulation_of_policies(run, text):
    run(rank_policies.equals_the_emulation, text)


def test_the_extremes_are_exact(run):
    run(rank_policies.the_extremes_are_exact)


def test_what_was_sent_arrives_a_step_later(run):
    run(rank_policies.what_was_sent_arrives_a_step_later)


@pytest.mark.parametrize("text", ["exact", "drift:0.05", "pipelined", "sampled:0.5"])
def test_records_are_the_traffic(run, text):
    run(rank_policies.records_are_the_traffic, text)


def test_windows_take_the_noise_out(run):
    rows = run(rank_policies.windows_take_the_noise_out)[0]
    others = [rows[step] for step in (5, 6, 7, 9, 10, 11)]
    assert min(rows[4], rows[8]) > 5 * max(others) or run.world == 1


def test_shares_of_a_sample():
    policy, nodes = Sampled(0.3, seed=3), torch.arange(20_000)
    draws = [policy.chosen(nodes, step, site) for step in (4, 5) for site in (0, 1)]
    draws.append(Sampled(0.3, seed=4).chosen(nodes, 4, 0))
    for place, draw in enumerate(draws):
        # Four deviations of a binomial count.
        assert abs(float(draw.double().mean()) - 0.3) < 4 * (0.3 * 0.7 / len(nodes)) ** 0.5
        for other in draws[:place]:
            both = float((draw & other).double().mean())
            assert abs(both - 0.09) < 4 * (0.09 * 0.91 / len(nodes)) ** 0.5
    order = torch.randperm(len(nodes))
    assert torch.equal(policy.chosen(nodes[order], 4, 0), draws[0][order])


@pytest.fixture
def alone():
    """A graph in one part."""
    graph = whole_graph("communities")
    return PartitionedGraph.from_graph(graph, partition(graph, 1, "random"))


def test_windows_share_masks(alone):
    windows = [
        [Schedule(alone, policy, steps=6).window(step) for step in range(6)]
        for policy in (Exact(), Drift(0.1, window=3))
    ]
    assert windows == [[0, 1, 2, 3, 4, 5], [0, 0, 0, 1, 1, 1]]


def test_steps_call_the_same_ops(alone):
    schedule = Schedule(alone, Exact(), steps=2)
    gnnkern.spmm(schedule.begin(0), normal(alone.num_dst, 3))
    message = r"call 0 of step 1 gives rows of \[n, 4\] float32, in earlier steps \[n, 3\] float32"
    with pytest.raises(ValueError, match=message):
        gnnkern.spmm(schedule.begin(1), normal(alone.num_dst, 4))


@pytest.mark.parametrize("name", ["ghosts", "sent"])
def test_a_state_of_other_parts_is_refused(alone, name):
    schedule = Schedule(alone, Drift(0.1), steps=2)
    gnnkern.spmm(schedule.begin(0), normal(alone.num_dst, 3))
    state = schedule.state_dict()
    state["sites"][0][name] = [torch.zeros(5, 3)]
    with pytest.raises(ValueError, match=f"other parts: {name} of call 0 must have 0 rows, got 5"):
        schedule.load_state_dict(state)


def test_totals_of_records():
    rows = [{"device": 0, "host": count, "network": 2 * count} for count in (5, 0, 3)]
    sent = [{level: 2**20 * count for level, count in each.items()} for each in rows]
    counts = zip((2, 0, 2), rows, sent, (0.0, 0.0, 1.0), (0.0, 0.0, 4.0), strict=True)
    records = [StepRecord(step, *each) for step, each in enumerate(counts)]
    assert [each.drift for each in records] == [None, None, 0.5]
    assert [StepRecord.from_numbers(each.numbers()) for each in records] == records
    totals = summary(records)
    assert totals["rows"] == {"device": 0, "host": 8, "network": 16}
    assert in_words(totals) == (
        "2 of 3 epochs exchanged rows: host 8.00 MiB in 8 rows; network 16.00 MiB in 16 rows; "
        "moved by 0.5 (median), 0.5 at most"
    )
