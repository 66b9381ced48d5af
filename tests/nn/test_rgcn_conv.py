"""What RGCNConv makes of relations that are grouped once, and what it refuses."""

import pytest
import torch
from layer_pairs import awkward_edges, edge_tensors_made

import gnnkern
from gnnkern.nn import Relations, RGCNConv

N, F_IN, F_OUT, R = 12, 6, 4, 5


def _typed(edges=None, relations=R):
    edges = awkward_edges() if edges is None else edges
    graph = gnnkern.Graph.from_edge_index(edges, N)
    return graph, torch.randint(relations, (graph.num_edges,))


def _star(outwards: bool) -> torch.Tensor:
    """One hub: few pairs on its side, many on the other."""
    spokes = torch.arange(1, N)
    edges = torch.stack([torch.zeros_like(spokes), spokes]).repeat(1, 3)
    return edges if outwards else edges.flip(0)


def test_relations_group_every_edge_once():
    graph, types = _typed()
    relations = Relations.of(graph, types, R)
    pairs = relations.gather.edge_index[1]
    src, dst = graph.edge_index
    assert torch.equal(relations.gather.edge_index[0], src)
    assert torch.equal(relations.merge.edge_index[1][pairs], dst)
    assert torch.equal(relations.pair_type[pairs], types)
    assert relations.num_pairs == len(torch.stack([types, dst]).unique(dim=1).T)
    counts = torch.bincount(relations.pair_type, minlength=R)
    assert torch.equal(relations.indptr.diff(), counts)
    sizes = torch.bincount(pairs)
    torch.testing.assert_close(relations.share, 1 / sizes[pairs].double())
    assert f"num_relations={R}, num_pairs={relations.num_pairs}" in repr(relations)


@pytest.mark.parametrize("edges", ["awkward", "out", "in"])
@pytest.mark.parametrize(
    "options", [{}, {"aggr": "sum"}, {"aggr": "max"}, {"num_blocks": 2}, {"num_bases": 3}], ids=str
)
def test_grouped_once_gives_the_same(edges, options):
    graph, types = _typed(None if edges == "awkward" else _star(edges == "out"))
    relations = Relations.of(graph, types, R)
    if edges == "out":
        assert relations.by_source.num_pairs < relations.num_pairs
    layer = RGCNConv(F_IN, F_OUT, R, **options).double()
    x = torch.randn(N, F_IN, dtype=torch.float64, requires_grad=True)
    expected, actual = layer(x, graph, types), layer(x, relations)
    torch.testing.assert_close(actual, expected)
    inputs = [x, *layer.parameters()]
    wanted = torch.autograd.grad(expected.square().sum(), inputs)
    torch.testing.assert_close(torch.autograd.grad(actual.square().sum(), inputs), wanted)
    assert edge_tensors_made(layer, x, relations, graph.num_edges) == []


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_types_in_order_of_destinations(dtype):
    edges = awkward_edges()
    edges = edges[:, edges[1].argsort(stable=True)]
    graph, types = _typed(edges)
    assert graph.edge_id is None
    layer, x = RGCNConv(F_IN, F_OUT, R), torch.randn(N, F_IN)
    torch.testing.assert_close(
        layer(x, graph, types.to(dtype)), layer(x, edges.flip(1), types.flip(0))
    )


def test_embeddings_without_features():
    graph, types = _typed()
    layer = RGCNConv(N, F_OUT, R)
    torch.testing.assert_close(layer(None, graph, types), layer(torch.eye(N), graph, types))
    ids = torch.randint(N, (N,))
    torch.testing.assert_close(layer(ids, graph, types), layer(torch.eye(N)[ids], graph, types))


def test_bad_arguments():
    graph, types = _typed()
    x = torch.randn(N, F_IN)
    with pytest.raises(ValueError, match="RGCNConv: aggr must be one of .* got 'std'"):
        RGCNConv(F_IN, F_OUT, R, aggr="std")
    with pytest.raises(ValueError, match="num_bases and num_blocks exclude each other"):
        RGCNConv(F_IN, F_OUT, R, num_bases=2, num_blocks=2)
    with pytest.raises(ValueError, match="in_channels must be a multiple of num_blocks=4, got 6"):
        RGCNConv(F_IN, F_OUT, R, num_blocks=4)
    layer = RGCNConv(F_IN, F_OUT, R)
    with pytest.raises(ValueError, match="RGCNConv: edge_type must be given beside edge_index"):
        layer(x, graph)
    with pytest.raises(ValueError, match="edge_type must be in .*num_relations=5"):
        layer(x, graph, types + 1)
    with pytest.raises(TypeError, match="edge_type must be an int32 or int64 tensor, got torch.f"):
        layer(x, graph, types.float())
    with pytest.raises(TypeError, match="edge_type must be an int32 or int64 tensor, got list"):
        layer(x, graph, types.tolist())
    with pytest.raises(ValueError, match=r"edge_type must have shape \[E=50\] on cpu, got \[49\]"):
        layer(x, graph, types[1:])
    with pytest.raises(ValueError, match="edge_index must have num_relations=5, got 6"):
        layer(x, Relations.of(graph, types, 6))
    with pytest.raises(ValueError, match="num_blocks needs x to be features, got node ids"):
        RGCNConv(N, F_OUT, R, num_blocks=2)(None, graph, types)
