"""What a launcher is called with: addresses, numbers, and the stream of the tensor's device."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from gnnkern import _cuda
from gnnkern._cuda.launch import launch

STREAMS = {0: 111, 1: 222}


@pytest.fixture
def calls(monkeypatch):
    """Calls of the launcher `scale`: the device that is current, and the arguments."""
    seen = []
    current = [0]

    @contextmanager
    def guard(device):
        before, current[0] = current[0], device.index
        yield
        current[0] = before

    def stream_of(device):
        return SimpleNamespace(cuda_stream=STREAMS[device.index])

    monkeypatch.setattr(torch.cuda, "device", guard)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[0])
    monkeypatch.setattr(torch.cuda, "current_stream", stream_of)
    module = SimpleNamespace(scale=lambda *arguments: seen.append((current[0], *arguments)))
    with _cuda.stand_in(module):
        yield seen


def test_tensors_are_addresses_and_none_is_zero(calls):
    x = torch.ones(3)
    launch("scale", x.device, x[1:], None, 2, 0.5)
    assert calls == [(0, x.data_ptr() + 4, 0, 2, 0.5, 0)]


@pytest.mark.parametrize("index", STREAMS)
def test_the_device_is_current_and_its_stream_comes_last(calls, index):
    launch("scale", torch.device("cuda", index), 7)
    assert calls == [(index, 7, STREAMS[index])]
    assert torch.cuda.current_device() == 0
