import pytest
import torch
from helpers.cases import (
    Call,
    each_backend,
    each_dtype,
    each_index_dtype,
    each_kernel,
    each_layout,
    each_width,
    normal,
)
from helpers.checks import (
    check_autocast,
    check_compiled,
    check_gradcheck,
    check_gradient,
    check_operators,
    check_part_of_gradients,
    check_repeatable,
    check_second_derivative,
    check_value,
)
from helpers.graphs import GRAPHS, fresh_graph, graph
from helpers.rejects import bad_choices, bad_floats, bad_graphs, check_rejects, each_reject
from helpers.tolerance import HALVES

import gnnkern
from gnnkern.reference.sddmm import sddmm_reference

COMBINATIONS = ("dot", "add", "sub", "mul", "div")
HEADS = 3

sddmm_backends = each_backend("sddmm")
sddmm_kernels = each_kernel("sddmm")
each_op = pytest.mark.parametrize("op", COMBINATIONS)
each_heads = pytest.mark.parametrize("heads", [None, HEADS], ids=["no_heads", "heads"])


def sddmm_call(g, width, op="dot", heads=None, dtype=torch.float32):
    trailing = (width,) if heads is None else (heads, width)
    x_dst, x_src = normal(g.num_dst, *trailing), normal(g.num_src, *trailing)
    if op == "div":
        # Divisors stay away from 0.
        x_src = x_src + x_src.sign()

    def public(x_dst, x_src, *, backend):
        return gnnkern.sddmm(g, x_dst, x_src, op=op, backend=backend)

    def reference(x_dst, x_src):
        return sddmm_reference(g, x_dst, x_src, op)

    return Call(public, reference, (x_dst, x_src)).to(dtype)


# Value


@sddmm_kernels
@each_op
@each_width
@each_heads
def test_value_at_every_width(backend, op, width, heads):
    check_value(sddmm_call(graph("power_law"), width, op, heads), backend)


@sddmm_kernels
@each_op
@each_dtype
@pytest.mark.parametrize("heads, width", [(None, 33), (None, 129), (HEADS, 8)])
def test_value_of_every_dtype(backend, op, dtype, heads, width):
    check_value(sddmm_call(graph("power_law"), width, op, heads, dtype), backend)


@sddmm_backends
@each_op
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("heads, width", [(None, 1), (None, 33), (HEADS, 5)])
def test_value_on_every_graph(backend, op, name, heads, width):
    check_value(sddmm_call(graph(name), width, op, heads), backend)


@sddmm_kernels
@pytest.mark.parametrize("dtype", HALVES)
def test_long_dots_of_halves_are_summed_in_float32(backend, dtype):
    check_value(sddmm_call(graph("bipartite"), 3000, "dot", None, dtype), backend)


@sddmm_backends
@each_op
@each_index_dtype
@pytest.mark.parametrize("name", ["no_edges", "power_law"])
def test_index_dtypes(backend, op, index_dtype, name):
    check_value(sddmm_call(graph(name, index_dtype), 8, op), backend)


@sddmm_kernels
@each_layout
@each_op
@pytest.mark.parametrize("heads, width", [(None, 64), (HEADS, 5)])
def test_layouts(backend, layout, op, heads, width):
    call = sddmm_call(graph("bipartite"), width, op, heads).laid_out(layout)
    check_gradient(call, backend, upstream_layout="transposed")


@sddmm_backends
@each_op
def test_expanded_inputs(backend, op):
    call = sddmm_call(graph("power_law"), 33, op)
    expanded = tuple(x[:1].expand_as(x) for x in call.tensors)
    check_value(Call(call.op, call.reference, expanded), backend)


# Values worked out by hand


@sddmm_backends
@pytest.mark.parametrize(
    "op, expected",
    [
        ("dot", [1020.0, -30.0, 1020.0]),
        ("add", [[12.0, 110.0], [-7.0, 20.0], [12.0, 110.0]]),
        ("sub", [[8.0, 90.0], [-13.0, 0.0], [8.0, 90.0]]),
        ("mul", [[20.0, 1000.0], [-30.0, 100.0], [20.0, 1000.0]]),
        ("div", [[5.0, 10.0], [-10 / 3, 1.0], [5.0, 10.0]]),
    ],
)
def test_by_hand(backend, op, expected):
    # 1 -> 0, 0 -> 2, 1 -> 0: in the caller's order, which is not that of the destinations' sort.
    edge_index = torch.tensor([[1, 0, 1], [2, 0, 2]])
    g = gnnkern.Graph.from_edge_index(edge_index, num_nodes=(2, 3))
    x_dst = torch.tensor([[-10.0, 10.0], [0.0, 0.0], [10.0, 100.0]])
    x_src = torch.tensor([[3.0, 10.0], [2.0, 10.0]])
    if op == "dot":
        x_src = torch.tensor([[3.0, 0.0], [2.0, 10.0]])
    out = gnnkern.sddmm(g, x_dst, x_src, op=op, backend=backend)
    torch.testing.assert_close(out, torch.tensor(expected))


@sddmm_backends
def test_the_default_is_the_dot_product(backend):
    g = graph("bipartite")
    x_dst, x_src = normal(29, 4).float(), normal(13, 4).float()
    default = gnnkern.sddmm(g, x_dst, x_src, backend=backend)
    assert torch.equal(default, gnnkern.sddmm(g, x_dst, x_src, op="dot", backend=backend))


@sddmm_backends
@each_op
def test_heads_are_independent(backend, op):
    # Heads of very different size: a head mixed up shows in the largest digit.
    g = graph("multi_edges")
    size = torch.tensor([1.0, 1e3, 1e6])[:, None]
    x_dst, x_src = normal(5, HEADS, 4).float() * size, normal(5, HEADS, 4).float() * size
    together = gnnkern.sddmm(g, x_dst, x_src, op=op, backend=backend)
    for head in range(HEADS):
        alone = gnnkern.sddmm(g, x_dst[:, head], x_src[:, head], op=op, backend=backend)
        scale = float(alone.abs().max())
        torch.testing.assert_close(together[:, head], alone, rtol=0, atol=1e-6 * scale)


@sddmm_backends
def test_division_by_zero_is_that_of_torch(backend):
    g = graph("bipartite")
    x_dst = torch.tensor([[1.0, -1.0, 0.0]]).expand(29, 3)
    call = sddmm_call(g, 3, "div")
    check_value(Call(call.op, call.reference, (x_dst, torch.zeros(13, 3))), backend)


@sddmm_backends
@each_op
def test_nan_propagates(backend, op):
    call = sddmm_call(graph("bipartite"), 33, op)
    call.tensors[0][7, ::2] = float("nan")
    check_gradient(call, backend)


# Gradient


@sddmm_kernels
@each_op
@pytest.mark.parametrize("name", GRAPHS)
@each_heads
def test_gradient_on_every_graph(backend, op, name, heads):
    check_gradient(sddmm_call(graph(name), 5, op, heads), backend)


@sddmm_kernels
@each_op
@each_width
def test_gradient_at_every_width(backend, op, width):
    check_gradient(sddmm_call(graph("power_law"), width, op), backend)


@sddmm_kernels
@each_op
@each_dtype
@each_heads
def test_gradient_of_every_dtype(backend, op, dtype, heads):
    check_gradient(sddmm_call(graph("power_law"), 8, op, heads, dtype), backend)


@sddmm_kernels
@each_op
@pytest.mark.parametrize("dtype", HALVES)
def test_gradient_of_long_rows_of_halves(backend, op, dtype):
    check_gradient(sddmm_call(graph("long_rows"), 8, op, None, dtype), backend)


@sddmm_backends
@each_op
def test_gradient_of_a_sum(backend, op):
    check_gradient(sddmm_call(graph("power_law"), 33, op), backend, upstream_layout="expanded")


@sddmm_backends
@each_op
@each_heads
@pytest.mark.parametrize("name", ["multi_edges", "isolated_ends"])
def test_gradcheck(backend, op, heads, name):
    check_gradcheck(sddmm_call(graph(name), 2, op, heads), backend)


@sddmm_backends
@each_op
def test_gradient_of_one_input_alone(backend, op):
    check_part_of_gradients(sddmm_call(graph("bipartite"), 8, op), backend)


@sddmm_backends
@each_op
def test_gradient_where_both_inputs_are_one_tensor(backend, op):
    call = sddmm_call(graph("power_law"), 8, op)

    def public(x, *, backend):
        return call.op(x, x, backend=backend)

    def reference(x):
        return call.reference(x, x)

    check_gradient(Call(public, reference, call.tensors[1:]), backend)


@sddmm_backends
@each_op
@each_heads
def test_second_derivative(backend, op, heads):
    check_second_derivative(sddmm_call(graph("multi_edges"), 2, op, heads), backend)


# Everything else


@sddmm_backends
@each_op
@pytest.mark.parametrize("name", ["power_law", "long_rows"])
@pytest.mark.parametrize("heads, width", [(None, 1), (None, 64), (HEADS, 8)])
def test_repeatable(backend, op, name, heads, width):
    check_repeatable(sddmm_call(graph(name), width, op, heads), backend)


@sddmm_backends
@pytest.mark.parametrize("make_graph", [graph, fresh_graph], ids=["prepared", "unprepared"])
@pytest.mark.parametrize("op, heads", [("dot", HEADS), ("sub", None), ("div", None)])
def test_compiles(backend, make_graph, op, heads):
    check_compiled(sddmm_call(make_graph("bipartite"), 8, op, heads), backend)


@sddmm_backends
@each_op
@each_heads
def test_operators(backend, op, heads):
    check_operators(sddmm_call(graph("bipartite"), 4, op, heads), backend)


@sddmm_backends
@each_op
def test_autocast(backend, op):
    check_autocast(sddmm_call(graph("power_law"), 16, op), backend)


X_DST, X_SRC = torch.ones(29, 4), torch.ones(13, 4)
X_DST_HEADS, X_SRC_HEADS = torch.ones(29, 2, 4), torch.ones(13, 2, 4)


@sddmm_backends
@each_op
@each_reject(
    bad_graphs("g"),
    bad_floats("x_dst", X_DST, (28, 4), (13, 4), (29,), (), (29, 2, 2, 3), beside_others=True),
    bad_floats("x_src", X_SRC, (12, 4), (29, 4), (13,), (), (13, 2, 2, 3), beside_others=True),
)
def test_rejects(backend, op, reject):
    arguments = {"g": graph("bipartite"), "x_dst": X_DST, "x_src": X_SRC, "op": op}
    check_rejects(gnnkern.sddmm, arguments, reject, backend)


@sddmm_backends
@each_reject(bad_choices("op", "max", "Dot ", "copy", ""))
def test_rejects_an_unknown_op(backend, reject):
    arguments = {"g": graph("bipartite"), "x_dst": X_DST, "x_src": X_SRC, "op": "dot"}
    check_rejects(gnnkern.sddmm, arguments, reject, backend)


@sddmm_backends
@each_op
@pytest.mark.parametrize("x_dst", [X_DST[:, :3], X_DST_HEADS, X_DST_HEADS[:, :1]])
def test_rejects_rows_of_different_shape(backend, op, x_dst):
    x_src = X_SRC if x_dst.dim() == 2 else X_SRC_HEADS[:, :, :3]
    with pytest.raises(ValueError, match=r"sddmm: x_(src|dst) must .*got"):
        gnnkern.sddmm(graph("bipartite"), x_dst, x_src, op=op, backend=backend)


@pytest.mark.big
@pytest.mark.parametrize("op", ["dot", "add"])
def test_big(op):
    # 2^31 elements of input (dot) or output (add): the last rows lie beyond every 32-bit offset.
    width = 2**11
    num_rows = 2**20 + 3
    if op == "dot":
        g = gnnkern.Graph.from_edge_index(
            torch.tensor([[0, 0, 0], [num_rows - 1, 0, num_rows - 2]]), num_nodes=(1, num_rows)
        )
        x_dst = torch.zeros(num_rows, width, dtype=torch.bfloat16)
        x_dst[0], x_dst[-2], x_dst[-1] = 1, 2, 3
        x_src = torch.ones(1, width, dtype=torch.bfloat16)
        out = gnnkern.sddmm(g, x_dst, x_src, op=op, backend="cpu")
        assert out.tolist() == [3 * width, width, 2 * width]
        return
    edge_index = torch.zeros(2, num_rows, dtype=torch.int64)
    edge_index[:, -1] = 1
    g = gnnkern.Graph.from_edge_index(edge_index, num_nodes=2)
    x = torch.tensor([[1.0], [2.0]], dtype=torch.bfloat16).expand(2, width).contiguous()
    out = gnnkern.sddmm(g, x, x, op=op, backend="cpu")
    assert out.numel() > 2**31
    assert (out[:-1] == 2).all()
    assert (out[-1] == 4).all()
