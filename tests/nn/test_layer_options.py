"""Options of layers beyond PyG's values: what is refused, lazy widths, caches, dropout, hooks."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from layer_cases import CASES, F_IN, F_OUT, N_DST, N, mlp, rows
from layer_pairs import awkward_edges
from torch import nn

import gnnkern

# Of a layer, its arguments and what it is called with; x and edges stand for good ones.
BAD = {
    "gin_nn": (lambda k: k.GINConv("mlp"), "GINConv: nn must be a module, got str"),
    "gin_aggr": (lambda k: k.GINConv(mlp(), aggr="best"), "GINConv: aggr must be one of"),
    "gin_dst": (
        lambda k: k.GINConv(mlp())((X, X[1:]), GRAPH),
        r"GINConv: x of the destinations must have shape \[num_dst=12, F\], got \[11, 6\]",
    ),
    "gine_nn": (lambda k: k.GINEConv(nn.Tanh(), edge_dim=2), "GINEConv: edge_dim needs an nn that"),
    "gine_none": (lambda k: k.GINEConv(mlp())(X, GRAPH), "GINEConv: edge_attr must .* got None"),
    "gine_width": (
        lambda k: k.GINEConv(mlp())(X, GRAPH, torch.ones(GRAPH.num_edges, 2)),
        r"GINEConv: edge_attr must have shape \[num_edges=50, F=6\], .* got \[50, 2\]",
    ),
    "graph_conv_aggr": (lambda k: k.GraphConv(2, 2, aggr=3), "GraphConv: aggr must be .* got 3"),
    "appnp_steps": (lambda k: k.APPNP(-1, 0.1), "APPNP: K must be >= 0, got -1"),
    "edge_dst": (
        lambda k: k.EdgeConv(nn.Linear(12, 2))((X, None), GRAPH),
        "EdgeConv: x must have features of one width",
    ),
    "edge_width": (
        lambda k: k.EdgeConv(nn.Linear(8, 2))(X, GRAPH),
        r"EdgeConv: x must have width 4, half of what nn takes, got \[12, 6\]",
    ),
    "pna_in": (lambda k: made_pna(in_channels=-1), "PNAConv: in_channels must be >= 1, got -1"),
    "pna_layers": (lambda k: made_pna(post_layers=0), "PNAConv: post_layers must be >= 1, got 0"),
    "pna_towers": (lambda k: made_pna(towers=5), "out_channels must be a multiple of towers=5"),
    "pna_divide": (
        lambda k: made_pna(towers=3, divide_input=True),
        "PNAConv: in_channels must be a multiple of towers=3, got 4",
    ),
    "pna_act": (lambda k: made_pna(act="bent", pre_layers=2), "PNAConv: act .* got 'bent'"),
    "pna_scaler": (
        lambda k: made_pna(scalers=["log"]),
        "scaler must be one or more of .* got \\['log'",
    ),
    "pna_unasked": (
        lambda k: made_pna()(X[:, :4], GRAPH, torch.ones(GRAPH.num_edges, 2)),
        "PNAConv: edge_attr needs a layer made with edge_dim",
    ),
    "pna_missing": (
        lambda k: made_pna(edge_dim=2)(X[:, :4], GRAPH),
        r"PNAConv: edge_attr must have shape \[num_edges=50, edge_dim=2\], got None",
    ),
    "pna_width": (
        lambda k: made_pna()(X, GRAPH),
        r"PNAConv: x must have shape \[N, in_channels=4\] .* got \[12, 6\] and 12 sources",
    ),
    "appnp_pair": (
        lambda k: k.APPNP(1, 0.1, normalize=False)(X, PAIRED),
        "APPNP: needs num_src == num_dst, got 12 and 9",
    ),
    "messages_own": (
        lambda k: k.Messages(GRAPH, X, own=X[:1]),
        r"Messages: own must have shape \[num_dst=12, ...\], got \[1, 6\]",
    ),
    "messages_none": (lambda k: k.Messages(GRAPH, None), "Messages: x or edge must be given"),
    "sage_lstm_lazy": (lambda k: k.SAGEConv(-1, 2, aggr="lstm"), "in_channels must be >= 1"),
}
PAIRED = gnnkern.Graph.from_edge_index(awkward_edges(N, N_DST), (N, N_DST))
X, GRAPH = torch.ones(N, F_IN), gnnkern.Graph.from_edge_index(awkward_edges(), N)


def made_pna(**options: Any) -> nn.Module:
    options = {"aggregators": ["sum"], "scalers": ["linear"], "in_channels": 4, **options}
    return gnnkern.nn.PNAConv(out_channels=6, deg=torch.ones(3), **options)


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name):
    call, message = BAD[name]
    with pytest.raises((TypeError, ValueError), match=message):
        call(gnnkern.nn)


@pytest.mark.parametrize("in_channels", [-1, (-1, -1)])
@pytest.mark.parametrize(
    ("layer", "aggr"), [("GraphConv", "add"), ("SAGEConv", "mean"), ("SAGEConv", ["max", "std"])]
)
def test_lazy_width_is_taken_from_the_input(layer, aggr, in_channels):
    pyg = pytest.importorskip("torch_geometric.nn")
    ours = getattr(gnnkern.nn, layer)(in_channels, F_OUT, aggr=aggr)
    theirs = getattr(pyg, layer)(in_channels, F_OUT, aggr=aggr)
    x, edges = (rows(N).float(), rows(N_DST).float()), awkward_edges(N, N_DST)
    ours(x, edges)
    theirs(x, edges)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x, edges), theirs(x, edges))


def test_sparse_matrix_same_as_edge_index():
    edges = awkward_edges().unique(dim=1)
    weight = 0.5 + torch.rand(edges.shape[1], dtype=torch.float64)
    adj = torch.sparse_coo_tensor(edges.flip(0), weight, (N, N)).coalesce()
    weights = {"graph_conv": {"edge_weight": weight}, "appnp": {"edge_weight": weight}}
    for name in ("graph_conv", "appnp", "gin", "sage_mean", "edge_mlp"):
        layer, x = CASES[name].make(gnnkern.nn).double(), rows(N)
        torch.testing.assert_close(layer(x, adj), layer(x, edges, **weights.get(name, {})))
        torch.testing.assert_close(layer(x, adj.to_sparse_csr()), layer(x, adj))


def test_hooks_on_a_first_map_are_called():
    seen = []
    network = nn.Sequential(nn.Linear(F_IN, 2), nn.Tanh())
    network[0].register_forward_hook(lambda *_: seen.append(1))
    layer, x = gnnkern.nn.GINConv(network).double(), rows(N)
    hooked = layer(x, GRAPH)
    assert seen == [1]
    network[0]._forward_hooks.clear()
    torch.testing.assert_close(layer(x, GRAPH), hooked)


def test_dropped_edges_stay_dropped_and_keep_the_mean():
    layer = gnnkern.nn.APPNP(2, 0.2, dropout=0.4, normalize=False).train()
    x = torch.rand(N, F_IN, dtype=torch.float64)
    torch.manual_seed(7)
    first = layer(x, GRAPH)
    torch.manual_seed(7)
    assert torch.equal(layer(x, GRAPH), first)
    assert not torch.equal(layer(x, GRAPH), first)
    one = gnnkern.Graph.from_edge_index(torch.tensor([[0], [0]]), 1)
    outs = {float(layer(torch.ones(1, 1), one)) for _ in range(60)}
    # An edge that keeps its weight, or loses it in the second step or in the first.
    kept, step = 1 / 0.6, 0.8
    late, never = step * (step * kept + 0.2) * kept * kept + 0.2, step * 0 + 0.2
    assert {round(out, 4) for out in outs} == {round(late, 4), round(never, 4)}


@pytest.mark.parametrize(
    ("layer", "arguments"), [("APPNP", (2, 0.1)), ("GCNConv", (F_IN, F_OUT))], ids=str
)
def test_cached_keeps_the_first_graph(layer, arguments):
    layer, x = getattr(gnnkern.nn, layer)(*arguments, cached=True).double(), rows(N)
    first = layer(x, awkward_edges())
    for same in (layer, deepcopy(layer)):
        torch.testing.assert_close(same(x, awkward_edges()[:, :5]), first)
    layer.reset_parameters()
    assert not torch.allclose(layer(x, awkward_edges()[:, :5]), first)


def test_histogram_of_degrees_same_as_pyg():
    pyg = pytest.importorskip("torch_geometric")
    sizes = [(N, awkward_edges()), (3, torch.tensor([[0, 1], [2, 2]]))]
    loader = [pyg.data.Data(edge_index=edges, num_nodes=size) for size, edges in sizes]
    expected = pyg.nn.PNAConv.get_degree_histogram(loader)
    graphs = [gnnkern.Graph.from_edge_index(edges, size) for size, edges in sizes]
    for mine in (loader, graphs, loader[::-1]):
        assert torch.equal(gnnkern.nn.PNAConv.get_degree_histogram(mine), expected)


def test_unused_relations_and_weights_start_as_pyg_says():
    layer = gnnkern.nn.RGCNConv(300, 200, 3, num_bases=2)
    for weight, fans in [(layer.weight, 500), (layer.root, 500), (layer.comp, 5)]:
        bound = (6 / fans) ** 0.5
        assert 0.4 * bound < weight.abs().max() <= bound
    assert layer.bias.abs().max() == 0
