"""Ranks agree with one process: ops, layers, gradients, on graphs of every kind."""

import pytest
import rank_checks
import rank_layers
import torch
from rank_checks import normal, whole_graph
from ranks import RankError, Ranks

from gnnkern.distributed import cut, partition, save_parts

pytestmark = pytest.mark.dist

each_division = pytest.mark.parametrize("how", ["metis", "random", "lopsided"])
# How nodes are divided; largest errors of values and gradients, relative to the largest element.
each_precision = pytest.mark.parametrize(
    ("how", "dtype", "value", "gradient"),
    [
        ("metis", torch.float64, 1e-12, 1e-12),
        ("metis", torch.float32, 1e-6, 5e-6),
        ("lopsided", torch.float64, 1e-12, 1e-12),
        pytest.param("random", torch.float64, 1e-12, 1e-12, marks=pytest.mark.slow),
        pytest.param("random", torch.float32, 1e-6, 5e-6, marks=pytest.mark.slow),
    ],
)


@each_division
def test_propagation_is_bit_for_bit_that_of_one_process(run, how):
    run(rank_checks.propagation_is_bitwise, how)


@each_precision
def test_ops_agree(run, how, dtype, value, gradient):
    run(rank_checks.ops_agree, how, dtype, value, gradient)


@each_precision
def test_layers_agree(run, how, dtype, value, gradient):
    run(rank_layers.layers_agree, how, dtype, value, gradient)


def test_layers_give_weights_of_attention(run):
    run(rank_layers.layers_give_weights_of_attention, "metis")


@each_division
def test_the_backward_of_an_exchange_is_its_transpose(run, how):
    run(rank_checks.exchange_is_its_transpose, how)


@each_division
def test_the_reverse_agrees(run, how):
    run(rank_checks.reverse_agrees, how)


def test_interior_rows_are_computed_while_ghosts_travel(run):
    if run.world == 1:
        pytest.skip("nothing travels")
    run(rank_checks.interior_is_computed_meanwhile)


def test_traffic_is_counted_by_link(run):
    run(rank_checks.traffic_is_counted)


@pytest.mark.parametrize("what", ["seed", "edge", "count"])
def test_a_mismatched_plan_is_refused_on_all_ranks(run, four_ranks, what):
    if run.world == 1 and what != "count":
        pytest.skip("one rank has nobody to disagree with")
    if run.world == 8:
        pytest.skip("the ranks are asked one by one here")
    four_ranks.send(rank_checks.with_another_plan, what, world=run.world)
    answers = four_ranks.answers(run.world)
    for answer in answers:
        assert isinstance(answer, RankError), "a rank went on"
        assert answer.kind == "PlanMismatch"
        assert "the plans are not of one partition" in answer.message
    # The process group is as good as before.
    run(rank_checks.traffic_is_counted)


def test_wrong_rows_are_refused(run):
    if run.world == 1:
        pytest.skip("all rows are here")
    with pytest.raises(RankError, match=r"spmm: x must have shape \[num_src=\d+, ...\] on rank 0"):
        run(rank_checks.bad_rows)


def test_a_rank_reads_its_part_alone(run, tmp_path):
    graph = whole_graph("communities")
    parts = partition(graph, run.world, "fennel")
    rows = {"x": normal(graph.num_dst, 5)}
    save_parts(tmp_path, cut(graph, parts), parts, node_tensors=rows)
    run(rank_checks.part_from_disk, str(tmp_path))


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_others():
    ranks = Ranks(2)
    ranks.run(rank_checks.traffic_is_counted)
    ranks.processes[1].kill()
    ranks.processes[1].wait()
    ranks.send(rank_checks.alone_at_last, world=1, size=2)
    (answer,) = ranks.answers(1)
    ranks.kill()
    assert isinstance(answer, RankError) and "onnection" in answer.message
