"""Dropout inside `gatv2_attention`: the mask of `gat_attention`, and the gradient through it."""

import pytest
import torch
from helpers.attention import gatv2_call
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

gatv2_backends = each_backend("gatv2_attention")
gatv2_kernels = each_kernel("gatv2_attention")
each_edge_x = pytest.mark.parametrize("edge_x", [False, True], ids=["", "edge_x"])


def dropped_call(g, p, edge_x=True, seed=7, heads=3, width=5):
    """The call with dropout, with the generator of the seed set to the same state every time."""
    call = gatv2_call(g, heads, width, edge_x)

    def op(x_src, x_dst, att, edge_x=None, *, backend):
        torch.manual_seed(seed)
        return gnnkern.gatv2_attention(
            g, x_src, x_dst, att, edge_x=edge_x, dropout=p, backend=backend
        )

    def reference(*tensors):
        return op(*tensors, backend="reference")

    return Call(op, reference, call.tensors)


@gatv2_kernels
@each_edge_x
@pytest.mark.parametrize("p, heads, width", [(0.1, 3, 5), (0.6, 4, 16)])
@pytest.mark.parametrize("name", GRAPHS)
def test_dropout_is_that_of_the_reference(backend, edge_x, p, heads, width, name):
    check_gradient(dropped_call(graph(name), p, edge_x, heads=heads, width=width), backend)


@gatv2_backends
@pytest.mark.parametrize("heads", [1, 2, 4, 5])
def test_dropout_masks_are_those_of_gat_attention(backend, heads):
    g, p = graph("power_law"), 0.3
    x_src, x_dst, att = gatv2_call(g, heads, 1).tensors
    # Every score is 0 in both.
    torch.manual_seed(11)
    out = gnnkern.gatv2_attention(g, x_src, x_dst, 0 * att, dropout=p, backend=backend)
    scores = torch.zeros(g.num_src, heads), torch.zeros(g.num_dst, heads)
    torch.manual_seed(11)
    expected = gnnkern.gat_attention(g, x_src, *scores, dropout=p, backend=backend)
    torch.testing.assert_close(out, expected)


@gatv2_backends
def test_gradcheck_with_dropout(backend):
    check_gradcheck(dropped_call(graph("self_loops"), 0.4, heads=2), backend)


@gatv2_backends
def test_dropout_of_nothing_is_none(backend):
    g = graph("power_law")
    call = gatv2_call(g)
    state = torch.get_rng_state()
    out = gnnkern.gatv2_attention(g, *call.tensors, dropout=0.0, backend=backend)
    assert torch.equal(out, call.run(*call.tensors, backend=backend))
    assert torch.equal(state, torch.get_rng_state())


@gatv2_backends
def test_dropout_of_next_to_everything(backend):
    call = dropped_call(graph("power_law"), 1 - 1e-7)
    assert (call.run(*call.tensors, backend=backend) == 0).all()


@gatv2_backends
@pytest.mark.parametrize("name", ["power_law", "long_rows"])
def test_dropout_is_repeatable(backend, name):
    check_repeatable(dropped_call(graph(name), 0.5), backend)


@gatv2_backends
def test_compiles_with_dropout(backend):
    g = graph("bipartite")
    tensors = gatv2_call(g).tensors
    torch.compiler.reset()

    @torch.compile(fullgraph=True, backend="aot_eager")
    def compiled(x_src, x_dst, att):
        return gnnkern.gatv2_attention(g, x_src, x_dst, att, dropout=0.5, backend=backend)

    out, *gradients = value_and_gradients(compiled, tensors)
    assert all(result.isfinite().all() for result in (out, *gradients))
    # A compiled function draws another seed in every call.
    assert not torch.equal(out, compiled(*tensors))


@gatv2_backends
@each_edge_x
def test_operators(backend, edge_x):
    check_operators(dropped_call(graph("bipartite"), 0.5, edge_x), backend)
