"""No result depends on the order in which blocks and threads run: there is no race to win."""

import pytest
import torch
from helpers.devices import DEVICE, small_tiles
from helpers.host_executor import check_every_order_of_threads
from helpers.public_calls import NAMES, public_calls

import gnnkern
from gnnkern.backends import BackendUnavailable
from gnnkern.data import power_law

pytestmark = pytest.mark.skipif(DEVICE.type != "cpu", reason="a GPU has no seed for its order")


@pytest.mark.parametrize("name", NAMES)
def test_results_have_the_same_bits_in_every_order(name, cuda):
    data = power_law(30, 250, 60)
    g = gnnkern.Graph.from_edge_index(data.edge_index, 30)
    call = public_calls(g, cuda)[name]
    with small_tiles():
        try:
            check_every_order_of_threads(call.run, (torch.randn(call.shape),))
        except BackendUnavailable:
            pytest.skip("not implemented in CUDA")
