"""HeteroConv against PyG's class of the same name."""

import warnings

import pytest
import torch
from layer_pairs import awkward_edges, same_state

import gnnkern
from gnnkern.nn import HeteroConv, SAGEConv

SIZES = {"paper": 12, "author": 9, "v1.venue": 8}
WIDTHS = {"paper": 4, "author": 3, "v1.venue": 2}
EDGE_TYPES = [
    ("paper", "cites", "paper"),
    ("author", "writes", "paper"),
    ("paper", "rev.writes", "author"),
    ("author", "visits", "v1.venue"),
    ("v1.venue", "hosts", "paper"),
]


def _convs(package):
    sage, graph, gat = package.SAGEConv, package.GraphConv, package.GATConv

    def pair(edge_type):
        return WIDTHS[edge_type[0]], WIDTHS[edge_type[2]]

    cites, writes, back, visits, hosts = EDGE_TYPES
    return {
        cites: package.GCNConv(4, 3),
        writes: sage(pair(writes), 3, aggr="max"),
        back: gat(pair(back), 3, add_self_loops=False),
        visits: graph(pair(visits), 3),
        hosts: sage(pair(hosts), 3),
    }


def _inputs():
    x = {name: torch.randn(SIZES[name], WIDTHS[name], dtype=torch.float64) for name in SIZES}
    edges = {kind: awkward_edges(SIZES[kind[0]], SIZES[kind[2]], 30) for kind in EDGE_TYPES}
    return x, edges


def _pair(aggr):
    pyg = pytest.importorskip("torch_geometric.nn")
    mine, theirs = HeteroConv(_convs(gnnkern.nn), aggr), pyg.HeteroConv(_convs(pyg), aggr)
    return same_state(mine, theirs, torch.float64)


@pytest.mark.parametrize("aggr", ["sum", "mean", "min", "max", "cat", None])
def test_same_as_pyg(aggr):
    mine, theirs = _pair(aggr)
    x, edges = _inputs()
    weight = torch.rand(edges[EDGE_TYPES[0]].shape[1], dtype=torch.float64)
    weights = {"edge_weight_dict": {EDGE_TYPES[0]: weight}}
    if aggr is None:
        # Of one width where they are stacked.
        del edges[EDGE_TYPES[4]]
    expected, actual = theirs(x, edges, **weights), mine(x, edges, **weights)
    assert list(actual) == list(expected)
    torch.testing.assert_close(actual, expected)
    graphs = {
        kind: gnnkern.Graph.from_edge_index(edge, (SIZES[kind[0]], SIZES[kind[2]]))
        for kind, edge in edges.items()
    }
    torch.testing.assert_close(mine(x, graphs, **weights), expected)
    sum(out.square().sum() for out in actual.values()).backward()
    sum(out.square().sum() for out in expected.values()).backward()
    grads = dict(theirs.named_parameters())
    for name, parameter in mine.named_parameters():
        if grads[name].grad is not None:
            torch.testing.assert_close(parameter.grad, grads[name].grad)


def test_relations_without_edges_are_left_out():
    mine, theirs = _pair("sum")
    x, edges = _inputs()
    some = {EDGE_TYPES[3]: edges[EDGE_TYPES[3]]}
    torch.testing.assert_close(mine(x, some), theirs(x, some))
    assert list(mine(x, some)) == ["v1.venue"]
    assert mine(x, {}) == {}


def test_modules_are_found_by_their_triple():
    mine, _ = _pair("sum")
    assert mine.convs[EDGE_TYPES[3]] is mine.convs["<author___visits___v1#venue>"]
    before = [parameter.clone() for parameter in mine.convs[EDGE_TYPES[1]].parameters()]
    mine.reset_parameters()
    after = mine.convs[EDGE_TYPES[1]].parameters()
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_bad_arguments():
    with pytest.raises(ValueError, match="HeteroConv: aggr must be one of .* got 'product'"):
        HeteroConv({}, aggr="product")
    with pytest.raises(TypeError, match="HeteroConv: convs must have .* as keys, got 'paper'"):
        HeteroConv({"paper": SAGEConv(3, 3)})
    with pytest.raises(ValueError, match=r"must have add_self_loops=False"):
        HeteroConv({("a", "to", "b"): gnnkern.nn.GATConv((3, 3), 3)})
    with pytest.warns(UserWarning, match=r"node types \['a'\] are no relation's destination"):
        layer = HeteroConv({("a", "to", "b"): SAGEConv(3, 3)})
    with pytest.raises(ValueError, match="keyword arguments must end with _dict, got 'x'"):
        layer(x={})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HeteroConv({("a", "to", "a"): SAGEConv(3, 3)})
