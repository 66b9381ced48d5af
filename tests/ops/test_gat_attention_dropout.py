"""Dropout inside `gat_attention`: the mask, its statistics, and the gradient through it."""

import pytest
import torch
from helpers.attention import gat_call
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

gat_backends = each_backend("gat_attention")
gat_kernels = each_kernel("gat_attention")
each_edge_score = pytest.mark.parametrize("edge_score", [False, True], ids=["", "edge_score"])


def dropped_call(g, p, edge_score=True, seed=7, heads=3):
    """The call with dropout, with the generator of the seed set to the same state every time."""
    call = gat_call(g, heads=heads, edge_score=edge_score)

    def op(x, score_src, score_dst, edge_score=None, *, backend):
        torch.manual_seed(seed)
        return gnnkern.gat_attention(
            g, x, score_src, score_dst, edge_score=edge_score, dropout=p, backend=backend
        )

    def reference(*tensors):
        return op(*tensors, backend="reference")

    return Call(op, reference, call.tensors)


def kept_edges(g, p, backend, heads=3):  # [E, H] bool
    """With one edge into every node, the output is 0 where it was dropped."""
    assert g.num_dst == g.num_edges
    x, score_src, score_dst = gat_call(g, heads, 1).tensors
    out = gnnkern.gat_attention(
        g, torch.ones_like(x), score_src, score_dst, dropout=p, backend=backend
    )
    kept = out[:, :, 0][g.edge_index[1]]  # [E, H]
    torch.testing.assert_close(kept, (kept != 0) / (1 - torch.full_like(kept, p)))
    return kept != 0


def one_edge_per_node(num_nodes=20_000):
    generator = torch.Generator().manual_seed(3)
    destination = torch.randperm(num_nodes, generator=generator)
    edge_index = torch.stack([torch.zeros_like(destination), destination])
    return gnnkern.Graph.from_edge_index(edge_index, num_nodes=(1, num_nodes))


@gat_kernels
@each_edge_score
@pytest.mark.parametrize("p", [0.1, 0.6])
@pytest.mark.parametrize("name", GRAPHS)
def test_dropout_is_that_of_the_reference(backend, edge_score, p, name):
    check_gradient(dropped_call(graph(name), p, edge_score), backend)


@gat_backends
@pytest.mark.parametrize("heads", [1, 2, 5])
def test_dropout_masks_are_those_of_the_reference(backend, heads):
    g = one_edge_per_node(1001)
    torch.manual_seed(11)
    kept = kept_edges(g, 0.3, backend, heads)
    torch.manual_seed(11)
    assert torch.equal(kept, kept_edges(g, 0.3, "reference", heads))


@gat_backends
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_its_share(backend, p):
    kept = kept_edges(one_edge_per_node(), p, backend).double()
    # Five standard deviations of the share, of each head, and of heads and neighbours beside it.
    bound = 5 * (p * (1 - p) / len(kept)) ** 0.5
    assert (kept.mean(0) - (1 - p)).abs().max() < bound
    centred = kept - (1 - p)
    assert (centred[1:] * centred[:-1]).mean().abs() < bound
    assert (centred[:, 1:] * centred[:, :-1]).mean().abs() < bound


@gat_backends
def test_every_call_drops_others(backend):
    g = one_edge_per_node()
    first, second = (kept_edges(g, 0.5, backend) for _ in range(2))
    assert 0.48 < (first == second).double().mean() < 0.52


@gat_backends
def test_dropout_keeps_the_mean(backend):
    # Every head is the same attention, dropped out by itself.
    g, heads = graph("dense_small"), 4000
    tensors = [
        tensor.expand(-1, heads, *tensor.shape[2:])
        for tensor in gat_call(g, 1, 3, edge_score=True).tensors
    ]
    x, score_src, score_dst, edge_score = tensors
    dropped, whole = (
        gnnkern.gat_attention(
            g, x, score_src, score_dst, edge_score=edge_score, dropout=p, backend=backend
        )
        for p in (0.3, 0.0)
    )
    torch.testing.assert_close(dropped.mean(1), whole[:, 0], rtol=0, atol=0.06)
    assert (dropped.std(1) > 0.05).all()


@gat_backends
def test_gradcheck_with_dropout(backend):
    check_gradcheck(dropped_call(graph("self_loops"), 0.4, heads=2), backend)


@gat_backends
def test_dropout_of_nothing_is_none(backend):
    g = graph("power_law")
    call = gat_call(g)
    state = torch.get_rng_state()
    out = gnnkern.gat_attention(g, *call.tensors, dropout=0.0, backend=backend)
    assert torch.equal(out, call.run(*call.tensors, backend=backend))
    assert torch.equal(state, torch.get_rng_state())


@gat_backends
def test_dropout_of_next_to_everything(backend):
    out = dropped_call(graph("power_law"), 1 - 1e-7).run(
        *gat_call(graph("power_law"), edge_score=True).tensors, backend=backend
    )
    assert (out == 0).all()


@gat_backends
@pytest.mark.parametrize("name", ["power_law", "long_rows"])
def test_dropout_is_repeatable(backend, name):
    check_repeatable(dropped_call(graph(name), 0.5), backend)


@gat_backends
def test_compiles_with_dropout(backend):
    g = graph("bipartite")
    tensors = gat_call(g).tensors
    torch.compiler.reset()

    @torch.compile(fullgraph=True, backend="aot_eager")
    def compiled(x, score_src, score_dst):
        return gnnkern.gat_attention(g, x, score_src, score_dst, dropout=0.5, backend=backend)

    out, *gradients = value_and_gradients(compiled, tensors)
    assert all(result.isfinite().all() for result in (out, *gradients))
    # A compiled function draws another seed in every call.
    assert not torch.equal(out, compiled(*tensors))


@gat_backends
@each_edge_score
def test_operators(backend, edge_score):
    check_operators(dropped_call(graph("bipartite"), 0.5, edge_score), backend)
