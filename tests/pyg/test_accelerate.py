"""One model on gnnkern's kernels, and others not."""

import copy
import io
import threading

import pytest
import torch
from torch import nn

import gnnkern

pyg = pytest.importorskip("torch_geometric.nn", reason="torch_geometric is not installed")

N, E, F = 12, 60, 20


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = pyg.SAGEConv(F, 24), pyg.GATConv(24, 8, heads=2)

    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).relu(), edge_index)


@pytest.fixture(autouse=True)
def _unpatched_after():
    gnnkern.unpatch_pyg()
    yield
    gnnkern.unpatch_pyg()


def calls():
    return gnnkern.pyg_report().num_accelerated


@pytest.fixture
def case():
    torch.manual_seed(0)
    model, x, edge_index = Net(), torch.randn(N, F), torch.randint(N, (2, E))
    return model, (x, edge_index), model(x, edge_index).detach()


def test_one_model_and_no_other(case):
    model, inputs, expected = case
    other, state = copy.deepcopy(model), copy.deepcopy(model.state_dict())
    parameters = list(model.parameters())
    assert gnnkern.accelerate(model) is model
    torch.testing.assert_close(model(*inputs), expected)
    made = calls()
    assert made > 0
    assert gnnkern.pyg_report().accelerated["fused GATConv"] == 1
    assert torch.equal(other(*inputs), expected)
    assert calls() == made
    assert list(state) == list(model.state_dict())
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    model(*inputs).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_twice_and_back(case):
    model, inputs, expected = case
    gnnkern.accelerate(gnnkern.accelerate(model))
    assert len(model._forward_pre_hooks) == len(model._forward_hooks) == 1
    assert gnnkern.decelerate(model) is model
    assert not model._forward_pre_hooks
    assert not model._forward_hooks
    before = calls()
    assert torch.equal(model(*inputs), expected)
    assert calls() == before


def test_copies_and_files(case):
    model, inputs, expected = case
    gnnkern.accelerate(model)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for one in (copy.deepcopy(model), torch.load(buffer, weights_only=False)):
        before = calls()
        torch.testing.assert_close(one(*inputs), expected)
        assert calls() > before


def test_a_layer_alone(case):
    _, (x, edge_index), _ = case
    layer = pyg.GATConv(F, 8)
    expected = layer(x, edge_index)
    torch.testing.assert_close(gnnkern.accelerate(layer)(x, edge_index), expected)
    assert gnnkern.pyg_report().accelerated["fused GATConv"] == 1


def test_an_error_inside_ends_it(case):
    model, (x, edge_index), _ = case
    gnnkern.accelerate(model)
    with pytest.raises(IndexError):
        model(x, edge_index + N)
    before = calls()
    pyg.SAGEConv(F, 24)(x, edge_index)
    assert calls() == before


def test_other_threads_are_not_concerned(case):
    model, (x, edge_index), _ = case
    layer = pyg.SAGEConv(F, 24)
    expected, seen = layer(x, edge_index), []

    def inside(module, inputs, output):
        before = calls()
        thread = threading.Thread(target=lambda: seen.append(layer(x, edge_index)))
        thread.start()
        thread.join()
        seen.append(calls() == before)

    model.first.register_forward_hook(inside)
    gnnkern.accelerate(model)
    model(x, edge_index)
    assert torch.equal(seen[0], expected)
    assert seen[1]


def test_beside_patches_of_everything(case):
    model, inputs, expected = case
    gnnkern.accelerate(model)
    with gnnkern.patched_pyg("ops"):
        model(*inputs)
        assert "fused GATConv" not in gnnkern.pyg_report().accelerated
    torch.testing.assert_close(model(*inputs), expected)
    assert gnnkern.pyg_report().accelerated["fused GATConv"] == 1
    gnnkern.patch_pyg()
    gnnkern.unpatch_pyg()
    torch.testing.assert_close(model(*inputs), expected)


def test_compiled(case):
    model, inputs, expected = case
    compiled = torch.compile(gnnkern.accelerate(model), backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), expected)


def test_what_is_no_module():
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module"):
        gnnkern.accelerate(torch.zeros(2))
