"""PyG's attention layers patched at the level "fuse", against the same unpatched."""

import pytest
import torch
from pyg_layers import LAYERS, E, F, N, assert_same, edges, normal, pyg
from torch import Tensor

import gnnkern


@pytest.fixture(autouse=True)
def _unpatched_after():
    gnnkern.unpatch_pyg()
    yield
    gnnkern.unpatch_pyg()


ATTENTION = ("GATConv", "GATConv edges", "GATv2Conv", "TransformerConv", "TransformerConv edges")


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_layers_are_one_op(name):
    make, further = LAYERS[name]
    layer = make()
    inputs = (torch.randn(N, F), edges(), *(torch.randn(E, F) for _ in further))
    report = assert_same(layer, *inputs, dtype=torch.float32)
    assert report.accelerated[f"fused {type(layer).__name__}"] == 2
    assert not any(what.startswith("scatter") for what in report.accelerated)
    gnnkern.patch_pyg("ops")
    layer(*inputs)
    assert not any(what.startswith("fused") for what in gnnkern.pyg_report().accelerated)


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("bias", [True, False])
def test_autocast(name, bias):
    make, further = LAYERS[name]
    layer = make()
    layer.bias = layer.bias if bias and hasattr(layer, "bias") else None
    x = torch.randn(N, F, requires_grad=True)
    inputs = (x, edges(), *(torch.randn(E, F) for _ in further))

    def outcome():
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(*inputs)
        return out, *torch.autograd.grad(out.float().square().sum(), (x, *layer.parameters()))

    expected = outcome()
    gnnkern.patch_pyg()
    state = torch.get_rng_state()
    actual = outcome()
    assert torch.equal(state, torch.get_rng_state())
    assert gnnkern.pyg_report().accelerated == {f"fused {type(layer).__name__}": 1}
    # A gradient that softmax cancels is nothing but rounding.
    largest = max(float(theirs.detach().abs().max()) for theirs in expected)
    for mine, theirs in zip(actual, expected, strict=True):
        assert mine.dtype == theirs.dtype
        torch.testing.assert_close(mine.float(), theirs.float(), rtol=0.1, atol=0.02 * largest)


def test_attention_steps_aside():
    layer, x, edge_index = pyg.GATConv(F, 8, heads=2), torch.randn(N, F), edges()
    expected, (_, weights) = layer(x, edge_index, return_attention_weights=True)

    class Derived(pyg.GATConv):
        def message(self, x_j: Tensor, alpha: Tensor) -> Tensor:
            return 2 * alpha.unsqueeze(-1) * x_j

    derived = Derived(F, 8, heads=2)
    doubled = derived(x, edge_index)
    gnnkern.patch_pyg()
    out, (_, again) = layer(x, edge_index, return_attention_weights=True)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(again, weights)
    assert torch.equal(out, layer(x, edge_index))
    gnnkern.patch_pyg()
    torch.testing.assert_close(derived(x, edge_index), doubled)
    seen = []
    handle = layer.register_forward_hook(lambda module, inputs, out: seen.append(out))
    torch.testing.assert_close(layer(x, edge_index), expected)
    assert len(seen) == 1
    handle.remove()
    layer.message = lambda x_j, alpha: 0 * x_j
    assert not (layer(x, edge_index) - layer.bias).any()
    reasons = {why for what, why in gnnkern.pyg_report().left if what == "fused GATConv"}
    assert {"hooks, or an explanation", "methods of the layer's own"} <= reasons
    assert "fused GATConv" not in gnnkern.pyg_report().accelerated


@pytest.mark.parametrize("name", ["GATConv", "GATv2Conv"])
@pytest.mark.parametrize("fill", ["mean", "max", 0.5])
def test_loops_and_edge_features(name, fill):
    layer = getattr(pyg, name)(F, 8, heads=2, edge_dim=3, fill_value=fill, residual=True).double()
    edge_index = edges()
    edge_index[1, :4] = edge_index[0, :4]
    x, edge_x = (normal(*shape, dtype=torch.float64) for shape in ((N, F), (E, 3)))
    report = assert_same(layer, x, edge_index, edge_x)
    assert report.accelerated[f"fused {name}"] == 2


def test_attention_between_two_kinds_of_nodes():
    dtype = torch.float64
    x = (normal(N, F, dtype=dtype), normal(11, 6, dtype=dtype))
    for layer in (
        pyg.GATConv((F, 6), 8, heads=2, add_self_loops=False),
        pyg.GATv2Conv((F, 6), 8, heads=2, add_self_loops=True),
        pyg.TransformerConv((F, 6), 8, heads=2, beta=True),
    ):
        layer = layer.double()
        gnnkern.unpatch_pyg()
        expected = layer(x, edges())
        gnnkern.patch_pyg()
        torch.testing.assert_close(layer(x, edges()), expected)
        assert gnnkern.pyg_report().accelerated[f"fused {type(layer).__name__}"] == 1


def test_dropout_of_attention_while_training():
    layer = pyg.GATConv(F, 8, heads=2, dropout=0.5)
    x, edge_index = torch.randn(N, F), edges()
    gnnkern.patch_pyg()
    layer.eval()
    quiet = layer(x, edge_index)
    layer.train()
    mean = torch.stack([layer(x, edge_index) for _ in range(2000)]).mean(0)
    assert (layer(x, edge_index) - quiet).abs().max() > 1e-3
    torch.testing.assert_close(mean, quiet, rtol=0.2, atol=0.1)
