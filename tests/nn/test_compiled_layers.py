"""Layers compile whole, and under autocast return the autocast type."""

import pytest
import torch
from layer_pairs import awkward_edges
from torch import nn

import gnnkern
from gnnkern.nn import GATConv, GATv2Conv, GCNConv, SAGEConv, TransformerConv

N, F_IN, CLASSES = 12, 5, 3


class TwoLayers(nn.Module):
    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x, graph):
        return self.second(self.first(x, graph).relu(), graph)


MODELS = {
    "gcn": lambda: TwoLayers(GCNConv(F_IN, 8), GCNConv(8, CLASSES)),
    "sage": lambda: TwoLayers(SAGEConv(F_IN, 8), SAGEConv(8, CLASSES, aggr="max")),
    "gat": lambda: TwoLayers(GATConv(F_IN, 4, heads=2), GATConv(8, CLASSES)),
    "gatv2": lambda: TwoLayers(GATv2Conv(F_IN, 4, heads=2), GATv2Conv(8, CLASSES)),
    "transformer": lambda: TwoLayers(
        TransformerConv(F_IN, 4, heads=2, beta=True), TransformerConv(8, CLASSES)
    ),
}


def _inputs():
    graph = gnnkern.Graph.from_edge_index(awkward_edges(), N)
    return graph.prepare(), torch.randn(N, F_IN, requires_grad=True)


@pytest.mark.parametrize("name", MODELS)
def test_compiles_whole_with_the_same_gradients(name):
    torch._dynamo.reset()
    model, (graph, x) = MODELS[name](), _inputs()
    parameters = [x, *model.parameters()]
    expected = model(x, graph)
    expected_grads = torch.autograd.grad(expected.square().sum(), parameters)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        actual = compiled(x, graph)
        torch.testing.assert_close(actual, expected)
        actual_grads = torch.autograd.grad(actual.square().sum(), parameters)
        torch.testing.assert_close(actual_grads, expected_grads)


def test_compiles_whole_with_dropout():
    torch._dynamo.reset()
    graph, x = _inputs()
    layer = GATConv(F_IN, 4, heads=2, dropout=0.5)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    # The graph with self loops is sorted at its first use, which a compiler cannot trace.
    layer(x, graph)
    first, second = compiled(x, graph), compiled(x, graph)
    assert not torch.equal(first, second)
    first.sum().backward()
    assert layer.lin.weight.grad.isfinite().all()


@pytest.mark.parametrize("name", MODELS)
def test_autocast(name):
    model, (graph, x) = MODELS[name](), _inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(x, graph)
    torch.testing.assert_close(out.float(), model(x, graph), atol=0.1, rtol=0.1)
    out.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_parameters(name):
    model, (graph, x) = MODELS[name](), _inputs()
    expected = model(x, graph)
    actual = model.bfloat16()(x.bfloat16(), graph)
    assert actual.dtype is torch.bfloat16
    torch.testing.assert_close(actual.float(), expected, atol=0.1, rtol=0.1)
