"""An operator is called past torch's dispatcher only where nobody looks at it."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import gnnkern
from gnnkern.ops import _operator

g = gnnkern.Graph.from_edge_index(torch.tensor([[0, 1, 2], [1, 2, 0]]), 3)


class Seen(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


class Subclass(torch.Tensor):
    pass


@pytest.fixture
def observed(monkeypatch):
    """What every call of an operator was taken for."""
    answers = []
    is_observed = _operator._is_observed

    def spy(arguments):
        answers.append(is_observed(arguments))
        return answers[-1]

    monkeypatch.setattr(_operator, "_is_observed", spy)
    return answers


def test_a_plain_call_goes_past_the_dispatcher(observed):
    gnnkern.spmm(g, torch.ones(3, 4))
    gnnkern.spmm(g, torch.nn.Parameter(torch.ones(3, 4))).sum().backward()
    assert observed and not any(observed)


def test_a_mode_sees_the_operator():
    with Seen() as seen:
        gnnkern.spmm(g, torch.ones(3, 4))
    assert "gnnkern.spmm.default" in seen.names


def test_the_profiler_sees_the_operator():
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        gnnkern.spmm(g, torch.ones(3, 4))
    assert "gnnkern::spmm" in {event.key for event in profile.key_averages()}


def test_a_tracer_sees_the_operator():
    traced = torch.jit.trace(lambda x: gnnkern.spmm(g, x), torch.ones(3, 4), check_trace=False)
    assert "gnnkern::spmm" in str(traced.graph)


def test_a_subclass_goes_through_the_dispatcher(observed):
    out = gnnkern.spmm(g, torch.ones(3, 4).as_subclass(Subclass))
    assert observed == [True]
    assert torch.equal(out.as_subclass(torch.Tensor), torch.ones(3, 4))


def test_make_fx_records_the_operator():
    from torch.fx.experimental.proxy_tensor import make_fx

    recorded = make_fx(lambda x: gnnkern.spmm(g, x))(torch.ones(3, 4))
    assert "gnnkern.spmm.default" in recorded.code
