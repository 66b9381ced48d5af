"""Every op on every awkward graph of all tests, values and gradients, against float64."""

import pytest
import torch
from helpers.attention import dot_call, gat_call, gatv2_call
from helpers.cases import Call, normal
from helpers.checks import check_gradient
from helpers.devices import device_graph, edge_list, on_device
from helpers.graphs import GRAPHS
from helpers.public_calls import NAMES, public_calls

from gnnkern import ops

# All of whose tensors get gradients: that of scores alone is nothing where a node has one edge.
ATTENTION = {
    "gat_attention": gat_call,
    "gatv2_attention": gatv2_call,
    "dot_attention": dot_call,
}
IN_CUDA = [name for name in NAMES if not name.endswith(("std", "matmul", "multi_reduce"))]


def test_the_ops_without_a_kernel_are_the_others():
    have = {
        op for op, table in ops.implementations().items() if "cuda" in [i.backend for i in table]
    }
    assert {name for name in NAMES if name.removesuffix("_sum").removesuffix("_max") in have} == {
        *IN_CUDA
    }


@pytest.mark.parametrize("which", IN_CUDA)
@pytest.mark.parametrize("name", GRAPHS)
def test_value_and_gradient(name, which, cuda):
    if which in ATTENTION:
        # Where a node has one edge, what cancels is exact.
        check_gradient(on_device(ATTENTION[which](device_graph(name)).on_grid()), cuda)
        return
    edges = edge_list(name)
    if edges.num_src != edges.num_dst:
        pytest.skip("rows of a square graph")
    g = device_graph(name)

    def op(x, *, backend):
        return public_calls(g, backend)[which].run(x)

    def reference(x):
        return public_calls(g, "reference", x.dtype)[which].run(x)

    shape = public_calls(g, "reference")[which].shape
    call = Call(op, reference, (normal(*shape),)).to(torch.float32)
    check_gradient(on_device(call), cuda)
