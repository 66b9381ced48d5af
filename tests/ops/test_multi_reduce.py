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
    check_repeatable,
    check_second_derivative,
    check_value,
    leaves,
)
from helpers.graphs import GRAPHS, fresh_graph, graph
from helpers.rejects import Reject, bad_floats, bad_graphs, check_rejects, each_reject
from helpers.tolerance import HALVES

import gnnkern
from gnnkern.reference.multi_reduce import multi_reduce_reference

REDUCES = ("sum", "mean", "min", "max", "std", "var")
PNA = ("mean", "min", "max", "std")
# Every size, and every group of kernels: selections and moments, apart and together.
SUBSETS = (
    *((reduce,) for reduce in REDUCES),
    ("mean", "sum"),
    ("min", "max"),
    ("var", "std"),
    ("max", "sum"),
    ("std", "mean", "sum"),
    ("mean", "max", "min"),
    PNA,
    ("max", "var", "min", "std", "mean"),
    ("var", "std", "max", "sum", "min", "mean"),
)
# Those whose forward and gradient take different ways through the kernels.
WAYS = (
    ("std",),
    ("mean", "sum"),
    ("min", "max"),
    ("sum", "max"),
    ("var", "mean"),
    PNA,
    ("var", "std", "max", "sum", "min", "mean"),
)
HEADS = 3

multi_backends = each_backend("multi_reduce")
multi_kernels = each_kernel("multi_reduce")


def named(name, subsets):
    return pytest.mark.parametrize(name, subsets, ids="-".join)


each_subset = named("reduces", SUBSETS)
each_way = named("reduces", WAYS)


def multi_call(g, width, reduces=PNA, heads=None, dtype=torch.float32):
    x = normal(g.num_src, width) if heads is None else normal(g.num_src, heads, width)

    def op(x, *, backend):
        return gnnkern.multi_reduce(g, x, reduces=reduces, backend=backend)

    def reference(x):
        return multi_reduce_reference(g, x, reduces)

    return Call(op, reference, (x,)).to(dtype)


def moved(call, offset, spread=1.0):
    """The call with every value far from 0 in comparison with how far they are apart."""
    (x,) = call.tensors
    return Call(call.op, call.reference, (x * spread + offset,))


# Value


@multi_kernels
@each_subset
@pytest.mark.parametrize("width", [1, 33, 64])
def test_value_of_every_subset(backend, reduces, width):
    check_value(multi_call(graph("power_law"), width, reduces), backend)


@multi_kernels
@each_way
@each_width
def test_value_at_every_width(backend, reduces, width):
    check_value(multi_call(graph("power_law"), width, reduces), backend)


@multi_kernels
@each_way
@each_dtype
@pytest.mark.parametrize("width, heads", [(33, None), (129, None), (8, HEADS)])
def test_value_of_every_dtype(backend, reduces, dtype, width, heads):
    check_value(multi_call(graph("power_law"), width, reduces, heads, dtype), backend)


@multi_backends
@each_way
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("width, heads", [(1, None), (33, None), (5, HEADS)])
def test_value_on_every_graph(backend, reduces, name, width, heads):
    check_value(multi_call(graph(name), width, reduces, heads), backend)


@multi_kernels
@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("name", ["power_law", "long_rows", "star_in"])
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_value_of_one_reduction_among_all(backend, reduce, name, dtype):
    # One at a time: the largest of six would hide the error of the others.
    g = graph(name)
    call = multi_call(g, 20, REDUCES, dtype=dtype)
    at = REDUCES.index(reduce)
    check_value(
        Call(
            lambda x, backend: call.op(x, backend=backend)[:, at],
            lambda x: call.reference(x)[:, at],
            call.tensors,
        ),
        backend,
    )


@multi_kernels
@each_index_dtype
@pytest.mark.parametrize("name", ["no_edges", "power_law"])
def test_index_dtypes(backend, index_dtype, name):
    check_gradient(multi_call(graph(name, index_dtype), 8), backend)


@multi_kernels
@each_layout
@each_way
@pytest.mark.parametrize("width, heads", [(64, None), (5, HEADS)])
def test_layouts(backend, layout, reduces, width, heads):
    call = multi_call(graph("bipartite"), width, reduces, heads).laid_out(layout)
    check_gradient(call, backend, upstream_layout="transposed")


@multi_backends
def test_expanded_inputs(backend):
    call = multi_call(graph("power_law"), 33)
    (x,) = call.tensors
    check_value(Call(call.op, call.reference, (x[:1].expand_as(x),)), backend)


# Values worked out by hand: 0 -> 1 twice, 2 -> 1, 2 -> 0; node 2 has no in-edge.


def small_graph():
    edge_index = torch.tensor([[0, 2, 0, 2], [1, 1, 1, 0]])
    return gnnkern.Graph.from_edge_index(edge_index, num_nodes=3)


@multi_backends
def test_by_hand(backend):
    x = torch.tensor([[-2.0, 20.0], [5.0, 5.0], [-8.0, 80.0]])
    out = gnnkern.multi_reduce(small_graph(), x, reduces=REDUCES, backend=backend)
    assert out.shape == (3, 6, 2)
    expected = {
        "sum": [[-8.0, 80.0], [-12.0, 120.0], [0.0, 0.0]],
        "mean": [[-8.0, 80.0], [-4.0, 40.0], [0.0, 0.0]],
        "min": [[-8.0, 80.0], [-8.0, 20.0], [0.0, 0.0]],
        "max": [[-8.0, 80.0], [-2.0, 80.0], [0.0, 0.0]],
        "std": [[0.0, 0.0], [8.0**0.5, 800.0**0.5], [0.0, 0.0]],
        "var": [[0.0, 0.0], [8.0, 800.0], [0.0, 0.0]],
    }
    for place, reduce in enumerate(REDUCES):
        torch.testing.assert_close(out[:, place], torch.tensor(expected[reduce]), msg=reduce)


@multi_backends
def test_flattened_it_is_side_by_side(backend):
    g = graph("bipartite")
    x = normal(g.num_src, 4).float()
    out = gnnkern.multi_reduce(g, x, backend=backend).flatten(1)
    for place, reduce in enumerate(("mean", "min", "max")):
        expected = gnnkern.spmm(g, x, reduce=reduce, backend=backend)
        torch.testing.assert_close(out[:, 4 * place : 4 * place + 4], expected)


@multi_backends
def test_a_list_will_do(backend):
    g = graph("bipartite")
    x = normal(g.num_src, 4)
    out = gnnkern.multi_reduce(g, x, reduces=list(PNA), backend=backend)
    assert torch.equal(out, gnnkern.multi_reduce(g, x, reduces=PNA, backend=backend))


# Far from 0


@multi_kernels
@pytest.mark.parametrize("reduces", [("std",), ("var",), ("std", "mean")], ids="-".join)
@pytest.mark.parametrize("name", ["power_law", "long_rows", "star_in", "multi_edges"])
@pytest.mark.parametrize("offset, spread", [(1e4, 1.0), (-1e4, 1.0), (1.0, 1e-3)])
def test_an_offset_costs_no_digits(backend, reduces, name, offset, spread):
    call = moved(multi_call(graph(name), 20, reduces), offset, spread)
    check_value(call, backend)
    check_gradient(call, backend)
    # Plain torch's mean is rounded before it is subtracted: its rule alone would be too wide.
    exact = call.reference(call.tensors[0].double())[:, 0]
    actual = call.run(*call.tensors, backend=backend)[:, 0].double()
    assert (actual - exact).abs().max() < 2e-6 * exact.abs().max()


@multi_kernels
@pytest.mark.parametrize("name", ["power_law", "long_rows"])
def test_an_offset_costs_the_gradient_no_digits(backend, name):
    call = moved(multi_call(graph(name), 20, ("std",)), 1e4)
    (x,) = leaves(call.tensors)
    (exact_x,) = leaves((call.tensors[0].double(),))
    upstream = normal(graph(name).num_dst, 1, 20).float()
    (actual,) = torch.autograd.grad(call.run(x, backend=backend), x, upstream)
    (exact,) = torch.autograd.grad(call.reference(exact_x), exact_x, upstream.double())
    assert (actual.double() - exact).norm() < 2e-6 * exact.norm()


@multi_kernels
def test_a_first_message_far_from_the_others_costs_few_digits(backend):
    # The first of 5000 messages, whose distance the others are relative to, is an outlier.
    source = torch.arange(5000)
    edges = torch.stack([source, torch.zeros_like(source)])
    g = gnnkern.Graph.from_edge_index(edges, num_nodes=(5000, 1))
    x = normal(5000, 3).float()
    x[0] = 1000.0
    exact = multi_reduce_reference(g, x.double(), ("var",))
    actual = gnnkern.multi_reduce(g, x, reduces=("var",), backend=backend)
    torch.testing.assert_close(actual.double(), exact, rtol=2e-6, atol=0)


@multi_backends
@pytest.mark.parametrize("value", [0.0, 0.1, -12345.6])
def test_equal_messages_have_no_spread_and_no_gradient(backend, value):
    g = small_graph()
    x = torch.full((3, 4), value, requires_grad=True)
    out = gnnkern.multi_reduce(g, x, reduces=("std", "var"), backend=backend)
    out.sum().backward()
    assert out.abs().max() <= 1e-6 * abs(value)
    # Plain torch's mean of equal values may be another one: its spread is rounding.
    if backend != "reference":
        assert torch.equal(out, torch.zeros_like(out))
        assert torch.equal(x.grad, torch.zeros_like(x))


@multi_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_close_pairs(backend, dtype):
    # Rows of two messages at distances down to nothing: each std is half of the distance.
    num_dst = 500
    destination = torch.arange(num_dst).repeat_interleave(2)
    edges = torch.stack([torch.arange(2 * num_dst), destination])
    g = gnnkern.Graph.from_edge_index(edges, num_nodes=(2 * num_dst, num_dst))
    call = multi_call(g, 8, ("std",), dtype=dtype)
    (x,) = call.tensors
    distance = torch.logspace(-7, 0, num_dst)[:, None]
    x[1::2] = (x[::2] * (1 + distance)).to(dtype)
    check_gradient(call, backend)


# Gradient


@multi_kernels
@each_way
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("heads", [None, HEADS])
def test_gradient_on_every_graph(backend, reduces, name, heads):
    check_gradient(multi_call(graph(name), 5, reduces, heads).on_grid(), backend)
    check_gradient(multi_call(graph(name), 5, reduces, heads), backend)


@multi_kernels
@each_subset
def test_gradient_of_every_subset(backend, reduces):
    check_gradient(multi_call(graph("power_law"), 20, reduces).on_grid(), backend)


@multi_kernels
@each_way
@each_width
def test_gradient_at_every_width(backend, reduces, width):
    check_gradient(multi_call(graph("power_law"), width, reduces).on_grid(), backend)


@multi_kernels
@each_way
@each_dtype
@pytest.mark.parametrize("heads", [None, HEADS])
@pytest.mark.parametrize("name", ["power_law", "long_rows"])
def test_gradient_of_every_dtype(backend, reduces, dtype, heads, name):
    check_gradient(multi_call(graph(name), 8, reduces, heads, dtype).on_grid(), backend)


@multi_backends
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("reduces", [("sum", "mean"), ("mean", "std", "max")], ids="-".join)
def test_more_edges_than_a_half_can_count(backend, dtype, reduces):
    source = torch.arange(70_000)
    g = gnnkern.Graph.from_edge_index(
        torch.stack([source, torch.zeros_like(source)]), num_nodes=(70_000, 1)
    )
    check_gradient(multi_call(g, 1, reduces, dtype=dtype), backend)


@multi_backends
@each_way
def test_gradient_of_a_sum(backend, reduces):
    call = multi_call(graph("power_law"), 33, reduces).on_grid()
    check_gradient(call, backend, upstream_layout="expanded")


@multi_backends
@each_subset
@pytest.mark.parametrize("name", ["multi_edges", "isolated_ends"])
@pytest.mark.parametrize("heads", [None, HEADS])
def test_gradcheck(backend, reduces, name, heads):
    check_gradcheck(multi_call(graph(name), 2, reduces, heads), backend)


@multi_backends
@pytest.mark.parametrize("reduces", [("sum",), ("mean",), ("mean", "sum")], ids="-".join)
def test_second_derivative_of_sums_and_means(backend, reduces):
    check_second_derivative(multi_call(graph("multi_edges"), 2, reduces), backend)


@multi_backends
@pytest.mark.parametrize("reduces", [("std",), ("sum", "max"), ("var", "mean"), PNA], ids="-".join)
def test_no_second_derivative(backend, reduces):
    check_no_second_derivative(multi_call(graph("bipartite"), 2, reduces), backend)


# Ties, NaN and infinities


@multi_backends
@pytest.mark.parametrize("reduce", ["max", "min"])
@pytest.mark.parametrize("name", ["multi_edges", "power_law", "long_rows"])
def test_the_first_edge_wins_a_tie(backend, reduce, name):
    # All messages are equal: the whole gradient of a node goes to its first edge in caller's order.
    g = graph(name)
    x = torch.ones(g.num_src, 3, requires_grad=True)
    out = gnnkern.multi_reduce(g, x, reduces=("std", reduce), backend=backend)
    out[:, 1].sum().backward()
    source, destination = g.edge_index.tolist()
    first = {v: e for e, v in reversed(list(enumerate(destination)))}
    expected = torch.zeros(g.num_src, 3)
    for e in first.values():
        expected[source[e]] += 1
    assert torch.equal(x.grad, expected)


@multi_kernels
@each_way
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["bipartite", "long_rows"])
def test_nan_propagates(backend, reduces, dtype, name):
    call = multi_call(graph(name), 33, reduces, dtype=dtype)
    call.tensors[0][7, ::2] = float("nan")
    check_gradient(call, backend)
    assert call.run(*call.tensors, backend=backend).isnan().any()


@multi_backends
@each_way
@pytest.mark.parametrize("infinity", [float("inf"), -float("inf")])
def test_infinities_are_values_like_others(backend, reduces, infinity):
    call = multi_call(graph("bipartite"), 8, reduces)
    call.tensors[0][::2] = infinity
    check_value(call, backend)
    call.tensors[0][:] = infinity
    check_value(call, backend)


# Everything else


@multi_backends
@each_way
@pytest.mark.parametrize("name", ["power_law", "long_rows"])
@pytest.mark.parametrize("width", [1, 64])
def test_repeatable(backend, reduces, name, width):
    check_repeatable(multi_call(graph(name), width, reduces), backend)


@multi_backends
@pytest.mark.parametrize("make_graph", [graph, fresh_graph], ids=["prepared", "unprepared"])
@each_way
def test_compiles(backend, make_graph, reduces):
    check_compiled(multi_call(make_graph("bipartite"), 8, reduces), backend)


@multi_backends
@each_way
@pytest.mark.parametrize("heads", [None, HEADS])
def test_operators(backend, reduces, heads):
    check_operators(multi_call(graph("bipartite"), 4, reduces, heads), backend)


@multi_backends
@each_way
def test_autocast(backend, reduces):
    check_autocast(multi_call(graph("power_law"), 16, reduces), backend)


@multi_backends
def test_nothing_is_kept_for_the_gradient_where_none_is_asked(backend):
    g = graph("bipartite")
    x = normal(g.num_src, 4).float()
    assert not gnnkern.multi_reduce(g, x, backend=backend).requires_grad
    with torch.no_grad():
        assert not gnnkern.multi_reduce(g, *leaves((x,)), backend=backend).requires_grad


@multi_kernels
def test_the_same_result_with_and_without_a_gradient(backend):
    g = graph("power_law")
    x = normal(g.num_src, 33).float()
    with_gradient = gnnkern.multi_reduce(g, *leaves((x,)), backend=backend)
    assert torch.equal(with_gradient, gnnkern.multi_reduce(g, x, backend=backend))


X = torch.ones(13, 4)


@multi_backends
@each_reject(
    bad_graphs("g"),
    bad_floats("x", X, (12, 4), (29, 4), (13,), (), (13, 2, 2, 2)),
    [
        Reject("reduces", "string", "mean", TypeError),
        Reject("reduces", "None", None, TypeError),
        Reject("reduces", "set", {"mean"}, TypeError),
        Reject("reduces", "numbers", (0, 1), TypeError),
        Reject("reduces", "nested", (["mean"],), TypeError),
        Reject("reduces", "empty", (), ValueError),
        Reject("reduces", "unknown", ("mean", "median"), ValueError),
        Reject("reduces", "mul", ("mul",), ValueError),
        Reject("reduces", "case", ("Mean",), ValueError),
        Reject("reduces", "repeated", ("mean", "max", "mean"), ValueError),
    ],
)
def test_rejects(backend, reject):
    arguments = {"g": graph("bipartite"), "x": X, "reduces": PNA}
    check_rejects(gnnkern.multi_reduce, arguments, reject, backend)


def test_rejects_an_unknown_backend():
    with pytest.raises(ValueError, match="backend"):
        gnnkern.multi_reduce(graph("bipartite"), X, backend="abacus")


@pytest.mark.big
def test_big():
    # 2^31 elements of output and more: the last rows lie beyond every 32-bit offset.
    num_dst, width = 2**18 + 3, 2**11
    edge_index = torch.tensor([[0, 1, 2, 1], [0, num_dst - 1, num_dst - 2, num_dst - 1]])
    g = gnnkern.Graph.from_edge_index(edge_index, num_nodes=(3, num_dst))
    x = normal(3, width).to(torch.bfloat16)
    out = gnnkern.multi_reduce(g, x, backend="cpu")
    assert out.numel() > 2**31
    for row, source in [(0, 0), (-1, 1), (-2, 2)]:
        assert all(torch.equal(out[row, place], x[source]) for place in range(3))
    assert out[1:-2, :3].count_nonzero() == 0
    assert out[:, 3].count_nonzero() == 0
