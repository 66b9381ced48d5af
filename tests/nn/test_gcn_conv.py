"""GCNConv against PyG's layer of the same name."""

import pytest
import torch
from layer_pairs import DTYPES, assert_same_layer, awkward_edges

import gnnkern
from gnnkern.nn import GCNConv

N, F_IN, F_OUT = 12, 5, 7

CASES = {
    "default": {},
    "no_bias": {"bias": False},
    "no_loops": {"add_self_loops": False},
    "no_normalize": {"normalize": False},
}


def _x(width: int = F_IN) -> torch.Tensor:
    return torch.randn(N, width, dtype=torch.float64)


def _weight() -> torch.Tensor:  # [E]
    return torch.rand(awkward_edges().shape[1], dtype=torch.float64) + 0.1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("case", CASES)
def test_same_as_pyg(case, weighted, dtype):
    pyg = pytest.importorskip("torch_geometric.nn")
    options = {"edge_weight": _weight()} if weighted else {}
    ours, theirs = GCNConv(F_IN, F_OUT, **CASES[case]), pyg.GCNConv(F_IN, F_OUT, **CASES[case])
    assert_same_layer(ours, theirs, _x(), awkward_edges(), (N, N), dtype, **options)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_improved_same_as_pyg_with_weights(dtype):
    pyg = pytest.importorskip("torch_geometric.nn")
    ours, theirs = GCNConv(F_IN, F_OUT, improved=True), pyg.GCNConv(F_IN, F_OUT, improved=True)
    options = {"edge_weight": _weight()}
    assert_same_layer(ours, theirs, _x(), awkward_edges(), (N, N), dtype, **options)


def test_improved_loops_weigh_two_without_weights():
    edges = awkward_edges()
    layer, x = GCNConv(F_IN, F_OUT, improved=True).double(), _x()
    ones = torch.ones(edges.shape[1], dtype=torch.float64)
    torch.testing.assert_close(layer(x, edges), layer(x, edges, ones))
    assert not torch.allclose(layer(x, edges), GCNConv(F_IN, F_OUT).double()(x, edges))


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr], ids=str)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_sparse_matrix_same_as_pyg(layout):
    pyg = pytest.importorskip("torch_geometric.nn")
    edges = awkward_edges()
    edges = edges[:, edges[0] != edges[1]].flip(0)
    values = torch.rand(edges.shape[1], dtype=torch.float64) + 0.1
    adj = torch.sparse_coo_tensor(edges, values, (N, N)).coalesce()
    adj = adj.to_sparse_csr() if layout is torch.sparse_csr else adj
    ours, theirs = GCNConv(F_IN, F_OUT).double(), pyg.GCNConv(F_IN, F_OUT).double()
    ours.load_state_dict(theirs.state_dict())
    x = _x()
    torch.testing.assert_close(ours(x, adj), theirs(x, adj))


def test_sparse_features_same_as_dense():
    x = _x().relu()
    layer = GCNConv(F_IN, F_OUT).double()
    graph = gnnkern.Graph.from_edge_index(awkward_edges(), N)
    sparse, dense = layer(x.to_sparse_csr(), graph), layer(x, graph)
    torch.testing.assert_close(sparse, dense)
    by_sparse = torch.autograd.grad(sparse.square().sum(), layer.lin.weight)
    by_dense = torch.autograd.grad(dense.square().sum(), layer.lin.weight)
    torch.testing.assert_close(by_sparse, by_dense)


def test_halves_keep_the_degree_of_a_hub():
    # bfloat16 cannot count past 256: degrees have to be summed in a wider type.
    spokes = 1000
    edges = torch.stack([torch.arange(1, spokes + 1), torch.zeros(spokes, dtype=torch.int64)])
    layer, x = GCNConv(F_IN, F_OUT), torch.rand(spokes + 1, F_IN)
    torch.nn.init.ones_(layer.lin.weight)
    expected = layer(x, edges)[0]
    actual = layer.bfloat16()(x.bfloat16(), edges)[0].float()
    torch.testing.assert_close(actual, expected, rtol=0.03, atol=0.03)


def test_lazy_width_is_taken_from_the_input():
    pyg = pytest.importorskip("torch_geometric.nn")
    ours, theirs = GCNConv(-1, F_OUT), pyg.GCNConv(-1, F_OUT)
    x, edges = _x().float(), awkward_edges()
    assert ours(x, edges).shape == theirs(x, edges).shape
    assert ours.lin.weight.shape == (F_OUT, F_IN)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x, edges), theirs(x, edges))
    ours.reset_parameters()
    loaded = GCNConv(-1, F_OUT)
    loaded.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(loaded(x, edges), theirs(x, edges))


def test_no_edges():
    layer, x = GCNConv(F_IN, F_OUT).double(), _x()
    edges = torch.empty(2, 0, dtype=torch.int64)
    torch.testing.assert_close(layer(x, edges), x @ layer.lin.weight.T)


def test_isolated_node_gets_the_bias_without_loops():
    layer, x = GCNConv(F_IN, F_OUT, add_self_loops=False).double(), _x()
    torch.nn.init.ones_(layer.bias)
    torch.testing.assert_close(layer(x, awkward_edges())[3], torch.ones(F_OUT, dtype=x.dtype))


def test_bad_arguments():
    with pytest.raises(ValueError, match="GCNConv: add_self_loops=True needs normalize=True"):
        GCNConv(F_IN, F_OUT, add_self_loops=True, normalize=False)
    with pytest.raises(ValueError, match="in_channels must be >= 0"):
        GCNConv(-3, F_OUT)
    with pytest.raises(ValueError, match="GCNConv: x must be one tensor"):
        GCNConv(F_IN, F_OUT)((_x(), _x()), awkward_edges())
    with pytest.raises(TypeError, match="edge_index must be a gnnkern.Graph"):
        GCNConv(F_IN, F_OUT)(_x().float(), [[0], [1]])
    with pytest.raises(TypeError):
        GCNConv(F_IN, F_OUT)(_x().float(), awkward_edges().float())
