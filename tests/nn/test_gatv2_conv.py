"""GATv2Conv against PyG's layer of the same name."""

import pytest
import torch
from layer_pairs import DTYPES, assert_same_layer, awkward_edges

import gnnkern
from gnnkern.nn import GATv2Conv

N, N_DST, F_IN, F_DST, D, EDGE_DIM = 12, 9, 5, 4, 3, 2

CASES = {
    "default": {},
    "heads": {"heads": 4},
    "heads_mean": {"heads": 4, "concat": False},
    "slope": {"heads": 2, "negative_slope": 0.5},
    "no_loops": {"heads": 2, "add_self_loops": False},
    "no_bias": {"bias": False},
    "shared": {"heads": 2, "share_weights": True},
    "residual": {"heads": 2, "residual": True},
    "residual_mean": {"heads": 2, "residual": True, "concat": False},
    "dropout_off_in_eval": {"heads": 2, "dropout": 0.6},
}
FILL_VALUES = ["mean", "add", "max", "min", "mul", 0.5, torch.tensor([0.5, -2.0])]


def _x(nodes: int = N, width: int = F_IN) -> torch.Tensor:
    return torch.randn(nodes, width, dtype=torch.float64)


def _edge_attr(edges: torch.Tensor) -> torch.Tensor:  # [E, EDGE_DIM]
    return torch.randn(edges.shape[1], EDGE_DIM, dtype=torch.float64)


def _pair(pyg, in_channels, **options):
    return (
        GATv2Conv(in_channels, D, **options).eval(),
        pyg.GATv2Conv(in_channels, D, **options).eval(),
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_same_as_pyg(case, dtype):
    pyg = pytest.importorskip("torch_geometric.nn")
    ours, theirs = _pair(pyg, F_IN, **CASES[case])
    assert_same_layer(ours, theirs, _x(), awkward_edges(), (N, N), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("fill_value", FILL_VALUES, ids=str)
def test_edge_features_same_as_pyg(fill_value, dtype):
    pyg = pytest.importorskip("torch_geometric.nn")
    ours, theirs = _pair(pyg, F_IN, heads=2, edge_dim=EDGE_DIM, fill_value=fill_value)
    options = {"edge_attr": _edge_attr(awkward_edges())}
    assert_same_layer(ours, theirs, _x(), awkward_edges(), (N, N), dtype, **options)


def test_edge_features_without_loops_same_as_pyg():
    pyg = pytest.importorskip("torch_geometric.nn")
    ours, theirs = _pair(pyg, F_IN, heads=2, edge_dim=EDGE_DIM, add_self_loops=False)
    options = {"edge_attr": _edge_attr(awkward_edges())}
    assert_same_layer(ours, theirs, _x(), awkward_edges(), (N, N), torch.float64, **options)


def test_one_feature_per_edge_may_be_a_vector():
    pyg = pytest.importorskip("torch_geometric.nn")
    ours, theirs = _pair(pyg, F_IN, edge_dim=1, add_self_loops=False)
    options = {"edge_attr": _edge_attr(awkward_edges())[:, 0]}
    assert_same_layer(ours, theirs, _x(), awkward_edges(), (N, N), torch.float64, **options)


def test_edge_dim_without_edge_features_same_as_pyg():
    pyg = pytest.importorskip("torch_geometric.nn")
    ours, theirs = _pair(pyg, F_IN, heads=2, edge_dim=EDGE_DIM)
    assert_same_layer(ours, theirs, _x(), awkward_edges(), (N, N), torch.float64)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("options", [{}, {"residual": True}, {"add_self_loops": False}], ids=str)
@pytest.mark.parametrize("sizes", [(N, N_DST), (N_DST, N)], ids=str)
def test_bipartite_same_as_pyg(sizes, options, dtype):
    pyg = pytest.importorskip("torch_geometric.nn")
    ours, theirs = _pair(pyg, (F_IN, F_DST), heads=2, **options)
    x = (_x(sizes[0]), _x(sizes[1], F_DST))
    assert_same_layer(ours, theirs, x, awkward_edges(*sizes), sizes, dtype)


@pytest.mark.parametrize("share_weights", [False, True])
def test_bipartite_of_one_width_same_as_pyg(share_weights):
    pyg = pytest.importorskip("torch_geometric.nn")
    ours, theirs = _pair(pyg, F_IN, heads=2, share_weights=share_weights)
    x, edges = (_x(), _x(N_DST)), awkward_edges(N, N_DST)
    assert_same_layer(ours, theirs, x, edges, (N, N_DST), torch.float64)


def test_bipartite_edge_features_same_as_pyg():
    pyg = pytest.importorskip("torch_geometric.nn")
    ours, theirs = _pair(pyg, (F_IN, F_DST), heads=2, edge_dim=EDGE_DIM, fill_value=0.25)
    x, edges = (_x(), _x(N_DST, F_DST)), awkward_edges(N, N_DST)
    options = {"edge_attr": _edge_attr(edges)}
    assert_same_layer(ours, theirs, x, edges, (N, N_DST), torch.float64, **options)


@pytest.mark.parametrize("edge_dim", [None, EDGE_DIM])
def test_attention_weights_same_as_pyg(edge_dim):
    pyg = pytest.importorskip("torch_geometric.nn")
    ours, theirs = _pair(pyg, F_IN, heads=2, edge_dim=edge_dim, residual=True)
    edges = awkward_edges()
    options = {"return_attention_weights": True}
    if edge_dim is not None:
        options["edge_attr"] = _edge_attr(edges)
    assert_same_layer(ours, theirs, _x(), edges, (N, N), torch.float64, **options)
    x = _x()
    out, (walked, alpha) = ours(x, edges, **options)
    expected, _ = theirs(x, edges, **options)[1]
    assert torch.equal(walked, expected)
    graph = gnnkern.Graph.from_edge_index(edges, N)
    assert torch.equal(ours(x, graph, **options)[1][0], expected)
    total = torch.zeros(N, 2, dtype=x.dtype).index_add(0, walked[1], alpha)
    torch.testing.assert_close(total, torch.ones_like(total))
    torch.testing.assert_close(out, ours(x, edges, options.get("edge_attr")))


def test_sparse_matrix_same_as_edge_index():
    edges = awkward_edges().unique(dim=1)
    ones = torch.ones(edges.shape[1], dtype=torch.float64)
    adj = torch.sparse_coo_tensor(edges.flip(0), ones, (N, N)).coalesce()
    layer, x = GATv2Conv(F_IN, D, heads=2).double(), _x()
    torch.testing.assert_close(layer(x, adj), layer(x, edges))
    torch.testing.assert_close(layer(x, adj.to_sparse_csr()), layer(x, edges))


def test_dropout_is_drawn_from_the_seed_and_keeps_the_mean():
    edges = awkward_edges()
    graph = gnnkern.Graph.from_edge_index(edges, N)
    layer, x = GATv2Conv(F_IN, D, dropout=0.5).double(), _x()
    torch.manual_seed(7)
    first = layer(x, graph)
    torch.manual_seed(7)
    assert torch.equal(layer(x, graph), first)
    assert not torch.equal(layer(x, graph), first)
    with torch.no_grad():
        mean = torch.stack([layer(x, graph) for _ in range(3000)]).mean(0)
        torch.testing.assert_close(mean, layer.eval()(x, graph), atol=0.15, rtol=0)


@pytest.mark.parametrize("share_weights", [False, True])
@pytest.mark.parametrize("in_channels", [-1, (-1, -1)])
def test_lazy_width_is_taken_from_the_input(in_channels, share_weights):
    pyg = pytest.importorskip("torch_geometric.nn")
    options = {"heads": 2, "residual": True, "share_weights": share_weights}
    ours, theirs = _pair(pyg, in_channels, **options)
    x, edges = (_x().float(), _x(N_DST, F_IN).float()), awkward_edges(N, N_DST)
    ours(x, edges)
    theirs(x, edges)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x, edges), theirs(x, edges))


def test_initialised_like_glorot():
    layer = GATv2Conv(300, 40, heads=5)
    for tensor, fans in [(layer.lin_l.weight, 300 + 200), (layer.att, 5 + 40)]:
        bound = (6 / fans) ** 0.5
        assert 0.9 * bound < tensor.abs().max() <= bound
    for bias in (layer.bias, layer.lin_l.bias, layer.lin_r.bias):
        assert bias.abs().max() == 0


def test_no_edges_without_loops_leaves_the_bias():
    layer, x = GATv2Conv(F_IN, D, add_self_loops=False).double(), _x()
    torch.nn.init.ones_(layer.bias)
    out = layer(x, torch.empty(2, 0, dtype=torch.int64))
    torch.testing.assert_close(out, torch.ones(N, D, dtype=x.dtype))


def test_bad_arguments():
    with pytest.raises(ValueError, match="GATv2Conv: heads must be >= 1, got 0"):
        GATv2Conv(F_IN, D, heads=0)
    with pytest.raises(ValueError, match="GATv2Conv: edge_dim must be None or >= 1, got -1"):
        GATv2Conv(F_IN, D, edge_dim=-1)
    with pytest.raises(ValueError, match="GATv2Conv: fill_value must be .* got 'median'"):
        GATv2Conv(F_IN, D, fill_value="median")
    layer, x, edges = GATv2Conv(F_IN, D, edge_dim=EDGE_DIM), _x().float(), awkward_edges()
    with pytest.raises(ValueError, match=r"GATv2Conv: edge_attr must have shape \[num_edges="):
        layer(x, edges, torch.randn(3, EDGE_DIM))
    with pytest.raises(ValueError, match="GATv2Conv: edge_attr must be None where edge_dim is"):
        GATv2Conv(F_IN, D)(x, edges, torch.randn(edges.shape[1], EDGE_DIM))
    with pytest.raises(ValueError, match="GATv2Conv: x must hold features of destinations too"):
        layer((x, None), edges)
