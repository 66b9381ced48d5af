import pytest
import torch
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
    check_repeatable,
    check_value,
)
from helpers.graphs import GRAPHS, fresh_graph, graph
from helpers.rejects import bad_floats, bad_graphs, check_rejects, each_reject

import gnnkern
from gnnkern.reference.edge_softmax import edge_softmax_reference

INF = float("inf")

softmax_backends = each_backend("edge_softmax")
softmax_kernels = each_kernel("edge_softmax")
each_heads = pytest.mark.parametrize("heads", [None, 0, 1, 3, 8, 31, 32, 33, 64, 100])
some_heads = pytest.mark.parametrize("heads", [None, 1, 3, 8])


def softmax_call(g, heads=None, dtype=torch.float32):
    """`heads` None: a score per edge; else a score per edge and head."""
    score = 3 * (normal(g.num_edges) if heads is None else normal(g.num_edges, heads))

    def op(score, *, backend):
        return gnnkern.edge_softmax(g, score, backend=backend)

    def reference(score):
        return edge_softmax_reference(g, score)

    return Call(op, reference, (score,)).to(dtype)


# Value and gradient


@softmax_kernels
@each_heads
@each_dtype
def test_value_and_gradient_for_every_number_of_heads(backend, heads, dtype):
    check_gradient(softmax_call(graph("power_law"), heads, dtype), backend)


@softmax_backends
@pytest.mark.parametrize("heads", [None, 3])
@pytest.mark.parametrize("name", GRAPHS)
@each_dtype
def test_value_and_gradient_on_every_graph(backend, heads, name, dtype):
    check_gradient(softmax_call(graph(name), heads, dtype), backend)


@softmax_backends
@some_heads
@each_index_dtype
@pytest.mark.parametrize("name", ["no_edges", "power_law"])
def test_index_dtypes(backend, heads, index_dtype, name):
    check_value(softmax_call(graph(name, index_dtype), heads), backend)


@softmax_kernels
@some_heads
@each_layout
@pytest.mark.parametrize("name", ["bipartite", "dense_small"])
def test_layouts(backend, heads, layout, name):
    call = softmax_call(graph(name), heads).laid_out(layout)
    check_gradient(call, backend, upstream_layout="transposed")


@softmax_backends
@some_heads
def test_gradient_of_a_sum(backend, heads):
    # It is 0: every node's softmax sums to 1 whatever the scores.
    call = softmax_call(graph("power_law"), heads, torch.float64)
    score = call.tensors[0].requires_grad_()
    call.run(score, backend=backend).sum().backward()
    assert score.grad.abs().max() < 1e-14


@softmax_backends
@pytest.mark.parametrize("heads", [None, 1, 3])
@pytest.mark.parametrize("name", ["multi_edges", "isolated_ends"])
def test_gradcheck(backend, heads, name):
    check_gradcheck(softmax_call(graph(name), heads), backend)


@softmax_backends
@some_heads
def test_no_second_derivative(backend, heads):
    check_no_second_derivative(softmax_call(graph("bipartite"), heads), backend)


# What a softmax is


@softmax_backends
def test_by_hand(backend):
    # Node 1 has edges 0, 2, 3 (0 and 2 are duplicates), node 0 has edge 1.
    edge_index = torch.tensor([[0, 2, 0, 2], [1, 0, 1, 1]])
    g = gnnkern.Graph.from_edge_index(edge_index, num_nodes=3)
    score = torch.tensor([1.0, 5.0, 2.0, 5.0]).log()
    out = gnnkern.edge_softmax(g, score, backend=backend)
    torch.testing.assert_close(out, torch.tensor([1 / 8, 1.0, 2 / 8, 5 / 8]))


@softmax_backends
@pytest.mark.parametrize("name", ["self_loops", "power_law", "long_rows"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_node_with_edges_sums_to_one(backend, name, dtype):
    g = graph(name)
    out = gnnkern.edge_softmax(g, normal(g.num_edges, 3).to(dtype), backend=backend)
    total = torch.zeros(g.num_dst, 3, dtype=dtype).index_add(0, g.edge_index[1], out)
    expected = (torch.bincount(g.edge_index[1], minlength=g.num_dst) > 0).to(dtype)
    torch.testing.assert_close(total, expected[:, None].expand(-1, 3))


@softmax_backends
@pytest.mark.parametrize("shift", [-1e4, 0.0, 1e4])
def test_large_scores_do_not_overflow(backend, shift):
    # All maxima are far below 0, at 0, or far above: neither is where a running maximum starts.
    g = graph("power_law")
    score = (normal(g.num_edges, 3) * 8).round() / 8
    shifted = gnnkern.edge_softmax(g, (score + shift).float(), backend=backend)
    expected = edge_softmax_reference(g, score)
    torch.testing.assert_close(shifted.double(), expected, rtol=1e-5, atol=1e-9)


@softmax_backends
@each_dtype
def test_a_score_of_zero_is_a_score(backend, dtype):
    g = graph("star_in")
    score = torch.zeros(300, 2, dtype=dtype)
    score[:, 1] = -INF
    score[17, 1] = 0
    out = gnnkern.edge_softmax(g, score, backend=backend)
    torch.testing.assert_close(out[:, 0], torch.full((300,), 1 / 300, dtype=dtype))
    expected = torch.zeros(300, dtype=dtype)
    expected[17] = 1
    assert torch.equal(out[:, 1], expected)


@softmax_backends
@each_dtype
@pytest.mark.parametrize("name", ["multi_edges", "star_in", "long_rows"])
def test_a_row_of_minus_infinity_gives_zero(backend, dtype, name):
    # Head 0 is -inf throughout, head 1 here and there, head 2 nowhere.
    call = softmax_call(graph(name), 3, dtype)
    score = call.tensors[0]
    score[:, 0] = -INF
    score[::2, 1] = -INF
    check_gradient(call, backend)
    out = call.run(score, backend=backend)
    assert (out[:, 0] == 0).all()
    assert (out[::2, 1] == 0).all()
    score.requires_grad_()
    (gradient,) = torch.autograd.grad(call.run(score, backend=backend).square().sum(), score)
    assert gradient.isfinite().all()


@softmax_backends
@each_dtype
@pytest.mark.parametrize("bad", [float("nan"), INF], ids=["nan", "inf"])
def test_nan_and_infinity_spoil_their_node_and_head_only(backend, dtype, bad):
    g = graph("power_law")
    call = softmax_call(g, 3, dtype)
    call.tensors[0][40, 1] = bad
    check_value(call, backend)
    out = call.run(*call.tensors, backend=backend)
    spoiled = torch.zeros(g.num_edges, 3, dtype=torch.bool)
    spoiled[:, 1] = g.edge_index[1] == g.edge_index[1, 40]
    if bad == INF:
        assert out[40, 1].isnan()
        spoiled &= out.isnan()
    assert torch.equal(out.isnan(), spoiled)


@softmax_backends
def test_heads_are_independent(backend):
    g = graph("power_law")
    score = normal(g.num_edges, 3).float() * torch.tensor([0.1, 3.0, 30.0])
    together = gnnkern.edge_softmax(g, score, backend=backend)
    for head in range(3):
        alone = gnnkern.edge_softmax(g, score[:, head], backend=backend)
        torch.testing.assert_close(together[:, head], alone, rtol=1e-5, atol=1e-9)


# Everything else


@softmax_backends
@pytest.mark.parametrize("heads", [None, 3])
@pytest.mark.parametrize("name", ["power_law", "long_rows"])
@each_dtype
def test_repeatable(backend, heads, name, dtype):
    check_repeatable(softmax_call(graph(name), heads, dtype), backend)


@softmax_backends
@pytest.mark.parametrize("make_graph", [graph, fresh_graph], ids=["prepared", "unprepared"])
@pytest.mark.parametrize("heads", [None, 3])
def test_compiles(backend, make_graph, heads):
    check_compiled(softmax_call(make_graph("bipartite"), heads), backend)


@softmax_backends
@some_heads
def test_operators(backend, heads):
    check_operators(softmax_call(graph("bipartite"), heads), backend)


@softmax_backends
@some_heads
def test_autocast(backend, heads):
    check_autocast(softmax_call(graph("power_law"), heads), backend)


@softmax_backends
@each_reject(
    bad_graphs("g"), bad_floats("score", torch.ones(90, 2), (89, 2), (29, 2), (90, 2, 1), ())
)
def test_rejects(backend, reject):
    arguments = {"g": graph("bipartite"), "score": torch.ones(90, 2)}
    check_rejects(gnnkern.edge_softmax, arguments, reject, backend)


@pytest.mark.big
def test_big():
    # 2^31 scores and more: the last edges lie beyond every 32-bit offset.
    num_edges, heads = 2**20 + 4, 2**11
    destination = torch.arange(num_edges // 2).repeat_interleave(2)
    edge_index = torch.stack([torch.zeros_like(destination), destination])
    g = gnnkern.Graph.from_edge_index(edge_index, num_nodes=(1, num_edges // 2))
    score = torch.zeros(num_edges, heads, dtype=torch.bfloat16)
    score[-2:, -1] = torch.tensor([0.0, -INF])
    out = gnnkern.edge_softmax(g, score, backend="cpu")
    assert out.numel() > 2**31
    assert (out[:-2] == 0.5).all()
    assert (out[-2:, :-1] == 0.5).all()
    assert out[-2:, -1].tolist() == [1, 0]
