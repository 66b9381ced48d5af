"""No result depends on the order in which blocks and threads run: there is no race to win."""

import pytest
import torch
from helpers.checks import same_bits, value_and_gradients
from helpers.devices import DEVICE, small_tiles
from helpers.host_executor import host_module
from helpers.public_calls import NAMES, public_calls

import gnnkern
from gnnkern.backends import BackendUnavailable
from gnnkern.data import power_law

pytestmark = pytest.mark.skipif(DEVICE.type != "cpu", reason="a GPU has no seed for its order")

SEEDS = (1, 2, 3)


@pytest.mark.parametrize("name", NAMES)
def test_results_have_the_same_bits_in_every_order(name, cuda):
    host = host_module()
    data = power_law(30, 250, 60)
    g = gnnkern.Graph.from_edge_index(data.edge_index, 30)
    call = public_calls(g, cuda)[name]
    x = torch.randn(call.shape)
    results = []
    with small_tiles():
        for seed in SEEDS:
            host.set_seed(seed)
            try:
                results.append(value_and_gradients(call.run, (x,)))
            except BackendUnavailable:
                pytest.skip("not implemented in CUDA")
            finally:
                host.set_seed(0)
    for again in results[1:]:
        assert all(same_bits(a, b) for a, b in zip(results[0], again, strict=True))
