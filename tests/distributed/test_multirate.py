"""Many steps inside a part for each exchange: the scheme, its gradient, its order, its bound."""

import math

import pytest
import rank_multirate
import torch

from gnnkern.distributed.hierarchy import Hierarchy
from gnnkern.distributed.multirate import multirate, propagate
from gnnkern.distributed.window import check_period

pytestmark = pytest.mark.dist


def test_equals_the_emulation_in_one_process(run):
    run(rank_multirate.equals_the_emulation)


def test_period_one_is_bit_for_bit_one_process(run):
    run(rank_multirate.period_one_is_bitwise)


def test_the_bound_is_never_below_the_error(run):
    # It is of use, too: somewhere the error comes near it.
    worst = run(rank_multirate.bound_holds, 40)[0]
    assert run.world == 1 or worst > 0.3


@pytest.mark.parametrize(("predictor", "order"), [("hold", 1), ("linear", 2)])
def test_the_order_in_the_length_of_a_window(run, predictor, order):
    if run.world == 1:
        pytest.skip("nothing is cut")
    errors = run(rank_multirate.errors_by_step, predictor, 4)[0]
    observed = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert all(order - 0.2 < each < order + 0.4 for each in observed), (errors, observed)


@pytest.mark.parametrize("predictor", ["hold", "linear"])
def test_the_emulation_has_the_gradient_of_its_values(predictor):
    generator = torch.Generator().manual_seed(0)
    inner, *cuts = torch.rand(3, 5, 5, dtype=torch.float64, generator=generator).mul(0.3).unbind()
    x = torch.rand(5, 2, dtype=torch.float64, generator=generator).requires_grad_()
    tensors = [part.requires_grad_() for part in (inner, *cuts)]

    def scheme(x, inner, *cuts):
        return rank_multirate.emulate(inner, cuts, x, 7, 0.6, 0.4, 0.1, (2, 3), predictor)

    assert torch.autograd.gradcheck(scheme, (x, *tensors))


@pytest.mark.parametrize(
    ("period", "message"),
    [
        (0, "must be >= 1, got 0"),
        ({"network": -1}, "got -1 for network"),
        ({"street": 2}, "kinds of links are device, host, network, got 'street'"),
        (2.5, "must be an int, got 2.5"),
        (True, "must be an int, got True"),
    ],
)
def test_periods_that_cannot_be(period, message):
    with pytest.raises((ValueError, TypeError), match=message):
        check_period(period, Hierarchy(2, 2, 2))


def test_periods_of_the_links_that_there_are():
    assert check_period(3, Hierarchy(2, 1)) == {"network": 3}
    assert check_period({"network": 8}, Hierarchy(2, 2)) == {"host": 1, "network": 8}
    assert check_period({"host": 2}, Hierarchy(1, 2, 2)) == {"device": 1, "host": 2}
    assert check_period(5, Hierarchy(1, 1)) == {}


def test_a_graph_has_nothing_to_exchange():
    graph = rank_multirate.whole_graph("chain")
    assert multirate(graph, 8) is graph
    x = rank_multirate.normal(graph.num_dst, 2)
    out, drift = propagate(graph, x, 0, measure=True)
    assert torch.equal(out, x) and drift.bound == 0.0
    with pytest.raises(ValueError, match="steps must be an int >= 0, got -1"):
        propagate(graph, x, -1)
