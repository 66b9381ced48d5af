"""Attention in CUDA where its lanes are shared out in other ways than for the smallest heads."""

from functools import partial

import pytest
import torch
from device.test_device_attention import CALLS, call_of, each_with_edges
from helpers.cases import Call, each_dtype
from helpers.checks import check_gradient
from helpers.devices import device_graph, small_tiles
from helpers.host_executor import check_every_order_of_threads, check_rows_that_begin_anywhere

import gnnkern
from gnnkern._cuda import attention_loops

pytestmark = pytest.mark.usefixtures("cuda")

# Several lanes to a head, rows read 16 bytes at a time or element by element; more heads than
# lanes; heads wider than what a warp holds.
SHAPES = ((2, 16), (3, 68), (1, 100), (2, 65), (40, 3), (1, 264), (2, 257))
each_op = pytest.mark.parametrize("op", [name for name in CALLS if "edges" not in name])


@pytest.fixture(autouse=True)
def _small_chunks():
    with small_tiles():
        yield


@pytest.mark.parametrize("heads, width", SHAPES)
@each_with_edges
def test_gradient_of_every_share_of_lanes(which, heads, width):
    check_gradient(call_of(which, "hubs", heads, width), "cuda")


@each_dtype
@each_with_edges
def test_gradient_of_aligned_rows(which, dtype):
    check_gradient(call_of(which, "hubs", 2, 24, dtype=dtype), "cuda")


@pytest.mark.parametrize("which", CALLS)
def test_rows_that_begin_anywhere(which):
    check_rows_that_begin_anywhere(call_of(which, "multi_edges", 2, 8))


@pytest.mark.parametrize("width", [40, 257])
@each_op
def test_dropout_of_heads_of_several_lanes(op, width):
    # The lanes of a head draw for one another.
    g = device_graph("hubs")

    def dropped(*tensors, backend):
        torch.manual_seed(7)
        return getattr(gnnkern, op)(g, *tensors, dropout=0.4, backend=backend)

    tensors = call_of(op, "hubs", 2, width).tensors
    check_gradient(Call(dropped, partial(dropped, backend="reference"), tensors), "cuda")


def test_few_blocks_sum_the_gradient_of_att(monkeypatch):
    monkeypatch.setattr(attention_loops, "_MOST_SUMS", 1)
    check_gradient(call_of("gatv2_attention_edges", "hubs", 2, 40), "cuda")


@each_with_edges
def test_same_bits_in_every_order_of_threads(which):
    call = call_of(which, "hubs", 3, 17)
    check_every_order_of_threads(partial(call.run, backend="cuda"), call.tensors)
