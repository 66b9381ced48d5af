"""Layers compile whole, and under autocast return the autocast type."""

import pytest
import torch
from layer_pairs import awkward_edges
from torch import nn

import gnnkern
from gnnkern.nn import (
    APPNP,
    EdgeConv,
    GATConv,
    GATv2Conv,
    GCNConv,
    GINConv,
    GINEConv,
    GraphConv,
    MessagePassing,
    Messages,
    PNAConv,
    Relations,
    RGCNConv,
    SAGEConv,
    TransformerConv,
)

N, F_IN, CLASSES, RELATIONS = 12, 5, 3, 4


class TwoLayers(nn.Module):
    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x, graph):
        return self.second(self.first(x, graph).relu(), graph)


class WithEdges(nn.Module):
    """A layer that is given features of the edges."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("edge_attr", torch.randn(awkward_edges().shape[1], width))

    def forward(self, x, graph):
        return self.layer(x, graph, self.edge_attr)


class UserLayer(MessagePassing):
    def __init__(self, width: int, declares: bool) -> None:
        super().__init__(aggr=["mean", "max"])
        self.lin = nn.Linear(width, 4)
        self.declares = declares

    def forward(self, x, graph):
        return self.propagate(graph, x=self.lin(x))

    def message(self, graph, x, x_j):
        return Messages(graph, x) if self.declares else x_j.tanh()


def mlp(width: int, out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 6), nn.ReLU(), nn.Linear(6, out))


def pna(width: int, out: int, **options) -> nn.Module:
    aggregators, scalers = ["mean", "max", "std"], ["identity", "amplification"]
    return PNAConv(width, out, aggregators, scalers, torch.tensor([1, 2, 3]), **options)


MODELS = {
    "gcn": lambda: TwoLayers(GCNConv(F_IN, 8), GCNConv(8, CLASSES)),
    "sage": lambda: TwoLayers(SAGEConv(F_IN, 8), SAGEConv(8, CLASSES, aggr="max")),
    "gat": lambda: TwoLayers(GATConv(F_IN, 4, heads=2), GATConv(8, CLASSES)),
    "gatv2": lambda: TwoLayers(GATv2Conv(F_IN, 4, heads=2), GATv2Conv(8, CLASSES)),
    "transformer": lambda: TwoLayers(
        TransformerConv(F_IN, 4, heads=2, beta=True), TransformerConv(8, CLASSES)
    ),
    "gin": lambda: TwoLayers(GINConv(mlp(F_IN, 8), train_eps=True), GINConv(nn.Linear(8, CLASSES))),
    "gine": lambda: WithEdges(GINEConv(mlp(F_IN, CLASSES), edge_dim=2), 2),
    "graph_conv": lambda: TwoLayers(GraphConv(F_IN, 8), GraphConv(8, CLASSES, aggr="mean")),
    "several": lambda: TwoLayers(
        SAGEConv(F_IN, 8, aggr=["mean", "std", "softmax"]), SAGEConv(8, CLASSES, aggr="var")
    ),
    "edge_conv": lambda: TwoLayers(EdgeConv(nn.Linear(10, 8)), EdgeConv(mlp(16, CLASSES))),
    "pna": lambda: TwoLayers(pna(F_IN, 8, towers=2), pna(8, CLASSES, pre_layers=2)),
    "pna_edges": lambda: WithEdges(pna(F_IN, CLASSES, edge_dim=2), 2),
    "rgcn": lambda: TwoLayers(
        RGCNConv(F_IN, 8, RELATIONS, num_bases=2), RGCNConv(8, CLASSES, RELATIONS, aggr="max")
    ),
    "rgcn_blocks": lambda: RGCNConv(F_IN, 10, RELATIONS, num_blocks=5),
    "user": lambda: TwoLayers(UserLayer(F_IN, True), UserLayer(8, False)),
    "appnp": lambda: TwoLayers(GCNConv(F_IN, CLASSES), APPNP(2, 0.1)),
}


def _inputs(name: str = ""):
    graph = gnnkern.Graph.from_edge_index(awkward_edges(), N).prepare()
    if name.startswith("rgcn"):
        graph = Relations.of(graph, torch.randint(RELATIONS, (graph.num_edges,)), RELATIONS)
    return graph, torch.randn(N, F_IN, requires_grad=True)


@pytest.mark.parametrize("name", MODELS)
def test_compiles_whole_with_the_same_gradients(name):
    torch._dynamo.reset()
    model, (graph, x) = MODELS[name](), _inputs(name)
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
    model, (graph, x) = MODELS[name](), _inputs(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(x, graph)
    torch.testing.assert_close(out.float(), model(x, graph), atol=0.1, rtol=0.1)
    out.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_parameters(name):
    model, (graph, x) = MODELS[name](), _inputs(name)
    expected = model(x, graph)
    actual = model.bfloat16()(x.bfloat16(), graph)
    assert actual.dtype is torch.bfloat16
    torch.testing.assert_close(actual.float(), expected, atol=0.1, rtol=0.1)
