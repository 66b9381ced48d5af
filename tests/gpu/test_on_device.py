"""What only a GPU can show: streams, captured graphs, several devices, hubs, equal bits."""

from functools import lru_cache

import pytest
import torch
from helpers.checks import same_bits, value_and_gradients
from helpers.public_calls import NAMES, public_calls
from helpers.tolerance import assert_as_good_as_torch

import gnnkern
from gnnkern.backends import BackendUnavailable
from gnnkern.data import hub, power_law

pytestmark = pytest.mark.gpu

each_op = pytest.mark.parametrize("name", NAMES)

# Cycles of about a tenth of a second: longer than any launch takes to be enqueued.
BUSY_CYCLES = 200_000_000
REPETITIONS = 10


DEVICE = "cuda"


@lru_cache
def skewed(device):
    data = power_law(3000, 60_000, 2500)
    return gnnkern.Graph.from_edge_index(data.edge_index.to(device), 3000).prepare()


def call_of(name, backend, device=None):
    """The op and its input; an op without kernels of the backend is skipped."""
    device = device or DEVICE
    call = public_calls(skewed(device), backend)[name]
    x = torch.randn(call.shape, generator=torch.Generator().manual_seed(0)).to(device)
    try:
        call.run(x)
    except BackendUnavailable as reason:
        pytest.skip(str(reason))
    return call.run, x


@each_op
def test_values_and_gradients_are_those_of_the_reference(name, backend):
    run, x = call_of(name, backend)
    plain_run, exact_run = (
        public_calls(skewed(DEVICE), "reference", dtype)[name].run
        for dtype in (torch.float32, torch.float64)
    )
    actual, plain = value_and_gradients(run, (x,)), value_and_gradients(plain_run, (x,))
    exact = value_and_gradients(exact_run, (x.double(),))
    for what, *results in zip(("out", "gradient"), actual, plain, exact, strict=True):
        terms = max(float(e[e.isfinite()].abs().max()) for e in exact)
        assert_as_good_as_torch(*results, what=what, terms=terms)


@each_op
def test_the_bits_are_the_same_on_repetition_beside_other_work(name, backend):
    run, x = call_of(name, backend)
    first = value_and_gradients(run, (x,))
    other, noise = torch.cuda.Stream(), torch.randn(2048, 2048, device="cuda")
    for _ in range(REPETITIONS):
        # What runs beside it moves its programs between multiprocessors.
        with torch.cuda.stream(other):
            for _ in range(20):
                noise @ noise
        again = value_and_gradients(run, (x,))
        for a, b in zip(first, again, strict=True):
            assert same_bits(a, b)
    torch.cuda.synchronize()


@each_op
def test_it_runs_on_the_current_stream(name, backend):
    run, x = call_of(name, backend)
    expected = value_and_gradients(run, (x,))
    stale = torch.full_like(x, float("nan"))
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(BUSY_CYCLES)
        # A kernel on another stream would read the values from before.
        stale.copy_(x)
        actual = value_and_gradients(run, (stale,))
    stream.synchronize()
    for a, b in zip(expected, actual, strict=True):
        assert same_bits(a, b)


@each_op
def test_a_captured_graph_computes_with_new_values(name, backend):
    run, x = call_of(name, backend)
    static, new = x.clone(), x.flip(0).contiguous()
    expected = run(new)
    warm = torch.cuda.Stream()
    warm.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm), torch.no_grad():
        run(static)
    torch.cuda.current_stream().wait_stream(warm)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured), torch.no_grad():
        out = run(static)
    static.copy_(new)
    captured.replay()
    torch.cuda.synchronize()
    assert same_bits(out, expected)


@each_op
def test_a_captured_training_step_computes_with_new_values(name, backend):
    run, x = call_of(name, backend)
    static, new = x.clone().requires_grad_(), x.flip(0).contiguous()
    upstream = torch.randn_like(run(x))

    def step(tensor):
        (gradient,) = torch.autograd.grad(run(tensor), tensor, upstream)
        return gradient

    expected = step(new.clone().requires_grad_())
    warm = torch.cuda.Stream()
    warm.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm):
        step(static)
    torch.cuda.current_stream().wait_stream(warm)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        gradient = step(static)
    with torch.no_grad():
        static.copy_(new)
    captured.replay()
    torch.cuda.synchronize()
    assert same_bits(gradient, expected)


@each_op
def test_nothing_waits_for_the_device(name, backend):
    run, x = call_of(name, backend)
    value_and_gradients(run, (x,))
    x = x.clone().requires_grad_()
    upstream = torch.ones_like(run(x))
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.autograd.grad(run(x), x, upstream)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@each_op
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_a_device_that_is_not_the_current_one(name, backend):
    run, x = call_of(name, backend)
    expected = value_and_gradients(run, (x,))
    run, x = call_of(name, backend, "cuda:1")
    assert torch.cuda.current_device() == 0
    for a, b in zip(expected, value_and_gradients(run, (x,)), strict=True):
        assert b.device == torch.device("cuda", 1)
        assert same_bits(a.cpu(), b.cpu())


# Its code generator takes seconds for each: the op tests compile all of them without it.
@pytest.mark.parametrize("name", ["spmm_max", "gat_attention", "segment_softmax"])
def test_it_is_compiled_without_a_break(name, backend):
    run, x = call_of(name, backend)
    torch.compiler.reset()
    compiled = torch.compile(lambda x: 2 * run(x * 1.0), fullgraph=True)
    for a, b in zip(
        value_and_gradients(compiled, (x,)),
        value_and_gradients(lambda x: 2 * run(x * 1.0), (x,)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


# -- a hub -----------------------------------------------------------------------------------------

HUB_EDGES = 228_990


@lru_cache
def hub_graph():
    data = hub(20_000, 400_000, HUB_EDGES)
    return gnnkern.Graph.from_edge_index(data.edge_index.to(DEVICE), 20_000).prepare()


@pytest.mark.parametrize("name", ["spmm_sum", "spmm_max", "edge_softmax", "gat_attention"])
def test_a_hub_is_as_right_as_any_row(name, backend):
    g = hub_graph()
    assert g.max_degree == HUB_EDGES
    try:
        call = public_calls(g, backend)[name]
        x = torch.randn(call.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
        actual = call.run(x)
    except BackendUnavailable as reason:
        pytest.skip(str(reason))
    exact = public_calls(g, "reference", torch.float64)[name].run(x.double())
    middle = (g.num_dst - 1) // 2
    of_hub = g.edge_index[1] == middle if name == "edge_softmax" else middle
    for part in (slice(None), of_hub):
        a, b = actual[part].double(), exact[part]
        assert (a - b).norm() <= 1e-5 * b.norm()


def test_a_sum_over_a_hub_is_that_in_float64(backend):
    g = hub_graph()
    x = torch.randn(g.num_src, 64, generator=torch.Generator().manual_seed(2)).to(DEVICE)
    out = gnnkern.spmm(g, x, backend=backend)
    exact = gnnkern.spmm(g, x.double(), backend="reference")
    assert (out - exact).norm() <= 1e-6 * exact.norm()
    middle = (g.num_dst - 1) // 2
    assert (out[middle] - exact[middle]).norm() <= 1e-5 * exact[middle].norm()
