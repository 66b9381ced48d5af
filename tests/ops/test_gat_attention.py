import pytest
import torch
from helpers.attention import gat_call
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

gat_backends = each_backend("gat_attention")
gat_kernels = each_kernel("gat_attention")
each_edge_score = pytest.mark.parametrize("edge_score", [False, True], ids=["", "edge_score"])
each_width = pytest.mark.parametrize(
    "heads, width",
    [
        (1, 0),
        (0, 3),
        (1, 1),
        (3, 3),
        (8, 8),
        (1, 31),
        (4, 32),
        (2, 33),
        (1, 64),
        (3, 100),
        (1, 500),
    ],
)


# Value and gradient


@gat_kernels
@each_width
@each_edge_score
def test_value_and_gradient_at_every_width(backend, heads, width, edge_score):
    check_gradient(gat_call(graph("power_law"), heads, width, edge_score), backend)


@gat_kernels
@each_dtype
@each_edge_score
@pytest.mark.parametrize("heads, width", [(8, 8), (3, 5), (1, 33)])
def test_value_and_gradient_of_every_dtype(backend, dtype, edge_score, heads, width):
    check_gradient(gat_call(graph("power_law"), heads, width, edge_score, dtype), backend)


@gat_backends
@pytest.mark.parametrize("name", GRAPHS)
@each_edge_score
@pytest.mark.parametrize("heads, width", [(1, 1), (3, 5), (1, 33)])
def test_value_and_gradient_on_every_graph(backend, name, edge_score, heads, width):
    check_gradient(gat_call(graph(name), heads, width, edge_score), backend)


@gat_kernels
@each_edge_score
@pytest.mark.parametrize("dtype", HALVES)
def test_long_rows_of_halves_are_summed_in_float32(backend, edge_score, dtype):
    check_gradient(gat_call(graph("long_rows"), 2, 8, edge_score, dtype), backend)


@gat_backends
@each_index_dtype
@pytest.mark.parametrize("name", ["no_edges", "power_law"])
def test_index_dtypes(backend, index_dtype, name):
    check_gradient(gat_call(graph(name, index_dtype), edge_score=True), backend)


@gat_kernels
@each_layout
@pytest.mark.parametrize("heads, width", [(3, 5), (1, 32)])
def test_layouts(backend, layout, heads, width):
    call = gat_call(graph("bipartite"), heads, width, edge_score=True).laid_out(layout)
    check_gradient(call, backend, upstream_layout="transposed")


@gat_backends
def test_expanded_inputs(backend):
    call = gat_call(graph("power_law"), edge_score=True)
    expanded = tuple(tensor[:1].expand_as(tensor) for tensor in call.tensors)
    check_value(Call(call.op, call.reference, expanded), backend)


@gat_backends
def test_gradient_of_a_sum(backend):
    check_gradient(gat_call(graph("power_law")), backend, upstream_layout="expanded")


@gat_kernels
@pytest.mark.parametrize("slope", [0.0, 0.01, 1.0, 1.5, -0.5])
def test_slopes(backend, slope):
    check_gradient(gat_call(graph("power_law"), slope=slope, edge_score=True), backend)


@gat_backends
@each_edge_score
@pytest.mark.parametrize("name", ["self_loops", "isolated_ends"])
def test_gradcheck(backend, edge_score, name):
    check_gradcheck(gat_call(graph(name), 2, 2, edge_score), backend)


@gat_backends
def test_gradient_of_one_input_alone(backend):
    check_part_of_gradients(gat_call(graph("bipartite"), edge_score=True), backend)


@gat_backends
@each_edge_score
def test_no_second_derivative(backend, edge_score):
    check_no_second_derivative(gat_call(graph("bipartite"), edge_score=edge_score), backend)


# What attention is


@gat_backends
def test_by_hand(backend):
    # Node 0 has edges from 0 (score log 2), 1 (log 1) and 1 again (log 5); node 1 has none.
    edge_index = torch.tensor([[0, 1, 1], [0, 0, 0]])
    g = gnnkern.Graph.from_edge_index(edge_index, num_nodes=2)
    x = torch.tensor([[[8.0]], [[80.0]]])
    edge_score = torch.tensor([[2.0], [1.0], [5.0]]).log()
    zeros = torch.zeros(2, 1)
    out = gnnkern.gat_attention(g, x, zeros, zeros, edge_score=edge_score, backend=backend)
    torch.testing.assert_close(out.flatten(), torch.tensor([62.0, 0.0]))


@gat_backends
def test_the_slope_is_that_of_the_sum_of_scores(backend):
    # Scores 1 - 3 = -2 and 4 - 3 = 1: only the sum of the first is below 0.
    g = gnnkern.Graph.from_edge_index(torch.tensor([[0, 1], [0, 0]]), num_nodes=(2, 1))
    x = torch.tensor([[[1.0]], [[0.0]]])
    score_src, score_dst = torch.tensor([[1.0], [4.0]]), torch.tensor([[-3.0]])
    out = gnnkern.gat_attention(
        g, x, score_src, score_dst, negative_slope=0.5, backend=backend
    ).item()
    assert out == pytest.approx(torch.tensor([-1.0, 1.0]).softmax(0)[0].item())


@gat_backends
@each_edge_score
def test_it_is_softmax_then_weighted_sum(backend, edge_score):
    g = graph("power_law")
    x, score_src, score_dst, *rest = gat_call(g, edge_score=edge_score).tensors
    score = score_src[g.edge_index[0]] + score_dst[g.edge_index[1]] + sum(rest)
    alpha = gnnkern.edge_softmax(g, torch.nn.functional.leaky_relu(score, 0.2), backend=backend)
    expected = gnnkern.spmm(g, x, alpha, backend=backend)
    out = gnnkern.gat_attention(
        g, x, score_src, score_dst, edge_score=rest[0] if rest else None, backend=backend
    )
    torch.testing.assert_close(out, expected)


@gat_backends
def test_heads_are_independent(backend):
    # Heads of very different size, in value and gradient: a head mixed up shows.
    g = graph("power_law")
    size = torch.tensor([1.0, 1e3, 1e6])
    x, *scores = gat_call(g, edge_score=True).tensors
    x = x * size[:, None]

    def run(x, score_src, score_dst, edge_score):
        return gnnkern.gat_attention(
            g, x, score_src, score_dst, edge_score=edge_score, backend=backend
        )

    upstream = normal(g.num_dst, 3, 5).float()
    together = value_and_gradients(run, (x, *scores), upstream)
    for head in range(3):
        one = slice(head, head + 1)
        tensors = (x[:, one], *(score[:, one] for score in scores))
        alone = value_and_gradients(run, tensors, upstream[:, one])
        for result, expected in zip(together, alone, strict=True):
            scale = float(expected.abs().max())
            torch.testing.assert_close(result[:, one], expected, rtol=0, atol=2e-6 * scale)


@gat_backends
@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_large_scores_do_not_overflow(backend, shift):
    g = graph("power_law")
    x, score_src, score_dst = gat_call(g).on_grid().tensors
    out = gnnkern.gat_attention(
        g, x, score_src, score_dst + shift, negative_slope=1.0, backend=backend
    )
    expected = gnnkern.gat_attention(
        g, x.double(), score_src.double(), score_dst.double(), negative_slope=1.0, backend=backend
    )
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-6)


@gat_backends
@each_dtype
@pytest.mark.parametrize("name", ["multi_edges", "star_in", "long_rows"])
def test_a_row_of_minus_infinity_gives_zero(backend, dtype, name):
    # Head 0 is masked throughout, head 1 here and there, head 2 nowhere.
    call = gat_call(graph(name), edge_score=True, dtype=dtype)
    edge_score = call.tensors[3]
    edge_score[:, 0] = -INF
    edge_score[::2, 1] = -INF
    check_gradient(call, backend)
    out, *gradients = value_and_gradients(
        lambda *tensors: call.run(*tensors, backend=backend), call.tensors
    )
    assert (out[:, 0] == 0).all()
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert all((gradient[:, 0] == 0).all() for gradient in gradients)


@gat_backends
@each_dtype
@pytest.mark.parametrize("which", [0, 1, 2, 3], ids=["x", "score_src", "score_dst", "edge_score"])
def test_nan_spoils_its_nodes_and_head_only(backend, dtype, which):
    call = gat_call(graph("power_law"), edge_score=True, dtype=dtype)
    call.tensors[which][3, 1] = float("nan")
    check_value(call, backend)
    out = call.run(*call.tensors, backend=backend)
    assert out[:, 1].isnan().any()
    assert not out[:, ::2].isnan().any()


# Everything else


@gat_backends
@pytest.mark.parametrize("name", ["power_law", "long_rows"])
@pytest.mark.parametrize("heads, width", [(3, 5), (1, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_repeatable(backend, name, heads, width, dtype):
    check_repeatable(gat_call(graph(name), heads, width, True, dtype), backend)


@gat_backends
@pytest.mark.parametrize("make_graph", [graph, fresh_graph], ids=["prepared", "unprepared"])
@each_edge_score
def test_compiles(backend, make_graph, edge_score):
    check_compiled(gat_call(make_graph("bipartite"), edge_score=edge_score), backend)


@gat_backends
@each_edge_score
def test_operators(backend, edge_score):
    check_operators(gat_call(graph("bipartite"), edge_score=edge_score), backend)


@gat_backends
@each_edge_score
def test_autocast(backend, edge_score):
    check_autocast(gat_call(graph("power_law"), edge_score=edge_score), backend)


X, SCORE_SRC, SCORE_DST = torch.ones(13, 2, 4), torch.ones(13, 2), torch.ones(29, 2)
EDGE_SCORE = torch.ones(90, 2)


@gat_backends
@each_reject(
    bad_graphs("g"),
    bad_floats("x", X, (12, 2, 4), (29, 2, 4), (13, 8), (13, 2, 2, 2), (), beside_others=True),
    bad_floats("score_src", SCORE_SRC, (12, 2), (29, 2), (13,), (13, 2, 1), beside_others=True),
    bad_floats("score_src", SCORE_SRC, (13, 1), (13, 3), ())[8:-1],
    bad_floats("score_dst", SCORE_DST, (28, 2), (13, 2), (29,), (29, 2, 1), beside_others=True),
    bad_floats("score_dst", SCORE_DST, (29, 1), (29, 3), ())[8:-1],
    bad_floats(
        "edge_score",
        EDGE_SCORE,
        (89, 2),
        (90,),
        (90, 1),
        (90, 3),
        beside_others=True,
        optional=True,
    ),
    [
        Reject("negative_slope", "string", "0.2", TypeError),
        Reject("negative_slope", "None", None, TypeError),
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
        "x": X,
        "score_src": SCORE_SRC,
        "score_dst": SCORE_DST,
        "edge_score": EDGE_SCORE,
        "negative_slope": 0.2,
        "dropout": 0.0,
    }
    check_rejects(gnnkern.gat_attention, arguments, reject, backend)


@pytest.mark.big
def test_big():
    # 2^31 elements of output and more: the last rows lie beyond every 32-bit offset.
    num_dst, heads, width = 2**20 + 3, 8, 2**8
    edge_index = torch.tensor([[0, 1, 2, 1], [0, num_dst - 1, num_dst - 2, num_dst - 1]])
    g = gnnkern.Graph.from_edge_index(edge_index, num_nodes=(3, num_dst))
    x = normal(3, heads, width).to(torch.bfloat16)
    score_src = torch.zeros(3, heads, dtype=torch.bfloat16)
    score_dst = torch.zeros(num_dst, heads, dtype=torch.bfloat16)
    out = gnnkern.gat_attention(g, x, score_src, score_dst, backend="cpu")
    assert out.numel() > 2**31
    assert torch.equal(out[[0, -2, -1]], x[[0, 2, 1]])
    assert out[1:-2].count_nonzero() == 0
