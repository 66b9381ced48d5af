"""PyG's layers with inputs, and the comparison of patched with unpatched ones."""

import pytest
import torch
from torch import Tensor, nn

import gnnkern

pyg = pytest.importorskip("torch_geometric.nn", reason="torch_geometric is not installed")

N, E, F = 12, 60, 20


def edges():
    generator = torch.Generator().manual_seed(3)
    # Node 11 has no edges in, node 10 none out, and one edge comes twice.
    edge_index = torch.stack(
        [
            torch.randint(0, 10, (E,), generator=generator),
            torch.randint(0, 11, (E,), generator=generator),
        ]
    )
    edge_index[:, -1] = edge_index[:, 0]
    return edge_index


def normal(*shape, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def outcome(layer, *inputs):
    """Result, and gradients of inputs and parameters."""
    leaves = [
        x.clone().requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x
        for x in inputs
    ]
    layer.zero_grad()
    out = layer(*leaves)
    weight = normal(*out.shape, dtype=out.dtype, seed=7)
    (out * weight).sum().backward()
    grads = [x.grad for x in leaves if isinstance(x, Tensor) and x.requires_grad]
    grads += [p.grad for p in layer.parameters()]
    return [out.detach(), *(None if g is None else g.clone() for g in grads)]


def assert_same(layer, *inputs, dtype=torch.float64, twice=True):
    expected = outcome(layer, *inputs)
    gnnkern.patch_pyg("fuse")
    close = {"rtol": 1e-10, "atol": 1e-10} if dtype == torch.float64 else {}
    if dtype == torch.float32:
        close = {"rtol": 2e-4, "atol": 2e-5}
    for _ in range(2 if twice else 1):
        torch.manual_seed(0)
        actual = outcome(layer, *inputs)
        for mine, theirs in zip(actual, expected, strict=True):
            if theirs is None:
                assert mine is None or not mine.any()
            else:
                assert type(mine) is type(theirs)
                torch.testing.assert_close(mine, theirs, **close)
    return gnnkern.pyg_report()


def mlp(width):
    return nn.Sequential(nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, F))


DEGREES = torch.bincount(torch.bincount(edges()[1], minlength=N))
# name: the layer, and which further inputs it takes.
LAYERS = {
    "GCNConv": (lambda: pyg.GCNConv(F, 24), ()),
    "GCNConv weighted": (lambda: pyg.GCNConv(F, 24), ("weight",)),
    "SAGEConv mean": (lambda: pyg.SAGEConv(F, 24), ()),
    "SAGEConv max": (lambda: pyg.SAGEConv(F, 24, aggr="max"), ()),
    "GraphConv": (lambda: pyg.GraphConv(F, 24), ("weight",)),
    "GINConv": (lambda: pyg.GINConv(mlp(F), train_eps=True), ()),
    "GINEConv": (lambda: pyg.GINEConv(mlp(F), edge_dim=F), ("edge_x",)),
    "GATConv": (lambda: pyg.GATConv(F, 8, heads=3), ()),
    "GATConv edges": (lambda: pyg.GATConv(F, 8, heads=3, edge_dim=F), ("edge_x",)),
    "GATv2Conv": (lambda: pyg.GATv2Conv(F, 8, heads=3), ()),
    "TransformerConv": (lambda: pyg.TransformerConv(F, 8, heads=3), ()),
    "TransformerConv edges": (
        lambda: pyg.TransformerConv(F, 8, heads=3, edge_dim=F),
        ("edge_x",),
    ),
    "EdgeConv": (lambda: pyg.EdgeConv(mlp(2 * F)), ()),
    "PNAConv": (
        lambda: pyg.PNAConv(
            F,
            24,
            ["mean", "min", "max", "std"],
            ["identity", "amplification", "attenuation"],
            DEGREES,
            towers=2,
        ),
        (),
    ),
    "RGCNConv": (lambda: pyg.RGCNConv(F, 24, 3), ("type",)),
    "RGCNConv bases": (lambda: pyg.RGCNConv(F, 24, 3, num_bases=2), ("type",)),
    "RGATConv": (lambda: pyg.RGATConv(F, 8, 3, heads=2), ("type",)),
    "SuperGATConv": (lambda: pyg.SuperGATConv(F, 8, heads=3), ()),
    "APPNP": (lambda: pyg.APPNP(3, 0.1), ()),
    "SGConv": (lambda: pyg.SGConv(F, 24, K=2), ()),
    "TAGConv": (lambda: pyg.TAGConv(F, 24), ()),
    "ChebConv": (lambda: pyg.ChebConv(F, 24, K=3), ()),
    "ARMAConv": (lambda: pyg.ARMAConv(F, 24), ()),
    "TransformerConv mean": (lambda: pyg.TransformerConv(F, 8, heads=3, concat=False), ()),
    "ResGatedGraphConv": (lambda: pyg.ResGatedGraphConv(F, 24), ()),
    "FiLMConv": (lambda: pyg.FiLMConv(F, 24), ()),
    "GENConv": (lambda: pyg.GENConv(F, 24), ()),
    "LEConv": (lambda: pyg.LEConv(F, 24), ()),
    "MFConv": (lambda: pyg.MFConv(F, 24), ()),
    "CGConv": (lambda: pyg.CGConv(F), ()),
}
