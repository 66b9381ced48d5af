"""Dropout inside `dot_attention`: the mask, and the gradient through it."""

import pytest
import torch
from helpers.attention import dot_call
from helpers.cases import Call, each_backend, each_kernel
from helpers.checks import (
    check_gradcheck,
    check_gradient,
    check_operators,
    check_repeatable,
    value_and_gradients,
)
from helpers.graphs import GRAPHS, graph

import gnnkern

dot_backends = each_backend("dot_attention")
dot_kernels = each_kernel("dot_attention")
each_edges = pytest.mark.parametrize("edges", ["", "edge_bias, edge_x"])


def dropped_call(g, p, edges="edge_bias, edge_x", seed=7, heads=3):
    """The call with dropout, with the generator of the seed set to the same state every time."""
    call = dot_call(g, heads=heads, edges=edges)
    names = edges.split(", ") if edges else []

    def op(query, key, value, *rest, backend):
        torch.manual_seed(seed)
        options = dict(zip(names, rest, strict=True))
        return gnnkern.dot_attention(g, query, key, value, **options, dropout=p, backend=backend)

    def reference(*tensors):
        return op(*tensors, backend="reference")

    return Call(op, reference, call.tensors)


@dot_kernels
@each_edges
@pytest.mark.parametrize("p", [0.1, 0.6])
@pytest.mark.parametrize("name", GRAPHS)
def test_dropout_is_that_of_the_reference(backend, edges, p, name):
    call = dropped_call(graph(name), p, edges)
    # Where every alpha is 1, scores have no gradient, and plain torch has it without rounding.
    check_gradient(call.to(torch.float64) if name == "chain" else call, backend)


@dot_backends
@pytest.mark.parametrize("heads", [1, 2, 4, 5])
def test_dropout_masks_are_those_of_gat_attention(backend, heads):
    # One edge into every node: the result is 0 where it was dropped.
    nodes = torch.randperm(1001)
    edge_index = torch.stack([torch.zeros_like(nodes), nodes])
    g = gnnkern.Graph.from_edge_index(edge_index, num_nodes=(1, 1001))
    ones, zeros = torch.ones(1, heads, 3), torch.zeros(1001, heads)
    torch.manual_seed(11)
    out = gnnkern.dot_attention(g, zeros[:, :, None] + ones, ones, ones, dropout=0.3)
    torch.manual_seed(11)
    expected = gnnkern.gat_attention(g, ones, ones[..., 0], zeros, dropout=0.3)
    torch.testing.assert_close(out, expected)
    assert 0.6 < (out != 0).double().mean() < 0.8


@dot_backends
def test_dropout_keeps_the_mean(backend):
    # Every head is the same attention, dropped out by itself.
    g, heads = graph("dense_small"), 4000
    tensors = [
        tensor.expand(-1, heads, *tensor.shape[2:])
        for tensor in dot_call(g, 1, 3, edges="edge_bias, edge_x").tensors
    ]
    query, key, value, edge_bias, edge_x = tensors
    options = {"edge_bias": edge_bias, "edge_x": edge_x, "backend": backend}
    dropped, whole = (
        gnnkern.dot_attention(g, query, key, value, **options, dropout=p) for p in (0.3, 0.0)
    )
    torch.testing.assert_close(dropped.mean(1), whole[:, 0], rtol=0, atol=0.08)
    assert (dropped.std(1) > 0.05).all()


@dot_backends
def test_gradcheck_with_dropout(backend):
    check_gradcheck(dropped_call(graph("self_loops"), 0.4, heads=2), backend)


@dot_backends
def test_dropout_of_nothing_is_none(backend):
    g = graph("power_law")
    call = dot_call(g)
    state = torch.get_rng_state()
    out = gnnkern.dot_attention(g, *call.tensors, dropout=0.0, backend=backend)
    assert torch.equal(out, call.run(*call.tensors, backend=backend))
    assert torch.equal(state, torch.get_rng_state())


@dot_backends
@pytest.mark.parametrize("name", ["power_law", "long_rows"])
def test_dropout_is_repeatable(backend, name):
    check_repeatable(dropped_call(graph(name), 0.5), backend)


@dot_backends
def test_compiles_with_dropout(backend):
    g = graph("bipartite")
    tensors = dot_call(g).tensors
    torch.compiler.reset()

    @torch.compile(fullgraph=True, backend="aot_eager")
    def compiled(query, key, value):
        return gnnkern.dot_attention(g, query, key, value, dropout=0.5, backend=backend)

    out, *gradients = value_and_gradients(compiled, tensors)
    assert all(result.isfinite().all() for result in (out, *gradients))
    # A compiled function draws another seed in every call.
    assert not torch.equal(out, compiled(*tensors))


@dot_backends
@each_edges
def test_operators(backend, edges):
    check_operators(dropped_call(graph("bipartite"), 0.5, edges), backend)
