"""The plain torch path of a layer or network gives what the layer gives."""

import pytest
import torch
from layer_pairs import awkward_edges

import gnnkern
from gnnkern.nn import GATConv, GCNConv, SAGEConv
from gnnkern.nn.models import appnp, gat, gcn, gin, sage
from gnnkern.nn.net import drop
from gnnkern.nn.plain import PlainEdges, plain_conv

N, F_IN, CLASSES = 12, 9, 3

LAYERS = {
    "gcn": lambda: GCNConv(F_IN, 4),
    "gat": lambda: GATConv(F_IN, 4, heads=2),
    "gat_mean": lambda: GATConv(F_IN, 4, heads=2, concat=False, bias=False),
    "sage_mean": lambda: SAGEConv(F_IN, 4),
    "sage_wide": lambda: SAGEConv(F_IN, 16),
    "sage_max": lambda: SAGEConv(F_IN, 4, aggr="max"),
    "sage_sum": lambda: SAGEConv(F_IN, 4, aggr="sum", normalize=True, root_weight=False),
}
NETS = {
    "gcn": lambda: gcn(F_IN, CLASSES, hidden=8, dropout=0.5),
    "sage": lambda: sage(F_IN, CLASSES, hidden=8, dropout=0.5),
    "gat": lambda: gat(F_IN, CLASSES, hidden=4, heads=2, dropout=0.5),
    "gin": lambda: gin(F_IN, CLASSES, hidden=8, dropout=0.5),
    "gin_wide": lambda: gin(F_IN, CLASSES, hidden=16, dropout=0.5),
    "appnp": lambda: appnp(F_IN, CLASSES, hidden=8, dropout=0.5),
}


def _graphs(dtype=torch.float32):
    # torch's scatter splits the gradient of a tie, so the edges are distinct.
    edges = awkward_edges().unique(dim=1)
    return gnnkern.Graph.from_edge_index(edges, N), PlainEdges(edges, N, dtype)


def _assert_same(module, run):
    graph, edges = _graphs(torch.float64)
    x = torch.randn(N, F_IN, dtype=torch.float64, requires_grad=True)
    inputs = [x, *module.parameters()]
    fast, plain = run(x, graph), run(x, edges)
    torch.testing.assert_close(plain, fast)
    fast_grads = torch.autograd.grad(fast.square().sum(), inputs)
    plain_grads = torch.autograd.grad(plain.square().sum(), inputs)
    torch.testing.assert_close(plain_grads, fast_grads)


@pytest.mark.parametrize("name", LAYERS)
def test_layer_same_as_plain(name):
    layer = LAYERS[name]().double()

    def run(x, graph):
        return plain_conv(layer, x, graph) if isinstance(graph, PlainEdges) else layer(x, graph)

    _assert_same(layer, run)


@pytest.mark.parametrize("name", NETS)
def test_network_same_as_plain(name):
    net = NETS[name]().double().eval()
    _assert_same(net, net)


@pytest.mark.parametrize("name", ["gcn", "sage", "gat"])
def test_network_takes_sparse_features(name):
    net = NETS[name]()
    graph, edges = _graphs()
    x = torch.randn(N, F_IN).relu()
    net.eval()
    torch.testing.assert_close(net(x.to_sparse_csr(), graph), net(x, graph))
    torch.testing.assert_close(net(x.to_sparse_csr(), edges), net(x, graph))
    net.train()
    net(x.to_sparse_csr(), graph).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_sparse_dropout_scales_what_it_keeps():
    x = torch.rand(50, 40).to_sparse_csr()
    dropped = drop(x, 0.25, training=True)
    kept = dropped.values() != 0
    assert 0.65 < kept.float().mean() < 0.85
    torch.testing.assert_close(dropped.values()[kept], x.values()[kept] / 0.75)
    assert drop(x, 0.25, training=False) is not None
    assert torch.equal(drop(x, 0.25, training=False).values(), x.values())


def test_no_plain_path_for_other_modules():
    with pytest.raises(TypeError, match="no plain path for Linear"):
        plain_conv(torch.nn.Linear(2, 2), torch.ones(1, 2), _graphs()[1])
