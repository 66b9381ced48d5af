"""PyG's layers patched at the level "fuse", against the same unpatched."""

import copy

import pytest
import torch
from torch import Tensor, nn

import gnnkern

pyg = pytest.importorskip("torch_geometric.nn", reason="torch_geometric is not installed")

N, E, F = 12, 60, 20


@pytest.fixture(autouse=True)
def _unpatched_after():
    gnnkern.unpatch_pyg()
    yield
    gnnkern.unpatch_pyg()


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


class Custom(pyg.MessagePassing):
    """A layer whose message is a function of both ends, and of a weight and features of edges."""

    def __init__(self, message, aggr="sum"):
        super().__init__(aggr=aggr)
        self.of = message
        self.scale = nn.Parameter(torch.linspace(-1, 2, F))

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
    "difference": (lambda s, i, j, w, e: i - j, "max min", "sub"),
    "difference of the other": (lambda s, i, j, w, e: j - i, "max min", "sub"),
    "sum of ends": (lambda s, i, j, w, e: i + j, "max min", "add"),
    "side by side": (lambda s, i, j, w, e: torch.cat([i, j - i], -1), "max min", "cat"),
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
    "product of ends": (lambda s, i, j, w, e: i * j, "sum", None),
    "exponential": (lambda s, i, j, w, e: j.exp(), "sum max", None),
    "in place": (lambda s, i, j, w, e: j.add_(e).mul_(2), "sum", None),
    "in place, kept": (lambda s, i, j, w, e: (j.add_(e), j)[1], "sum", None),
    "looked at": (lambda s, i, j, w, e: j * (j.norm() > 0), "sum", None),
    "augmented": (lambda s, i, j, w, e: _augmented(j, e), "sum", None),
    "without history": (lambda s, i, j, w, e: _normalised(j), "sum", None),
    "through a function": (lambda s, i, j, w, e: _Double.apply(j), "sum", None),
    "item set": (lambda s, i, j, w, e: _with_item(j), "sum", None),
}


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
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x, edge_index).dtype in (torch.float32, torch.bfloat16)
    layer.message = lambda x_j, alpha: 0 * x_j
    assert not (layer(x, edge_index) - layer.bias).any()
    reasons = {why for what, why in gnnkern.pyg_report().left if what == "fused GATConv"}
    assert {"hooks, or an explanation", "autocast", "methods of the layer's own"} <= reasons
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
