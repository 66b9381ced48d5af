"""PyG's layers run as a whole: PNA, RGCN, and those that are a map and a sum."""

import copy

import pytest
import torch
from pyg_layers import DEGREES, E, F, N, assert_same, edges, mlp, normal, pyg
from torch import nn

import gnnkern


@pytest.fixture(autouse=True)
def _unpatched_after():
    gnnkern.unpatch_pyg()
    yield
    gnnkern.unpatch_pyg()


def pna(aggregators="mean min max std", scalers="identity amplification attenuation", **options):
    options = {"deg": DEGREES} | options
    return pyg.PNAConv(F, 24, aggregators.split(), scalers.split(), **options)


def narrow_mlp():
    return nn.Sequential(nn.Linear(F, 8), nn.Tanh(), nn.Linear(8, 24))


# name: the layer, which further inputs it takes, and as what it is counted, if at all.
LAYERS = {
    "PNA": (pna, (), "PNAConv"),
    "PNA towers": (lambda: pna(towers=4), (), "PNAConv"),
    "PNA divided": (lambda: pna(towers=2, divide_input=True, post_layers=2), (), "PNAConv"),
    "PNA others": (lambda: pna("var sum std", "linear inverse_linear"), (), "PNAConv"),
    "PNA trained": (lambda: pna(train_norm=True), (), "PNAConv"),
    "PNA edges": (lambda: pna(edge_dim=F, towers=2), ("edge_x",), None),
    "PNA layers": (lambda: pna(pre_layers=2), (), None),
    "RGCN": (lambda: pyg.RGCNConv(F, 24, 3), ("type",), "RGCNConv"),
    "RGCN narrow": (lambda: pyg.RGCNConv(F, 8, 3), ("type",), "RGCNConv"),
    "RGCN narrow sum": (lambda: pyg.RGCNConv(F, 8, 3, aggr="add"), ("type",), "RGCNConv"),
    "RGCN bases": (lambda: pyg.RGCNConv(F, 24, 3, num_bases=2), ("type",), "RGCNConv"),
    "RGCN blocks": (lambda: pyg.RGCNConv(F, 8, 3, num_blocks=4), ("type",), "RGCNConv"),
    "RGCN max": (lambda: pyg.RGCNConv(F, 8, 3, aggr="max"), ("type",), "RGCNConv"),
    "RGCN alone": (
        lambda: pyg.RGCNConv(F, 24, 4, root_weight=False, bias=False),
        ("type",),  # of which none is the fourth
        "RGCNConv",
    ),
    "SAGE": (lambda: pyg.SAGEConv(F, 24), (), "SAGEConv"),
    "SAGE narrow": (lambda: pyg.SAGEConv(F, 8, normalize=True), (), "SAGEConv"),
    "SAGE sum": (lambda: pyg.SAGEConv(F, 8, aggr="sum", project=True), (), "SAGEConv"),
    "SAGE alone": (lambda: pyg.SAGEConv(F, 8, root_weight=False, bias=False), (), "SAGEConv"),
    "SAGE max": (lambda: pyg.SAGEConv(F, 8, aggr="max"), (), None),
    "SAGE several": (lambda: pyg.SAGEConv(F, 8, aggr=["mean", "max", "std"]), (), None),
    "GraphConv": (lambda: pyg.GraphConv(F, 24), ("weight",), "GraphConv"),
    "GraphConv narrow": (lambda: pyg.GraphConv(F, 8, aggr="mean"), ("weight",), "GraphConv"),
    "GIN narrow": (lambda: pyg.GINConv(narrow_mlp(), train_eps=True), (), "GINConv"),
    "GIN wide": (lambda: pyg.GINConv(mlp(F)[:1]), (), "GINConv"),
    "GIN layer": (lambda: pyg.GINConv(nn.Linear(F, 8)), (), None),
}


def case(name, dtype=torch.float64):
    make, further, counted = LAYERS[name]
    torch.manual_seed(0)
    values = {
        "weight": normal(E, dtype=dtype).abs() + 0.5,
        "edge_x": normal(E, F, dtype=dtype),
        "type": torch.arange(E) * 7 % 3,
    }
    inputs = (normal(N, F, dtype=dtype), edges(), *(values[what] for what in further))
    return make().to(dtype), inputs, counted


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_give_the_same_with_gradients(name, dtype):
    layer, inputs, counted = case(name, dtype)
    state = copy.deepcopy(layer.state_dict())
    report = assert_same(layer, *inputs, dtype=dtype)
    assert list(state) == list(layer.state_dict())
    whole = {what: n for what, n in report.accelerated.items() if what.endswith("Conv")}
    assert whole == ({} if counted is None else {f"fused {counted}": 2})
    if counted is not None:
        assert not report.left, str(report)


@pytest.mark.parametrize("name", ["SAGE narrow", "GraphConv narrow", "RGCN narrow", "RGCN"])
def test_two_derivatives(name):
    layer, (x, *inputs), _ = case(name)

    def second():
        leaf = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(layer(leaf, *inputs).tanh().sum(), leaf, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), leaf)[0]

    expected = second()
    gnnkern.patch_pyg()
    torch.testing.assert_close(second(), expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda: pyg.SAGEConv((F, 6), 8),
        lambda: pyg.GraphConv((F, 6), 8),
        lambda: pyg.RGCNConv((F, 6), 8, 3),
        lambda: pyg.RGCNConv((F, 6), 24, 3),
    ],
    ids=["SAGE", "GraphConv", "RGCN narrow", "RGCN"],
)
def test_pairs_of_nodes(make):
    layer = make().double()
    x = (normal(N, F, dtype=torch.float64), normal(11, 6, dtype=torch.float64))
    further = (torch.arange(E) % 3,) if isinstance(layer, pyg.RGCNConv) else ()
    expected = layer(x, edges(), *further)
    gnnkern.patch_pyg()
    torch.testing.assert_close(layer(x, edges(), *further), expected)
    assert gnnkern.pyg_report().accelerated[f"fused {type(layer).__name__}"] == 1
    if not further:
        both = (x[0], None)
        gnnkern.unpatch_pyg()
        expected = layer(both, edges(), size=(N, 11))
        gnnkern.patch_pyg()
        torch.testing.assert_close(layer(both, edges(), size=(N, 11)), expected)


@pytest.mark.parametrize("name", ["PNA", "RGCN", "SAGE narrow", "GraphConv", "GIN narrow"])
def test_they_step_aside(name):
    layer, inputs, counted = case(name, torch.float32)
    expected = layer(*inputs)
    gnnkern.patch_pyg()
    seen = []
    handle = layer.register_message_forward_hook(lambda module, inputs, out: seen.append(out))
    torch.testing.assert_close(layer(*inputs), expected)
    assert seen
    handle.remove()
    inner = {"PNA": "pre_nns.0.0", "SAGE": "lin_l", "GraphConv": "lin_rel", "GIN": "nn"}.get(
        name.split()[0]
    )
    if inner is not None:
        handle = layer.get_submodule(inner).register_forward_hook(lambda m, i, out: 0 * out)
        assert not torch.allclose(layer(*inputs), expected)
        handle.remove()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(layer(*inputs)).all()
    bad = list(inputs)
    bad[1] = edges() + N
    with pytest.raises(IndexError):
        layer(*bad)
    with pytest.raises(TypeError):
        layer(*inputs, nothing=1)
    reasons = {why for what, why in gnnkern.pyg_report().left if what == f"fused {counted}"}
    assert {"hooks, or an explanation", "autocast", "arguments that PyG refuses"} <= reasons
    assert f"fused {counted}" not in gnnkern.pyg_report().accelerated


def test_types_that_do_not_exist_are_pygs():
    layer, (x, edge_index, _), _ = case("RGCN")
    gnnkern.patch_pyg()
    with pytest.raises(RuntimeError, match="out of bounds"):
        layer(x, edge_index, torch.arange(E) % 4)


def test_relations_of_ids_are_pygs():
    layer = pyg.RGCNConv(N, 8, 3)
    kinds = torch.arange(E) % 3
    expected = layer(None, edges(), kinds)
    gnnkern.patch_pyg()
    torch.testing.assert_close(layer(None, edges(), kinds), expected)
    assert ("fused RGCNConv", "no tensor") in gnnkern.pyg_report().left


def test_changed_types_of_edges_are_seen():
    layer, (x, edge_index, kinds), _ = case("RGCN")
    gnnkern.patch_pyg()
    layer(x, edge_index, kinds)
    kinds.zero_()
    actual = layer(x, edge_index, kinds)
    gnnkern.unpatch_pyg()
    torch.testing.assert_close(actual, layer(x, edge_index, kinds))
