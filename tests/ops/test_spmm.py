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
    check_no_second_derivative,
    check_operators,
    check_part_of_gradients,
    check_repeatable,
    check_second_derivative,
    check_value,
    leaves,
)
from helpers.graphs import GRAPHS, fresh_graph, graph
from helpers.rejects import bad_choices, bad_floats, bad_graphs, check_rejects, each_reject
from helpers.tolerance import HALVES

import gnnkern
from gnnkern.reference.spmm import spmm_reference

REDUCES = ("sum", "mean", "max", "min")
FORMS = ("x2", "x2_weight", "x3", "x3_weight", "x3_weight_per_head")
HEADS = 3

spmm_backends = each_backend("spmm")
spmm_kernels = each_kernel("spmm")
each_reduce = pytest.mark.parametrize("reduce", REDUCES)
each_form = pytest.mark.parametrize("form", FORMS)


def spmm_call(g, width, reduce="sum", form="x2_weight", dtype=torch.float32):
    """`form` says the dimensions of x, and whether there is a weight per edge or edge and head."""
    shape = (g.num_src, width) if form.startswith("x2") else (g.num_src, HEADS, width)
    tensors = [normal(*shape)]
    if "weight" in form:
        tensors.append(normal(g.num_edges, HEADS) if "head" in form else normal(g.num_edges))

    def op(x, weight=None, *, backend):
        return gnnkern.spmm(g, x, weight, reduce=reduce, backend=backend)

    def reference(x, weight=None):
        return spmm_reference(g, x, weight, reduce)

    return Call(op, reference, tuple(tensors)).to(dtype)


# Value


@spmm_kernels
@each_reduce
@each_width
@pytest.mark.parametrize("form", ["x2", "x2_weight"])
def test_value_at_every_width(backend, reduce, form, width):
    check_value(spmm_call(graph("power_law"), width, reduce, form), backend)


@spmm_kernels
@each_reduce
@each_dtype
@pytest.mark.parametrize(
    "form, width",
    [("x2_weight", 33), ("x2", 129), ("x3_weight_per_head", 8), ("x3_weight_per_head", 64)],
)
def test_value_of_every_dtype(backend, reduce, form, dtype, width):
    check_value(spmm_call(graph("power_law"), width, reduce, form, dtype), backend)


@spmm_backends
@each_reduce
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("form, width", [("x2_weight", 1), ("x2", 33), ("x3_weight_per_head", 5)])
def test_value_on_every_graph(backend, reduce, form, name, width):
    check_value(spmm_call(graph(name), width, reduce, form), backend)


@spmm_kernels
@each_reduce
@pytest.mark.parametrize("dtype", HALVES)
def test_long_rows_of_halves_are_summed_in_float32(backend, reduce, dtype):
    check_value(spmm_call(graph("long_rows"), 8, reduce, "x2_weight", dtype), backend)


@spmm_kernels
@each_reduce
@each_index_dtype
@pytest.mark.parametrize("name", ["no_edges", "power_law"])
def test_index_dtypes(backend, reduce, index_dtype, name):
    check_value(spmm_call(graph(name, index_dtype), 8, reduce), backend)


@spmm_kernels
@each_layout
@each_reduce
@pytest.mark.parametrize("form, width", [("x2_weight", 64), ("x3_weight_per_head", 5)])
def test_layouts(backend, layout, reduce, form, width):
    call = spmm_call(graph("bipartite"), width, reduce, form).laid_out(layout)
    check_gradient(call, backend, upstream_layout="transposed")


@spmm_backends
def test_expanded_inputs(backend):
    g = graph("power_law")
    call = spmm_call(g, 33)
    x, weight = call.tensors
    check_value(
        Call(call.op, call.reference, (x[:1].expand_as(x), weight[0].expand_as(weight))), backend
    )


# Values worked out by hand: 0 -> 1 twice, 2 -> 1, 2 -> 0; node 2 has no in-edge.


def small_graph():
    edge_index = torch.tensor([[0, 2, 0, 2], [1, 1, 1, 0]])
    return gnnkern.Graph.from_edge_index(edge_index, num_nodes=3)


@spmm_backends
@pytest.mark.parametrize(
    "reduce, expected",
    [
        ("sum", [[-8.0, 80.0], [-12.0, 120.0], [0.0, 0.0]]),
        ("mean", [[-8.0, 80.0], [-4.0, 40.0], [0.0, 0.0]]),
        ("max", [[-8.0, 80.0], [-2.0, 80.0], [0.0, 0.0]]),
        ("min", [[-8.0, 80.0], [-8.0, 20.0], [0.0, 0.0]]),
    ],
)
def test_by_hand_without_weight(backend, reduce, expected):
    # Every maximum of the first column is negative: a running maximum that starts at 0 shows.
    x = torch.tensor([[-2.0, 20.0], [5.0, 5.0], [-8.0, 80.0]])
    out = gnnkern.spmm(small_graph(), x, reduce=reduce, backend=backend)
    assert out.tolist() == expected


@spmm_backends
@pytest.mark.parametrize(
    "reduce, expected",
    [
        ("sum", [[-24.0], [10.0], [0.0]]),
        # The mean divides by the number of edges, not by the sum of their weights.
        ("mean", [[-24.0], [10.0 / 3], [0.0]]),
        ("max", [[-24.0], [8.0], [0.0]]),
        ("min", [[-24.0], [0.0], [0.0]]),
    ],
)
def test_by_hand_with_weight(backend, reduce, expected):
    x = torch.tensor([[-2.0], [5.0], [-8.0]])
    weight = torch.tensor([-1.0, -1.0, 0.0, 3.0])
    out = gnnkern.spmm(small_graph(), x, weight, reduce=reduce, backend=backend)
    torch.testing.assert_close(out, torch.tensor(expected))


@spmm_backends
@each_reduce
def test_heads_are_independent(backend, reduce):
    # Heads of very different size: a head mixed up shows in the largest digit.
    g = graph("multi_edges")
    x = normal(g.num_src, HEADS, 4).float()
    weight = normal(g.num_edges, HEADS).float() * torch.tensor([1.0, 1e3, 1e6])
    together = gnnkern.spmm(g, x, weight, reduce=reduce, backend=backend)
    for head in range(HEADS):
        alone = gnnkern.spmm(g, x[:, head], weight[:, head], reduce=reduce, backend=backend)
        torch.testing.assert_close(together[:, head], alone, rtol=1e-6, atol=0)


@spmm_backends
@each_reduce
def test_weights_are_in_the_callers_edge_order(backend, reduce):
    # Node 1 gets its edges in an order that sorting changes; only edge 2 has a weight.
    edge_index = torch.tensor([[3, 0, 2, 1], [1, 0, 1, 0]])
    g = gnnkern.Graph.from_edge_index(edge_index, num_nodes=4)
    x = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    weight = torch.tensor([0.0, 0.0, 1.0, 0.0])
    out = gnnkern.spmm(g, x, weight, reduce=reduce, backend=backend)
    expected = {"sum": 3.0, "mean": 1.5, "max": 3.0, "min": 0.0}[reduce]
    assert out.tolist() == [[0.0], [expected], [0.0], [0.0]]


# Gradient


@spmm_kernels
@each_reduce
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("form", ["x2_weight", "x3_weight_per_head"])
def test_gradient_on_every_graph(backend, reduce, form, name):
    check_gradient(spmm_call(graph(name), 5, reduce, form).on_grid(), backend)


@spmm_kernels
@each_reduce
@each_width
def test_gradient_at_every_width(backend, reduce, width):
    check_gradient(spmm_call(graph("power_law"), width, reduce).on_grid(), backend)


@spmm_kernels
@each_reduce
@each_dtype
@each_form
def test_gradient_of_every_dtype(backend, reduce, dtype, form):
    check_gradient(spmm_call(graph("power_law"), 8, reduce, form, dtype).on_grid(), backend)


@spmm_kernels
@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("dtype", HALVES)
def test_gradient_of_long_rows_of_halves(backend, reduce, dtype):
    check_gradient(spmm_call(graph("long_rows"), 8, reduce, "x2_weight", dtype), backend)


@spmm_backends
@pytest.mark.parametrize("dtype", HALVES)
def test_mean_of_more_edges_than_a_half_can_count(backend, dtype):
    source = torch.arange(70_000)
    g = gnnkern.Graph.from_edge_index(
        torch.stack([source, torch.zeros_like(source)]), num_nodes=(70_000, 1)
    )
    check_gradient(spmm_call(g, 1, "mean", "x2", dtype), backend)


@spmm_backends
@each_reduce
def test_gradient_of_a_sum(backend, reduce):
    call = spmm_call(graph("power_law"), 33, reduce).on_grid()
    check_gradient(call, backend, upstream_layout="expanded")


@spmm_backends
@each_reduce
@each_form
@pytest.mark.parametrize("name", ["multi_edges", "isolated_ends"])
def test_gradcheck(backend, reduce, form, name):
    check_gradcheck(spmm_call(graph(name), 2, reduce, form), backend)


@spmm_backends
@each_reduce
@pytest.mark.parametrize("form", ["x2_weight", "x3_weight_per_head"])
def test_gradient_of_one_input_alone(backend, reduce, form):
    check_part_of_gradients(spmm_call(graph("bipartite"), 8, reduce, form), backend)


@spmm_backends
@pytest.mark.parametrize("reduce", ["sum", "mean"])
@each_form
def test_second_derivative(backend, reduce, form):
    check_second_derivative(spmm_call(graph("multi_edges"), 2, reduce, form), backend)


@spmm_backends
@pytest.mark.parametrize("reduce", ["max", "min"])
@each_form
def test_no_second_derivative(backend, reduce, form):
    check_no_second_derivative(spmm_call(graph("bipartite"), 2, reduce, form), backend)


# Ties and NaN


@spmm_backends
@pytest.mark.parametrize("reduce", ["max", "min"])
@pytest.mark.parametrize("name", ["multi_edges", "power_law", "long_rows"])
def test_the_first_edge_wins_a_tie(backend, reduce, name):
    # All messages are equal: the whole gradient of a node goes to its first edge in caller's order.
    g = graph(name)
    x = torch.ones(g.num_src, 3, requires_grad=True)
    weight = torch.ones(g.num_edges, requires_grad=True)
    gnnkern.spmm(g, x, weight, reduce=reduce, backend=backend).sum().backward()
    source, destination = g.edge_index.tolist()
    first = {v: e for e, v in reversed(list(enumerate(destination)))}
    weight_grad, x_grad = torch.zeros(g.num_edges), torch.zeros(g.num_src, 3)
    for e in first.values():
        weight_grad[e] += 3
        x_grad[source[e]] += 1
    assert torch.equal(weight.grad, weight_grad)
    assert torch.equal(x.grad, x_grad)


@spmm_kernels
@each_reduce
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["bipartite", "long_rows"])
def test_nan_propagates(backend, reduce, dtype, name):
    call = spmm_call(graph(name), 33, reduce, "x2", dtype)
    call.tensors[0][7, ::2] = float("nan")
    check_gradient(call, backend)
    assert call.run(*call.tensors, backend=backend).isnan().any()


@spmm_backends
@pytest.mark.parametrize("reduce", ["max", "min"])
@pytest.mark.parametrize("infinity", [float("inf"), -float("inf")])
def test_infinities_are_values_like_others(backend, reduce, infinity):
    call = spmm_call(graph("bipartite"), 8, reduce, "x2")
    call.tensors[0][::2] = infinity
    check_value(call, backend)
    call.tensors[0][:] = infinity
    check_value(call, backend)


# Everything else


@spmm_backends
@each_reduce
@pytest.mark.parametrize("name", ["power_law", "long_rows"])
@pytest.mark.parametrize("width", [1, 64])
def test_repeatable(backend, reduce, name, width):
    check_repeatable(spmm_call(graph(name), width, reduce), backend)
    check_repeatable(spmm_call(graph(name), width, reduce, "x3_weight_per_head"), backend)


@spmm_backends
@pytest.mark.parametrize("make_graph", [graph, fresh_graph], ids=["prepared", "unprepared"])
@pytest.mark.parametrize("reduce, form", [("sum", "x2_weight"), ("mean", "x3"), ("max", "x2")])
def test_compiles(backend, make_graph, reduce, form):
    check_compiled(spmm_call(make_graph("bipartite"), 8, reduce, form), backend)


@spmm_backends
@each_reduce
@pytest.mark.parametrize("form", ["x2", "x2_weight", "x3_weight_per_head"])
def test_operators(backend, reduce, form):
    check_operators(spmm_call(graph("bipartite"), 4, reduce, form), backend)


@spmm_backends
@each_reduce
@pytest.mark.parametrize("form", ["x2", "x2_weight"])
def test_autocast(backend, reduce, form):
    check_autocast(spmm_call(graph("power_law"), 16, reduce, form), backend)


@spmm_backends
def test_nothing_is_kept_for_the_gradient_where_none_is_asked(backend):
    g = graph("bipartite")
    x, weight = normal(g.num_src, 4).float(), normal(g.num_edges).float()
    assert not gnnkern.spmm(g, x, weight, backend=backend).requires_grad
    with torch.no_grad():
        assert not gnnkern.spmm(g, *leaves((x, weight)), backend=backend).requires_grad


X, WEIGHT = torch.ones(13, 4), torch.ones(90)
X_HEADS, WEIGHT_HEADS = torch.ones(13, 2, 4), torch.ones(90, 2)


@spmm_backends
@each_reject(
    bad_graphs("g"),
    bad_floats(
        "x", X, (12, 4), (29, 4), (13,), (), (12, 2, 2, 2), beside_others=True, optional=True
    ),
    bad_floats("weight", WEIGHT, (89,), (), (90, 3), (90, 1, 1), beside_others=True, optional=True),
    bad_choices("reduce", "median", "mul", "Sum ", ""),
    bad_choices("op", "dot", "copy_lhs", "Mul", ""),
)
def test_rejects(backend, reject):
    arguments = {"g": graph("bipartite"), "x": X, "weight": WEIGHT, "op": "mul", "reduce": "sum"}
    check_rejects(gnnkern.spmm, arguments, reject, backend)


@spmm_backends
@each_reject(
    bad_floats("x", X_HEADS, (12, 2, 4), beside_others=True, optional=True),
    bad_floats("weight", WEIGHT_HEADS, (89, 2), (90, 3), (90, 1), (2, 90), beside_others=True)[5:],
)
def test_rejects_of_heads(backend, reject):
    arguments = {"g": graph("bipartite"), "x": X_HEADS, "weight": WEIGHT_HEADS}
    check_rejects(gnnkern.spmm, arguments, reject, backend)


@spmm_backends
@pytest.mark.parametrize("x", [torch.ones(13, 3, 4), torch.ones(13, 1, 4), X])
def test_rejects_heads_that_x_and_weight_do_not_share(backend, x):
    with pytest.raises(ValueError, match=r"spmm: weight must have shape \[E=90\].*got \[90, 2\]"):
        gnnkern.spmm(graph("bipartite"), x, WEIGHT_HEADS, backend=backend)


def test_rejects_an_unknown_backend():
    with pytest.raises(ValueError, match="backend"):
        gnnkern.spmm(graph("bipartite"), X, backend="abacus")


@pytest.mark.big
@pytest.mark.parametrize("reduce", ["sum", "max"])
def test_big(reduce):
    # 2^31 elements of output and more: the last rows lie beyond every 32-bit offset.
    num_dst, width = 2**20 + 3, 2**11
    edge_index = torch.tensor([[0, 1, 2, 1], [0, num_dst - 1, num_dst - 2, num_dst - 1]])
    g = gnnkern.Graph.from_edge_index(edge_index, num_nodes=(3, num_dst))
    x = normal(3, width).to(torch.bfloat16)
    out = gnnkern.spmm(g, x, reduce=reduce, backend="cpu")
    assert out.numel() > 2**31
    assert torch.equal(out[0], x[0])
    assert torch.equal(out[-1], x[1] * 2 if reduce == "sum" else x[1])
    assert torch.equal(out[-2], x[2])
    assert out[1:-2].count_nonzero() == 0
