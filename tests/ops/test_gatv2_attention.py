import pytest
import torch
from helpers.attention import gatv2_call
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

gatv2_backends = each_backend("gatv2_attention")
gatv2_kernels = each_kernel("gatv2_attention")
each_edge_x = pytest.mark.parametrize("edge_x", [False, True], ids=["", "edge_x"])
each_width = pytest.mark.parametrize(
    "heads, width",
    [
        (1, 0),
        (0, 3),
        (1, 1),
        (32, 1),
        (3, 3),
        (8, 8),
        (16, 2),
        (3, 8),
        (8, 16),
        (1, 31),
        (4, 32),
        (2, 33),
        (1, 64),
        (3, 100),
        (1, 500),
    ],
)


# Value and gradient


@gatv2_kernels
@each_width
@each_edge_x
def test_value_and_gradient_at_every_width(backend, heads, width, edge_x):
    check_gradient(gatv2_call(graph("power_law"), heads, width, edge_x), backend)


@gatv2_kernels
@each_dtype
@each_edge_x
@pytest.mark.parametrize("heads, width", [(8, 8), (3, 5), (2, 64), (1, 33)])
def test_value_and_gradient_of_every_dtype(backend, dtype, edge_x, heads, width):
    check_gradient(gatv2_call(graph("power_law"), heads, width, edge_x, dtype), backend)


@gatv2_backends
@pytest.mark.parametrize("name", GRAPHS)
@each_edge_x
@pytest.mark.parametrize("heads, width", [(1, 1), (3, 5), (2, 16), (1, 33)])
def test_value_and_gradient_on_every_graph(backend, name, edge_x, heads, width):
    check_gradient(gatv2_call(graph(name), heads, width, edge_x), backend)


@gatv2_kernels
@each_edge_x
@pytest.mark.parametrize("dtype", HALVES)
def test_long_rows_of_halves_are_summed_in_float32(backend, edge_x, dtype):
    check_gradient(gatv2_call(graph("long_rows"), 2, 8, edge_x, dtype), backend)


@gatv2_backends
@each_index_dtype
@pytest.mark.parametrize("name", ["no_edges", "power_law"])
def test_index_dtypes(backend, index_dtype, name):
    check_gradient(gatv2_call(graph(name, index_dtype), edge_x=True), backend)


@gatv2_kernels
@each_layout
@pytest.mark.parametrize("heads, width", [(3, 5), (1, 32)])
def test_layouts(backend, layout, heads, width):
    call = gatv2_call(graph("bipartite"), heads, width, edge_x=True).laid_out(layout)
    check_gradient(call, backend, upstream_layout="transposed")


@gatv2_backends
def test_expanded_inputs(backend):
    call = gatv2_call(graph("power_law"), edge_x=True)
    expanded = tuple(tensor[:1].expand_as(tensor) for tensor in call.tensors)
    check_value(Call(call.op, call.reference, expanded), backend)


@gatv2_backends
def test_gradient_of_a_sum(backend):
    check_gradient(gatv2_call(graph("power_law")), backend, upstream_layout="expanded")


@gatv2_kernels
@pytest.mark.parametrize("slope", [0.0, 0.01, 1.0, 1.5, -0.5])
def test_slopes(backend, slope):
    check_gradient(gatv2_call(graph("power_law"), slope=slope, edge_x=True), backend)


@gatv2_backends
@each_edge_x
@pytest.mark.parametrize("name", ["self_loops", "isolated_ends"])
def test_gradcheck(backend, edge_x, name):
    check_gradcheck(gatv2_call(graph(name), 2, 2, edge_x), backend)


@gatv2_backends
def test_gradient_of_one_input_alone(backend):
    check_part_of_gradients(gatv2_call(graph("bipartite"), edge_x=True), backend)


@gatv2_backends
@each_edge_x
def test_no_second_derivative(backend, edge_x):
    check_no_second_derivative(gatv2_call(graph("bipartite"), edge_x=edge_x), backend)


# What attention is


@gatv2_backends
def test_by_hand(backend):
    # Into node 0: from 0 (8 + 1 - 9: score 0), from 1 twice (-1 + 1 - 2: half of -2 times 3 is
    # -3; and -1 + 1 + 2: 2 times 3 is 6). Node 1 has no edge.
    edge_index = torch.tensor([[0, 1, 1], [0, 0, 0]])
    g = gnnkern.Graph.from_edge_index(edge_index, num_nodes=2)
    x_src, x_dst = torch.tensor([8.0, -1.0]), torch.tensor([1.0, 5.0])
    edge_x = torch.tensor([-9.0, -2.0, 2.0])
    out = gnnkern.gatv2_attention(
        g,
        x_src.view(2, 1, 1),
        x_dst.view(2, 1, 1),
        torch.full((1, 1), 3.0),
        edge_x=edge_x.view(3, 1, 1),
        negative_slope=0.5,
        backend=backend,
    )
    alpha = torch.tensor([0.0, -3.0, 6.0]).softmax(0)
    expected = (alpha * torch.tensor([8.0, -1.0, -1.0])).sum()
    torch.testing.assert_close(out.flatten(), torch.tensor([expected, 0.0]))


@gatv2_backends
def test_the_ranking_of_sources_depends_on_the_destination(backend):
    # What tells GATv2 from GAT: with att = (1, -1), each of two destinations prefers another of
    # the same two sources.
    edge_index = torch.tensor([[0, 1, 0, 1], [0, 0, 1, 1]])
    g = gnnkern.Graph.from_edge_index(edge_index, num_nodes=2)
    x_src = torch.tensor([[[4.0, 0.0]], [[0.0, 4.0]]])
    x_dst = torch.tensor([[[0.0, -9.0]], [[-9.0, 0.0]]])
    att = torch.tensor([[1.0, 1.0]])
    out = gnnkern.gatv2_attention(g, x_src, x_dst, att, negative_slope=0.0, backend=backend)
    assert out[0, 0, 0] > out[0, 0, 1]
    assert out[1, 0, 1] > out[1, 0, 0]


@gatv2_backends
@each_edge_x
def test_it_is_softmax_then_weighted_sum(backend, edge_x):
    g = graph("power_law")
    x_src, x_dst, att, *rest = gatv2_call(g, edge_x=edge_x).tensors
    pre = x_src[g.edge_index[0]] + x_dst[g.edge_index[1]] + sum(rest)
    score = (torch.nn.functional.leaky_relu(pre, 0.2) * att).sum(-1)
    alpha = gnnkern.edge_softmax(g, score, backend=backend)
    expected = gnnkern.spmm(g, x_src, alpha, backend=backend)
    out = gnnkern.gatv2_attention(
        g, x_src, x_dst, att, edge_x=rest[0] if rest else None, backend=backend
    )
    torch.testing.assert_close(out, expected)


@gatv2_backends
@pytest.mark.parametrize("width", [5, 16])
def test_heads_are_independent(backend, width):
    # Heads of very different gradients: a head mixed up shows.
    g = graph("power_law")
    tensors = gatv2_call(g, 3, width, edge_x=True).tensors

    def run(x_src, x_dst, att, edge_x):
        return gnnkern.gatv2_attention(g, x_src, x_dst, att, edge_x=edge_x, backend=backend)

    upstream = normal(g.num_dst, 3, width).float() * torch.tensor([1.0, 1e3, 1e6])[:, None]
    together = value_and_gradients(run, tensors, upstream)
    for head in range(3):
        one = slice(head, head + 1)
        own = tuple(tensor[..., one, :] for tensor in tensors)
        alone = value_and_gradients(run, own, upstream[:, one])
        for result, expected in zip(together, alone, strict=True):
            scale = float(expected.abs().max())
            torch.testing.assert_close(result[..., one, :], expected, rtol=0, atol=2e-6 * scale)


@gatv2_backends
@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_large_scores_do_not_overflow(backend, shift):
    g = graph("power_law")
    x_src, x_dst, att = gatv2_call(g).on_grid().tensors
    att = att.abs()
    options = {"negative_slope": 1.0, "backend": backend}
    out = gnnkern.gatv2_attention(g, x_src, x_dst + shift, att, **options)
    expected = gnnkern.gatv2_attention(
        g, x_src.double(), (x_dst + shift).double(), att.double(), **options
    )
    # Scores of 1e4 have an absolute error of 1e-3 in float32, and so have the logarithms of alpha.
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=2e-2)


@gatv2_backends
@each_dtype
@pytest.mark.parametrize("name", ["multi_edges", "star_in", "long_rows"])
@pytest.mark.parametrize("width", [5, 16])
def test_a_row_of_minus_infinity_gives_zero(backend, dtype, name, width):
    # Head 0 is masked throughout, head 1 here and there, head 2 nowhere. The gradient of att is the
    # activation times 0 where a score is masked, that is, NaN in the reference too.
    call = gatv2_call(graph(name), 3, width, edge_x=True, dtype=dtype)
    att, edge_x = call.tensors[2:]
    att.abs_()
    edge_x[:, 0] = -INF
    edge_x[::2, 1] = -INF
    check_gradient(call, backend)
    out, grad_src, grad_dst, _, grad_edge = value_and_gradients(
        lambda *tensors: call.run(*tensors, backend=backend), call.tensors
    )
    assert (out[:, 0] == 0).all()
    for gradient in (grad_src, grad_dst, grad_edge):
        assert gradient.isfinite().all()
        assert (gradient[:, 0] == 0).all()


@gatv2_backends
@each_dtype
@pytest.mark.parametrize("which", [0, 1, 3], ids=["x_src", "x_dst", "edge_x"])
@pytest.mark.parametrize("width", [5, 16])
def test_nan_spoils_its_nodes_and_head_only(backend, dtype, which, width):
    call = gatv2_call(graph("power_law"), 3, width, edge_x=True, dtype=dtype)
    call.tensors[which][3, 1, 2] = float("nan")
    check_value(call, backend)
    out = call.run(*call.tensors, backend=backend)
    assert out[:, 1].isnan().any()
    assert not out[:, 1].isnan().all()
    assert not out[:, ::2].isnan().any()


# Everything else


@gatv2_backends
@pytest.mark.parametrize("name", ["power_law", "long_rows"])
@pytest.mark.parametrize("heads, width", [(3, 5), (1, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_repeatable(backend, name, heads, width, dtype):
    check_repeatable(gatv2_call(graph(name), heads, width, True, dtype), backend)


@gatv2_backends
@pytest.mark.parametrize("make_graph", [graph, fresh_graph], ids=["prepared", "unprepared"])
@each_edge_x
def test_compiles(backend, make_graph, edge_x):
    check_compiled(gatv2_call(make_graph("bipartite"), edge_x=edge_x), backend)


@gatv2_backends
@each_edge_x
def test_operators(backend, edge_x):
    check_operators(gatv2_call(graph("bipartite"), edge_x=edge_x), backend)


@gatv2_backends
@each_edge_x
def test_autocast(backend, edge_x):
    check_autocast(gatv2_call(graph("power_law"), edge_x=edge_x), backend)


X_SRC, X_DST = torch.ones(13, 2, 4), torch.ones(29, 2, 4)
ATT, EDGE_X = torch.ones(2, 4), torch.ones(90, 2, 4)


@gatv2_backends
@each_reject(
    bad_graphs("g"),
    bad_floats("x_src", X_SRC, (12, 2, 4), (29, 2, 4), (13, 8), (13, 2, 2, 2), ()),
    bad_floats("x_dst", X_DST, (28, 2, 4), (13, 2, 4), (29, 8), (29, 2, 5), beside_others=True),
    bad_floats("att", ATT, (1, 2, 4), (8,), (2, 5), (3, 4), (), beside_others=True),
    bad_floats(
        "edge_x",
        EDGE_X,
        (89, 2, 4),
        (90, 8),
        (90, 1, 4),
        (90, 2, 3),
        beside_others=True,
        optional=True,
    ),
    [
        Reject("negative_slope", "string", "0.2", TypeError),
        Reject("negative_slope", "None", None, TypeError),
        Reject("dropout", "string", "0.5", TypeError),
        Reject("dropout", "None", None, TypeError),
        Reject("dropout", "negative", -0.1, ValueError),
        Reject("dropout", "one", 1.0, ValueError),
        Reject("dropout", "nan", float("nan"), ValueError),
    ],
)
def test_rejects(backend, reject):
    arguments = {
        "g": graph("bipartite"),
        "x_src": X_SRC,
        "x_dst": X_DST,
        "att": ATT,
        "edge_x": EDGE_X,
        "negative_slope": 0.2,
        "dropout": 0.0,
    }
    check_rejects(gnnkern.gatv2_attention, arguments, reject, backend)


@pytest.mark.big
def test_big():
    # 2^31 elements of output and more: the last rows lie beyond every 32-bit offset.
    num_dst, heads, width = 2**20 + 3, 8, 2**8
    edge_index = torch.tensor([[0, 1, 2, 1], [0, num_dst - 1, num_dst - 2, num_dst - 1]])
    g = gnnkern.Graph.from_edge_index(edge_index, num_nodes=(3, num_dst))
    x_src = normal(3, heads, width).to(torch.bfloat16)
    x_dst = torch.zeros(1, heads, width, dtype=torch.bfloat16).expand(num_dst, -1, -1)
    att = torch.zeros(heads, width, dtype=torch.bfloat16)
    out = gnnkern.gatv2_attention(g, x_src, x_dst, att, backend="cpu")
    assert out.numel() > 2**31
    assert torch.equal(out[[0, -2, -1]], x_src[[0, 2, 1]])
    assert out[1:-2].count_nonzero() == 0
