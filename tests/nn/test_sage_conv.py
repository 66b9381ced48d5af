"""SAGEConv against PyG's layer of the same name."""

import pytest
import torch
from layer_pairs import DTYPES, assert_same_layer, awkward_edges

import gnnkern
from gnnkern.nn import SAGEConv

N, N_DST, F_IN, F_DST = 12, 9, 5, 4

CASES = {
    "mean": {},
    "max": {"aggr": "max"},
    "min": {"aggr": "min"},
    "sum": {"aggr": "sum"},
    "add": {"aggr": "add"},
    "normalize": {"normalize": True},
    "no_root": {"root_weight": False},
    "project": {"project": True},
    "no_bias": {"bias": False},
}


def _x(nodes: int = N, width: int = F_IN) -> torch.Tensor:
    return torch.randn(nodes, width, dtype=torch.float64)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [3, 7], ids=["narrower", "wider"])
@pytest.mark.parametrize("case", CASES)
def test_same_as_pyg(case, width, dtype):
    pyg = pytest.importorskip("torch_geometric.nn")
    ours, theirs = SAGEConv(F_IN, width, **CASES[case]), pyg.SAGEConv(F_IN, width, **CASES[case])
    assert_same_layer(ours, theirs, _x(), awkward_edges().unique(dim=1), (N, N), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("aggr", ["mean", "max", "sum"])
@pytest.mark.parametrize("with_dst", [True, False], ids=["pair", "source_only"])
def test_bipartite_same_as_pyg(aggr, with_dst, dtype):
    pyg = pytest.importorskip("torch_geometric.nn")
    sizes = (F_IN, F_DST)
    ours, theirs = SAGEConv(sizes, 3, aggr=aggr), pyg.SAGEConv(sizes, 3, aggr=aggr)
    x = (_x(), _x(N_DST, F_DST) if with_dst else None)
    edges = awkward_edges(N, N_DST).unique(dim=1)
    options = {"size": (N, N_DST)}
    assert_same_layer(ours, theirs, x, edges, (N, N_DST), dtype, **options)


def test_sparse_matrix_same_as_edge_index():
    edges = awkward_edges().unique(dim=1)
    ones = torch.ones(edges.shape[1], dtype=torch.float64)
    adj = torch.sparse_coo_tensor(edges.flip(0), ones, (N, N)).coalesce()
    layer, x = SAGEConv(F_IN, 3).double(), _x()
    torch.testing.assert_close(layer(x, adj), layer(x, edges))
    torch.testing.assert_close(layer(x, adj.to_sparse_csr()), layer(x, edges))


@pytest.mark.parametrize("in_channels", [-1, (-1, -1)])
def test_lazy_width_is_taken_from_the_input(in_channels):
    pyg = pytest.importorskip("torch_geometric.nn")
    ours, theirs = SAGEConv(in_channels, 3), pyg.SAGEConv(in_channels, 3)
    x = (_x().float(), _x(N_DST, F_IN).float())
    edges = awkward_edges(N, N_DST)
    ours(x, edges)
    theirs(x, edges)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x, edges), theirs(x, edges))


def test_no_edges_leaves_bias_and_root():
    layer, x = SAGEConv(F_IN, 3).double(), _x()
    expected = layer.lin_l.bias + x @ layer.lin_r.weight.T
    torch.testing.assert_close(layer(x, torch.empty(2, 0, dtype=torch.int64)), expected)


def test_initialised_like_torch_linear():
    torch.manual_seed(5)
    layer = SAGEConv(300, 200)
    bound = 300**-0.5
    for parameter in layer.parameters():
        assert parameter.abs().max() <= bound
        assert parameter.abs().max() > 0.9 * bound


def test_bad_arguments():
    with pytest.raises(ValueError, match="SAGEConv: aggr must be one of sum.*got 'median'"):
        SAGEConv(F_IN, 3, aggr="median")
    with pytest.raises(ValueError, match="project=True needs in_channels > 0, got -1"):
        SAGEConv(-1, 3, project=True)
    graph = gnnkern.Graph.from_edge_index(awkward_edges(), N)
    with pytest.raises(ValueError, match=r"x of the destinations must have shape \[num_dst=12, F"):
        SAGEConv(F_IN, 3)((_x().float(), _x(1).float()), graph)
    with pytest.raises(ValueError, match=r"x must have shape \[num_src=12"):
        SAGEConv(F_IN, 3)((_x(N + 1).float(), _x().float()), graph)
