"""Rows and edges in CUDA where lanes are shared out in other ways than on the smallest graphs."""

from functools import partial

import pytest
import torch
from helpers.cases import each_dtype
from helpers.checks import check_gradient, check_value
from helpers.devices import DEVICE, device_graph, on_device, small_tiles
from helpers.host_executor import check_every_order_of_threads, check_rows_that_begin_anywhere
from ops.test_edge_softmax import softmax_call
from ops.test_sddmm import sddmm_call
from ops.test_spmm import spmm_call
from ops.test_spmm_messages import copy_call, message_call

import gnnkern
from gnnkern._cuda import plan

pytestmark = pytest.mark.usefixtures("cuda")

CALLS = {
    "spmm": lambda g: spmm_call(g, 8, "sum", "x3_weight_per_head"),
    "spmm_max": lambda g: spmm_call(g, 8, "max", "x2_weight"),
    "spmm_rows_of_edges": lambda g: copy_call(g, "min"),
    "spmm_message": lambda g: message_call(g, "add", "mean", "row", torch.float32),
    "sddmm": lambda g: sddmm_call(g, 8, "dot", 2),
    "sddmm_sub": lambda g: sddmm_call(g, 8, "sub"),
    "edge_softmax": lambda g: softmax_call(g, 4),
}
each_call = pytest.mark.parametrize("name", CALLS)


@pytest.fixture(autouse=True)
def _small_chunks():
    with small_tiles():
        yield


def regular_graph(degree, num_nodes=9):
    source = torch.randint(num_nodes, (num_nodes * degree,), generator=torch.Generator())
    destination = torch.arange(num_nodes).repeat_interleave(degree)
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(2))
    edge_index = torch.stack((source, destination))[:, order].to(DEVICE)
    return gnnkern.Graph.from_edge_index(edge_index, num_nodes).prepare()


# Every number of lanes for an edge, from one to a warp and beyond it, for rows that share a warp,
# that take a part of one, and that are cut.
@pytest.mark.parametrize("degree", [1, 4, 9, 16, 20])
@pytest.mark.parametrize("width", [1, 2, 4, 7, 8, 16, 36, 64, 132, 260])
def test_every_share_of_lanes(width, degree):
    g = regular_graph(degree)
    for reduce in ("sum", "max"):
        check_gradient(on_device(spmm_call(g, width, reduce)).on_grid(), "cuda")
    check_value(on_device(sddmm_call(g, width, "dot", 2)), "cuda")


@each_dtype
@pytest.mark.parametrize("width", [8, 264, 520])
def test_aligned_rows_of_every_dtype(dtype, width):
    g = device_graph("hubs")
    check_gradient(on_device(spmm_call(g, width, "min", "x3_weight_per_head", dtype)), "cuda")
    check_value(on_device(sddmm_call(g, width, "dot", 2, dtype)), "cuda")


@each_call
def test_rows_that_begin_anywhere(name):
    check_rows_that_begin_anywhere(on_device(CALLS[name](device_graph("multi_edges"))))


@pytest.mark.parametrize("reduce", ["sum", "max"])
@pytest.mark.parametrize("width", [1, 5, 40])
def test_more_chunks_than_threads_fold_them(width, reduce):
    source, destination = torch.zeros(600, dtype=torch.int64), torch.ones(600, dtype=torch.int64)
    source[::7] = 2
    edge_index = torch.stack((source, destination)).to(DEVICE)
    with small_tiles(chunk_edges=2):
        g = gnnkern.Graph.from_edge_index(edge_index, 3).prepare()
        check_gradient(on_device(spmm_call(g, width, reduce)).on_grid(), "cuda")
        check_gradient(on_device(softmax_call(g, width)), "cuda")


@each_call
def test_same_bits_in_every_order_of_threads(name):
    call = on_device(CALLS[name](device_graph("hubs")))
    check_every_order_of_threads(partial(call.run, backend="cuda"), call.tensors)


def test_more_rows_than_numbers_is_an_error(monkeypatch):
    monkeypatch.setattr(plan, "_MOST", 80)
    call = on_device(spmm_call(device_graph("hubs"), 2))
    with pytest.raises(ValueError, match="fewer than 80 rows and edges, got 8 rows and 84 edges"):
        call.run(*call.tensors, backend="cuda")
