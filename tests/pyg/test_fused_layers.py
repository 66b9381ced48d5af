"""PyG's layers patched at the level "fuse", against the same unpatched."""

import copy

import pytest
import torch
from pyg_layers import LAYERS, E, F, N, assert_same, edges, normal, pyg
from torch import Tensor, nn

import gnnkern


@pytest.fixture(autouse=True)
def _unpatched_after():
    gnnkern.unpatch_pyg()
    yield
    gnnkern.unpatch_pyg()


class Custom(pyg.MessagePassing):
    """A layer whose message is a function of both ends, and of a weight and features of edges."""

    def __init__(self, message, aggr="sum"):
        super().__init__(aggr=aggr)
        self.of = message
        self.scale = nn.Parameter(torch.linspace(-1, 2, F))
        self.lin, self.wide = nn.Linear(F, 16), nn.Linear(2 * F, 16)

    def forward(self, x, edge_index, weight, edge_x):
        return self.propagate(edge_index, x=x, weight=weight, edge_x=edge_x)

    def message(self, x_i: Tensor, x_j: Tensor, weight: Tensor, edge_x: Tensor) -> Tensor:
        return self.of(self, x_i, x_j, weight, edge_x)


# name: message, reductions, how it is counted where nothing of the size of a message is made.
MESSAGES = {
    "copy": (lambda s, i, j, w, e: j, "sum mean max min", "copy"),
    "own": (lambda s, i, j, w, e: i, "sum mean max min", "copy"),
    "weight": (lambda s, i, j, w, e: w.view(-1, 1) * j, "sum mean max min", "mul"),
    "weight right": (lambda s, i, j, w, e: j * w.unsqueeze(-1), "sum", "mul"),
    "two weights": (lambda s, i, j, w, e: w.view(-1, 1) * (w.view(-1, 1) * j), "sum", "mul"),
    "features": (lambda s, i, j, w, e: e * j, "sum mean max", "mul"),
    "plus": (lambda s, i, j, w, e: j + e, "sum mean max min", "add"),
    "plus left": (lambda s, i, j, w, e: e + j, "mean", "add"),
    "minus": (lambda s, i, j, w, e: j - e, "sum max", "sub"),
    "from edge": (lambda s, i, j, w, e: e - j, "sum mean max min", "sub"),
    "divided": (lambda s, i, j, w, e: j / (e.abs() + 1), "sum max", "div"),
    "difference": (lambda s, i, j, w, e: i - j, "sum mean max min", "sub"),
    "difference of the other": (lambda s, i, j, w, e: j - i, "sum mean max min", "sub"),
    "sum of ends": (lambda s, i, j, w, e: i + j, "sum mean max min", "add"),
    "product of ends": (lambda s, i, j, w, e: i * j, "sum mean", "mul"),
    "own and edge": (lambda s, i, j, w, e: e - i, "sum mean max min", "sub"),
    "side by side": (lambda s, i, j, w, e: torch.cat([i, j - i], -1), "sum max min", "cat"),
    "with edges beside": (lambda s, i, j, w, e: torch.cat([e, j], -1), "mean max", "cat"),
    "mapped": (lambda s, i, j, w, e: s.lin(j).relu(), "sum max", "copy"),
    "mapped sum": (lambda s, i, j, w, e: s.lin(i + j), "mean max", "add"),
    "mapped difference": (lambda s, i, j, w, e: s.wide(torch.cat([i, j - i], -1)), "max", "add"),
    "mapped with edges": (lambda s, i, j, w, e: s.lin(j - e), "sum max", "add"),
    "mapped ends and edges": (
        lambda s, i, j, w, e: s.wide(torch.cat([i, j + e], -1)),
        "sum mean max",
        "add",
    ),
    "parts": (lambda s, i, j, w, e: _in_parts(s, i, j), "mean max", None),
    "square": (lambda s, i, j, w, e: j * j, "sum mean", "copy"),
    "power": (lambda s, i, j, w, e: j**2, "sum mean", "copy"),
    "scaled": (lambda s, i, j, w, e: 2 * j / 3 - 1, "mean", "copy"),
    "parameter": (lambda s, i, j, w, e: j * s.scale, "sum", "copy"),
    "activated": (lambda s, i, j, w, e: w.view(-1, 1) * j.relu(), "sum", "mul"),
    "viewed": (
        lambda s, i, j, w, e: (w.view(-1, 1, 1) * j.view(-1, 4, 5)).flatten(1),
        "sum",
        None,
    ),
    "dot": (lambda s, i, j, w, e: (i * j).sum(-1, keepdim=True) * j, "sum", "mul"),
    # What has to be made.
    "product of ends, extreme": (lambda s, i, j, w, e: i * j, "max", None),
    "mapped product": (lambda s, i, j, w, e: s.lin(j * e), "sum", None),
    "exponential": (lambda s, i, j, w, e: j.exp(), "sum max", None),
    "in place": (lambda s, i, j, w, e: j.add_(e).mul_(2), "sum", None),
    "in place, kept": (lambda s, i, j, w, e: (j.add_(e), j)[1], "sum", None),
    "looked at": (lambda s, i, j, w, e: j * (j.norm() > 0), "sum", None),
    "augmented": (lambda s, i, j, w, e: _augmented(j, e), "sum", None),
    "without history": (lambda s, i, j, w, e: _normalised(j), "sum", None),
    "through a function": (lambda s, i, j, w, e: _Double.apply(j), "sum", None),
    "item set": (lambda s, i, j, w, e: _with_item(j), "sum", None),
}


def _in_parts(s, i, j):
    """What a layer with towers does."""
    both = torch.cat([i.view(-1, 2, 10), j.view(-1, 2, 10)], -1)
    maps = s.lin.weight[:, :20], s.wide.weight[:, 20:]
    return torch.stack([nn.functional.linear(both[:, t], maps[t]) for t in (0, -1)], 1).flatten(1)


def _augmented(j, e):
    j += e
    return j


def _normalised(j):
    with torch.no_grad():
        size = j.abs().max()
    return j / size


def _with_item(j):
    j = j.clone()
    j[0] = 0
    return j


class _Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


CASES = [(name, reduce) for name, (_, reduces, _) in MESSAGES.items() for reduce in reduces.split()]


@pytest.mark.parametrize(("name", "reduce"), CASES)
def test_every_message(name, reduce):
    message, _, counted = MESSAGES[name]
    layer = Custom(message, reduce).double()
    dtype = torch.float64
    inputs = (
        normal(N, F, dtype=dtype),
        edges(),
        normal(E, dtype=dtype).abs() + 0.5,
        normal(E, F, dtype=dtype),
    )
    report = assert_same(layer, *inputs)
    if counted is not None:
        assert report.accelerated.get(f"fused {counted} {reduce}", 0) == 2, str(report)
        assert not any(what == "message" for what, _ in report.left), str(report)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_give_the_same_with_gradients(name, dtype):
    make, further = LAYERS[name]
    torch.manual_seed(0)
    layer = make().to(dtype)
    values = {
        "weight": normal(E, dtype=dtype).abs() + 0.5,
        "edge_x": normal(E, F, dtype=dtype),
        "type": torch.arange(E) % 3,
    }
    inputs = (normal(N, F, dtype=dtype), edges(), *(values[what] for what in further))
    state = copy.deepcopy(layer.state_dict())
    report = assert_same(layer, *inputs, dtype=dtype)
    assert report.num_accelerated > 0
    assert list(state) == list(layer.state_dict())


@pytest.mark.parametrize("name", ["GCNConv", "SAGEConv mean", "GraphConv"])
def test_two_derivatives(name):
    layer = LAYERS[name][0]().double()
    x, edge_index = normal(N, F, dtype=torch.float64), edges()

    def second():
        leaf = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(layer(leaf, edge_index).tanh().sum(), leaf, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), leaf)[0]

    expected = second()
    gnnkern.patch_pyg()
    torch.testing.assert_close(second(), expected)


def test_pairs_of_nodes_and_another_flow():
    dtype = torch.float64
    x = (normal(N, F, dtype=dtype), normal(11, 6, dtype=dtype))
    for layer in (
        pyg.SAGEConv((F, 6), 24),
        pyg.GraphConv((F, 6), 24),
        pyg.GATConv((F, 6), 8, heads=2, add_self_loops=False),
    ):
        layer = layer.double()
        gnnkern.unpatch_pyg()
        expected = layer(x, edges())
        gnnkern.patch_pyg()
        torch.testing.assert_close(layer(x, edges()), expected)
    for name in ("GCNConv", "GraphConv"):
        layer = getattr(pyg, name)(F, 24, flow="target_to_source").double()
        gnnkern.unpatch_pyg()
        assert_same(layer, normal(N, F, dtype=dtype), edges())


def test_a_changed_tensor_is_refused_rather_than_read_late():
    def message(s, i, j, w, e):
        s.features.mul_(2)
        return j

    layer = Custom(message)
    layer.features = torch.randn(N, F)
    gnnkern.patch_pyg()
    with pytest.raises(RuntimeError, match="changed in place after messages were gathered"):
        layer(layer.features, edges(), torch.ones(E), torch.ones(E, F))


def test_errors_are_pygs():
    layer, x = pyg.SAGEConv(F, 24), torch.randn(N, F)
    for bad in (-1, N):
        edge_index = edges()
        edge_index[0, 3] = bad
        messages = []
        for patch in (gnnkern.unpatch_pyg, gnnkern.patch_pyg):
            patch()
            with pytest.raises(IndexError) as caught:
                layer(x, edge_index)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]


def test_hooks_and_explanations_see_messages():
    layer, x = pyg.GraphConv(F, 24), torch.randn(N, F)
    seen = []
    layer.register_message_forward_hook(lambda module, inputs, out: seen.append(out))
    gnnkern.patch_pyg()
    layer(x, edges())
    assert type(seen[0]) is Tensor
    assert gnnkern.pyg_report().left["gather", "hooks on messages, or an explanation"] == 1


def test_static_graphs_and_integers():
    layer = pyg.SAGEConv(F, 24)
    x = torch.randn(3, N, F)
    expected = layer(x, edges())
    gnnkern.patch_pyg()
    torch.testing.assert_close(layer(x, edges()), expected)
    assert gnnkern.pyg_report().left["gather", "nodes in another dimension than the first"] == 1


def test_autocast_keeps_pygs_dtypes():
    layer, x = pyg.GCNConv(F, 24), torch.randn(N, F)
    with torch.autocast("cpu", torch.bfloat16):
        expected = layer(x, edges())
        gnnkern.patch_pyg()
        actual = layer(x, edges())
    assert actual.dtype == expected.dtype
    torch.testing.assert_close(actual, expected, rtol=3e-2, atol=3e-2)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_scripted_and_compiled_layers():
    layer, x = pyg.GCNConv(F, 24), torch.randn(N, F)
    expected = layer(x, edges())
    gnnkern.patch_pyg()
    torch.testing.assert_close(torch.jit.script(layer)(x, edges()), expected)
    for layer in (pyg.SAGEConv(F, 24), pyg.GATConv(F, 8)):
        gnnkern.unpatch_pyg()
        expected = layer(x, edges())
        gnnkern.patch_pyg()
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x, edges()), expected)


class OneLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = pyg.SAGEConv((-1, -1), 8)

    def forward(self, x, edge_index):
        return self.conv(x, edge_index).relu()


def test_heterogeneous_models_and_small_batches():
    from torch_geometric.data import HeteroData
    from torch_geometric.loader import DataLoader

    torch.manual_seed(0)
    samples = []
    for _ in range(6):
        data = HeteroData()
        data["a"].x, data["b"].x = torch.randn(N, F), torch.randn(N, F)
        data["a", "to", "b"].edge_index = torch.randint(N, (2, E))
        data["b", "back", "a"].edge_index = torch.randint(N, (2, E))
        samples.append(data)
    model = pyg.to_hetero(OneLayer(), samples[0].metadata())
    conv = pyg.HeteroConv(
        {
            ("a", "to", "b"): pyg.GATConv((F, F), 8, add_self_loops=False),
            ("b", "back", "a"): pyg.SAGEConv(F, 8),
        }
    )

    def run():
        outs = []
        for batch in DataLoader(samples, batch_size=2):
            for one in (model, conv):
                out = one(batch.x_dict, batch.edge_index_dict)
                outs += [out["a"].detach(), out["b"].detach()]
        return outs

    expected = run()
    gnnkern.patch_pyg()
    torch.testing.assert_close(run(), expected)


def test_threads_and_inference_mode():
    layer, x, edge_index = pyg.GCNConv(F, 24), torch.randn(N, F), edges()
    expected = layer(x, edge_index).detach()
    gnnkern.patch_pyg()
    with torch.inference_mode():
        for _ in range(3):
            torch.testing.assert_close(layer(x, edge_index), expected)
            torch.testing.assert_close(layer(x.clone(), edge_index.clone()), expected)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, edge_index), expected)


def test_patched_for_a_block():
    from torch_geometric.nn.conv.message_passing import MessagePassing

    original = MessagePassing._index_select_safe
    with gnnkern.patched_pyg():
        assert MessagePassing._index_select_safe is not original
        with gnnkern.patched_pyg("ops"):
            assert MessagePassing._index_select_safe is original
        assert MessagePassing._index_select_safe is not original
    assert MessagePassing._index_select_safe is original
