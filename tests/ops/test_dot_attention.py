import pytest
import torch
from helpers.attention import dot_call
from helpers.cases import (
    Call,
    each_backend,
    each_dtype,
    each_index_dtype,
    each_kernel,
    each_layout,
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
    check_value,
    value_and_gradients,
)
from helpers.graphs import GRAPHS, fresh_graph, graph
from helpers.rejects import Reject, bad_floats, bad_graphs, check_rejects, each_reject
from helpers.tolerance import HALVES

import gnnkern

INF = float("inf")

dot_backends = each_backend("dot_attention")
dot_kernels = each_kernel("dot_attention")
each_edges = pytest.mark.parametrize("edges", ["", "edge_bias", "edge_bias, edge_x"])
with_and_without_edges = pytest.mark.parametrize("edges", ["", "edge_bias, edge_x"])
each_width = pytest.mark.parametrize(
    "heads, width",
    [
        (1, 0),
        (0, 3),
        (1, 1),
        (3, 3),
        (2, 4),
        (8, 4),
        (2, 8),
        (8, 8),
        (4, 16),
        (17, 2),
        (1, 31),
        (4, 32),
        (2, 33),
        (1, 64),
        (3, 100),
        (1, 500),
    ],
)


# Value and gradient


@dot_kernels
@each_width
@each_edges
def test_value_and_gradient_at_every_width(backend, heads, width, edges):
    check_gradient(dot_call(graph("power_law"), heads, width, edges), backend)


@dot_kernels
@each_dtype
@each_edges
@pytest.mark.parametrize("heads, width", [(8, 8), (8, 4), (4, 16), (3, 5), (1, 33)])
def test_value_and_gradient_of_every_dtype(backend, dtype, edges, heads, width):
    check_gradient(dot_call(graph("power_law"), heads, width, edges, dtype), backend)


@dot_backends
@pytest.mark.parametrize("name", GRAPHS)
@each_edges
@pytest.mark.parametrize("heads, width", [(1, 1), (3, 5), (8, 8), (1, 33)])
def test_value_and_gradient_on_every_graph(backend, name, edges, heads, width):
    check_gradient(dot_call(graph(name), heads, width, edges), backend)


@dot_kernels
@each_edges
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("heads, width", [(1, 16), (2, 8), (3, 5)])
def test_long_rows_of_halves_are_summed_in_float32(backend, edges, dtype, heads, width):
    check_gradient(dot_call(graph("long_rows"), heads, width, edges, dtype), backend)


@dot_backends
@each_index_dtype
@pytest.mark.parametrize("name", ["no_edges", "power_law", "long_rows"])
def test_index_dtypes(backend, index_dtype, name):
    check_gradient(dot_call(graph(name, index_dtype), edges="edge_bias, edge_x"), backend)


@dot_kernels
@each_layout
@pytest.mark.parametrize("heads, width", [(3, 5), (1, 32)])
def test_layouts(backend, layout, heads, width):
    call = dot_call(graph("bipartite"), heads, width, "edge_bias, edge_x").laid_out(layout)
    check_gradient(call, backend, upstream_layout="transposed")


@dot_backends
def test_expanded_inputs(backend):
    call = dot_call(graph("power_law"), edges="edge_bias, edge_x")
    expanded = tuple(tensor[:1].expand_as(tensor) for tensor in call.tensors)
    check_value(Call(call.op, call.reference, expanded), backend)


@dot_backends
def test_gradient_of_a_sum(backend):
    check_gradient(dot_call(graph("power_law")), backend, upstream_layout="expanded")


@dot_kernels
@pytest.mark.parametrize("scale", [None, 1, 0.0, -0.5, 3.0])
def test_scales(backend, scale):
    call = dot_call(graph("power_law"), edges="edge_bias, edge_x", scale=scale)
    check_gradient(call, backend)


@dot_backends
@each_edges
@pytest.mark.parametrize("name", ["self_loops", "isolated_ends"])
def test_gradcheck(backend, edges, name):
    check_gradcheck(dot_call(graph(name), 2, 2, edges), backend)


@dot_backends
def test_gradient_of_one_input_alone(backend):
    check_part_of_gradients(dot_call(graph("bipartite"), edges="edge_bias, edge_x"), backend)


@dot_backends
@each_edges
def test_no_second_derivative(backend, edges):
    check_no_second_derivative(dot_call(graph("bipartite"), edges=edges), backend)


# What attention is


@dot_backends
def test_by_hand(backend):
    # Node 0 has edges from 0 (score log 2), 1 (log 1) and 1 again (log 5); node 1 has none.
    edge_index = torch.tensor([[0, 1, 1], [0, 0, 0]])
    g = gnnkern.Graph.from_edge_index(edge_index, num_nodes=2)
    query, key = torch.full((2, 1, 4), 2.0), torch.zeros(2, 1, 4)
    value = torch.tensor([8.0, 80.0])[:, None, None].expand(2, 1, 4)
    # <query, edge_x> / sqrt(4) = 4 * edge_x, and edge_x is added to the values too.
    edge_x = torch.tensor([2.0, 1.0, 1.0]).log()[:, None, None].expand(3, 1, 4) / 4
    edge_bias = torch.tensor([[1.0], [1.0], [5.0]]).log()
    out = gnnkern.dot_attention(
        g, query, key, value, edge_bias=edge_bias, edge_x=edge_x, backend=backend
    )
    expected = torch.tensor([62.0 + 0.25 * torch.tensor(2.0).log().item() / 4, 0.0])
    torch.testing.assert_close(out, expected[:, None, None].expand(2, 1, 4))


@dot_backends
def test_it_is_softmax_of_dots_then_weighted_sum(backend):
    g = graph("power_law")
    query, key, value, edge_bias = dot_call(g, edges="edge_bias").tensors
    score = 0.3 * gnnkern.sddmm(g, query, key, op="dot", backend=backend) + edge_bias
    expected = gnnkern.spmm(g, value, gnnkern.edge_softmax(g, score), backend=backend)
    out = gnnkern.dot_attention(
        g, query, key, value, edge_bias=edge_bias, scale=0.3, backend=backend
    )
    torch.testing.assert_close(out, expected)


@dot_backends
def test_it_is_that_of_torch_where_every_node_sees_every_node(backend):
    g = graph("dense_small")
    query, key, value, edge_bias = dot_call(g, 4, 16, "edge_bias").tensors
    # Edge e = (u, v) is number 12 v + u.
    bias = edge_bias.view(12, 12, 4).permute(2, 0, 1)  # [H, num_dst, num_src]
    expected = torch.nn.functional.scaled_dot_product_attention(
        query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1), attn_mask=bias
    ).transpose(0, 1)
    out = gnnkern.dot_attention(g, query, key, value, edge_bias=edge_bias, backend=backend)
    torch.testing.assert_close(out, expected)


@dot_backends
@pytest.mark.parametrize("width", [5, 8, 16])
def test_heads_are_independent(backend, width):
    # Heads of very different size, in value and gradient: a head mixed up shows.
    g, heads = graph("power_law"), 4
    size = torch.tensor([1.0, 1e3, 1e6, 1e2])
    query, key, value, edge_bias, edge_x = dot_call(g, heads, width, "edge_bias, edge_x").tensors
    tensors = (query / size[:, None], *(t * size[:, None] for t in (key, value)), edge_bias)

    def run(query, key, value, edge_bias):
        return gnnkern.dot_attention(g, query, key, value, edge_bias=edge_bias, backend=backend)

    upstream = normal(g.num_dst, heads, width).float()
    together = value_and_gradients(run, tensors, upstream)
    for head in range(heads):
        one = slice(head, head + 1)
        alone = value_and_gradients(run, tuple(t[:, one] for t in tensors), upstream[:, one])
        for result, expected in zip(together, alone, strict=True):
            largest = float(expected.abs().max())
            torch.testing.assert_close(result[:, one], expected, rtol=0, atol=2e-6 * largest)


@dot_backends
@pytest.mark.parametrize("shift", [-1e4, 1e4])
@pytest.mark.parametrize("name", ["power_law", "long_rows"])
def test_large_scores_do_not_overflow(backend, name, shift):
    g = graph(name)
    query, key, value, edge_bias = dot_call(g, edges="edge_bias").on_grid().tensors
    edge_bias = edge_bias + shift

    def run(*tensors):
        query, key, value, edge_bias = tensors
        return gnnkern.dot_attention(
            g, query, key, value, edge_bias=edge_bias, scale=0.5, backend=backend
        )

    out = run(query, key, value, edge_bias)
    expected = run(query.double(), key.double(), value.double(), edge_bias.double())
    # Scores near 1e4 have four digits behind the point.
    torch.testing.assert_close(out.double(), expected, rtol=2e-3, atol=2e-3)


@dot_backends
@each_dtype
@pytest.mark.parametrize("name", ["multi_edges", "star_in", "long_rows"])
def test_a_row_of_minus_infinity_gives_zero(backend, dtype, name):
    # Head 0 is masked throughout, head 1 here and there, head 2 nowhere.
    call = dot_call(graph(name), edges="edge_bias, edge_x", dtype=dtype)
    edge_bias = call.tensors[3]
    edge_bias[:, 0] = -INF
    edge_bias[::2, 1] = -INF
    check_gradient(call, backend)
    out, *gradients = value_and_gradients(
        lambda *tensors: call.run(*tensors, backend=backend), call.tensors
    )
    assert (out[:, 0] == 0).all()
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert all((gradient[:, 0] == 0).all() for gradient in gradients)


@dot_backends
def test_one_masked_part_of_a_long_row(backend):
    # The second of the two items that node 0 spans has no finite score at all.
    edge_index = torch.stack([torch.arange(3000) % 7, torch.zeros(3000, dtype=torch.int64)])
    g = gnnkern.Graph.from_edge_index(edge_index, num_nodes=(7, 2))
    call = dot_call(g, edges="edge_bias")
    call.tensors[3][2048:] = -INF
    check_gradient(call, backend)


@dot_backends
@each_dtype
@pytest.mark.parametrize("heads, width", [(3, 5), (4, 8), (3, 16)])
@pytest.mark.parametrize("which", range(5), ids=["query", "key", "value", "edge_bias", "edge_x"])
def test_nan_spoils_its_nodes_and_head_only(backend, dtype, which, heads, width):
    call = dot_call(graph("power_law"), heads, width, "edge_bias, edge_x", dtype)
    call.tensors[which][3, 1] = float("nan")
    check_value(call, backend)
    out = call.run(*call.tensors, backend=backend)
    assert out[:, 1].isnan().any()
    assert not out[:, ::2].isnan().any()


# Everything else


@dot_backends
@pytest.mark.parametrize("name", ["power_law", "long_rows"])
@pytest.mark.parametrize("heads, width", [(3, 5), (8, 8), (1, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_repeatable(backend, name, heads, width, dtype):
    check_repeatable(dot_call(graph(name), heads, width, "edge_bias, edge_x", dtype), backend)


@dot_backends
@pytest.mark.parametrize("make_graph", [graph, fresh_graph], ids=["prepared", "unprepared"])
@with_and_without_edges
def test_compiles(backend, make_graph, edges):
    check_compiled(dot_call(make_graph("bipartite"), edges=edges), backend)


@dot_backends
@each_edges
def test_operators(backend, edges):
    check_operators(dot_call(graph("bipartite"), edges=edges), backend)


@dot_backends
@with_and_without_edges
def test_autocast(backend, edges):
    check_autocast(dot_call(graph("power_law"), edges=edges), backend)


QUERY, KEY, VALUE = torch.ones(29, 2, 4), torch.ones(13, 2, 4), torch.ones(13, 2, 4)
EDGE_BIAS, EDGE_X = torch.ones(90, 2), torch.ones(90, 2, 4)
BAD_ROWS = [(12, 2, 4), (29, 2, 4), (13, 8), (13, 2, 2, 2), (13, 1, 4), (13, 2, 3), ()]


@dot_backends
@each_reject(
    bad_graphs("g"),
    bad_floats("query", QUERY, (28, 2, 4), (13, 2, 4), (29, 8), (29, 2, 2, 2), ()),
    bad_floats("key", KEY, *BAD_ROWS, beside_others=True),
    bad_floats("value", VALUE, *BAD_ROWS, beside_others=True),
    bad_floats(
        "edge_bias",
        EDGE_BIAS,
        *[(89, 2), (90,), (90, 1), (90, 3), (90, 2, 1)],
        beside_others=True,
        optional=True,
    ),
    bad_floats(
        "edge_x",
        EDGE_X,
        *[(89, 2, 4), (90, 8), (90, 1, 4), (90, 2, 1), (90, 2, 2, 2)],
        beside_others=True,
        optional=True,
    ),
    [
        Reject("scale", "string", "0.2", TypeError),
        Reject("scale", "bool", True, TypeError),
        Reject("dropout", "string", "0.5", TypeError),
        Reject("dropout", "None", None, TypeError),
        Reject("dropout", "negative", -0.1, ValueError),
        Reject("dropout", "above_one", 1.1, ValueError),
        Reject("dropout", "nan", float("nan"), ValueError),
    ],
)
def test_rejects(backend, reject):
    arguments = {
        "g": graph("bipartite"),
        "query": QUERY,
        "key": KEY,
        "value": VALUE,
        "edge_bias": EDGE_BIAS,
        "edge_x": EDGE_X,
        "scale": 0.2,
        "dropout": 0.0,
    }
    check_rejects(gnnkern.dot_attention, arguments, reject, backend)


@pytest.mark.big
def test_big():
    # 2^31 elements of output and more: the last rows lie beyond every 32-bit offset.
    num_dst, heads, width = 2**20 + 3, 8, 2**8
    edge_index = torch.tensor([[0, 1, 2, 1], [0, num_dst - 1, num_dst - 2, num_dst - 1]])
    g = gnnkern.Graph.from_edge_index(edge_index, num_nodes=(3, num_dst))
    value = normal(3, heads, width).to(torch.bfloat16)
    query = torch.zeros(num_dst, heads, width, dtype=torch.bfloat16)
    out = gnnkern.dot_attention(g, query, value, value, backend="cpu")
    assert out.numel() > 2**31
    assert torch.equal(out[[0, -2, -1]], value[[0, 2, 1]])
    assert out[1:-2].count_nonzero() == 0
