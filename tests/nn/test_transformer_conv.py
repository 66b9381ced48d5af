"""TransformerConv against PyG's layer of the same name."""

import pytest
import torch
from layer_pairs import DTYPES, assert_same_layer, awkward_edges

import gnnkern
from gnnkern.nn import TransformerConv

N, N_DST, F_IN, F_DST, D, EDGE_DIM = 12, 9, 5, 4, 3, 2

CASES = {
    "default": {},
    "heads": {"heads": 4},
    "heads_mean": {"heads": 4, "concat": False},
    "beta": {"heads": 2, "beta": True},
    "beta_mean": {"heads": 2, "beta": True, "concat": False},
    "no_bias": {"bias": False},
    "no_root": {"heads": 2, "root_weight": False},
    "no_root_beta": {"heads": 2, "root_weight": False, "beta": True},
    "dropout_off_in_eval": {"heads": 2, "dropout": 0.6},
}


def _x(nodes: int = N, width: int = F_IN) -> torch.Tensor:
    return torch.randn(nodes, width, dtype=torch.float64)


def _edge_attr(edges: torch.Tensor) -> torch.Tensor:  # [E, EDGE_DIM]
    return torch.randn(edges.shape[1], EDGE_DIM, dtype=torch.float64)


def _pair(pyg, in_channels, **options):
    ours = TransformerConv(in_channels, D, **options).eval()
    return ours, pyg.TransformerConv(in_channels, D, **options).eval()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_same_as_pyg(case, dtype):
    pyg = pytest.importorskip("torch_geometric.nn")
    ours, theirs = _pair(pyg, F_IN, **CASES[case])
    assert_same_layer(ours, theirs, _x(), awkward_edges(), (N, N), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("options", [{}, {"heads": 2, "beta": True}], ids=str)
def test_edge_features_same_as_pyg(options, dtype):
    pyg = pytest.importorskip("torch_geometric.nn")
    ours, theirs = _pair(pyg, F_IN, edge_dim=EDGE_DIM, **options)
    edges = awkward_edges()
    given = {"edge_attr": _edge_attr(edges)}
    assert_same_layer(ours, theirs, _x(), edges, (N, N), dtype, **given)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("edge_dim", [None, EDGE_DIM])
@pytest.mark.parametrize("sizes", [(N, N_DST), (N_DST, N)], ids=str)
def test_bipartite_same_as_pyg(sizes, edge_dim, dtype):
    pyg = pytest.importorskip("torch_geometric.nn")
    ours, theirs = _pair(pyg, (F_IN, F_DST), heads=2, edge_dim=edge_dim)
    x, edges = (_x(sizes[0]), _x(sizes[1], F_DST)), awkward_edges(*sizes)
    given = {} if edge_dim is None else {"edge_attr": _edge_attr(edges)}
    assert_same_layer(ours, theirs, x, edges, sizes, dtype, **given)


@pytest.mark.parametrize("edge_dim", [None, EDGE_DIM])
@pytest.mark.parametrize("asked", [True, False])
def test_attention_weights_same_as_pyg(asked, edge_dim):
    pyg = pytest.importorskip("torch_geometric.nn")
    ours, theirs = _pair(pyg, F_IN, heads=2, edge_dim=edge_dim)
    edges = awkward_edges()
    options = {"return_attention_weights": asked}
    if edge_dim is not None:
        options["edge_attr"] = _edge_attr(edges)
    assert_same_layer(ours, theirs, _x(), edges, (N, N), torch.float64, **options)
    x = _x()
    walked, alpha = ours(x, edges, **options)[1]
    assert torch.equal(walked, edges)
    has_edges = torch.zeros(N, dtype=torch.bool).index_fill(0, edges[1], True)
    total = torch.zeros(N, 2, dtype=x.dtype).index_add(0, walked[1], alpha)
    torch.testing.assert_close(total, has_edges[:, None].expand(-1, 2).to(x.dtype))


def test_sparse_matrix_same_as_edge_index():
    edges = awkward_edges().unique(dim=1)
    ones = torch.ones(edges.shape[1], dtype=torch.float64)
    adj = torch.sparse_coo_tensor(edges.flip(0), ones, (N, N)).coalesce()
    layer, x = TransformerConv(F_IN, D, heads=2).double(), _x()
    torch.testing.assert_close(layer(x, adj), layer(x, edges))
    torch.testing.assert_close(layer(x, adj.to_sparse_csr()), layer(x, edges))


def test_dropout_is_drawn_from_the_seed_and_keeps_the_mean():
    edges = awkward_edges()
    graph = gnnkern.Graph.from_edge_index(edges, N)
    layer, x = TransformerConv(F_IN, D, dropout=0.5).double(), _x()
    torch.manual_seed(7)
    first = layer(x, graph)
    torch.manual_seed(7)
    assert torch.equal(layer(x, graph), first)
    assert not torch.equal(layer(x, graph), first)
    with torch.no_grad():
        mean = torch.stack([layer(x, graph) for _ in range(3000)]).mean(0)
        torch.testing.assert_close(mean, layer.eval()(x, graph), atol=0.15, rtol=0)


@pytest.mark.parametrize("in_channels", [-1, (-1, -1)])
def test_lazy_width_is_taken_from_the_input(in_channels):
    pyg = pytest.importorskip("torch_geometric.nn")
    ours, theirs = _pair(pyg, in_channels, heads=2)
    x, edges = (_x().float(), _x(N_DST, F_IN).float()), awkward_edges(N, N_DST)
    ours(x, edges)
    theirs(x, edges)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x, edges), theirs(x, edges))


def test_parameters_are_drawn_again():
    layer = TransformerConv(F_IN, D, beta=True, edge_dim=EDGE_DIM)
    before = [parameter.clone() for parameter in layer.parameters()]
    layer.reset_parameters()
    assert all(not torch.equal(a, b) for a, b in zip(before, layer.parameters(), strict=True))


def test_no_edges_leaves_the_skip_connection():
    layer, x = TransformerConv(F_IN, D).double(), _x()
    out = layer(x, torch.empty(2, 0, dtype=torch.int64))
    torch.testing.assert_close(out, layer.lin_skip(x))


def test_bad_arguments():
    with pytest.raises(ValueError, match="TransformerConv: heads must be >= 1, got 0"):
        TransformerConv(F_IN, D, heads=0)
    with pytest.raises(ValueError, match="TransformerConv: edge_dim must be None or >= 1, got -1"):
        TransformerConv(F_IN, D, edge_dim=-1)
    x, edges = _x().float(), awkward_edges()
    layer = TransformerConv(F_IN, D, edge_dim=EDGE_DIM)
    with pytest.raises(
        ValueError, match=r"TransformerConv: edge_attr must have shape \[num_edges="
    ):
        layer(x, edges, torch.randn(3, EDGE_DIM))
    with pytest.raises(ValueError, match="TransformerConv: edge_attr must .* got None"):
        layer(x, edges)
    with pytest.raises(ValueError, match="TransformerConv: edge_attr needs a layer made with"):
        TransformerConv(F_IN, D)(x, edges, _edge_attr(edges).float())
