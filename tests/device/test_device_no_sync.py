"""No op copies anything to the host, so that CUDA graphs can capture it.

Where there is no GPU, the torch ops that would are looked for while the kernels run without one.
Calls are named by their op, and by what of it they are.
"""

from importlib import import_module

import pytest
import torch
from helpers.devices import DEVICE, device_graph, device_index, device_segments
from torch.utils._python_dispatch import TorchDispatchMode

import gnnkern

# What waits for the device: numbers read, and results whose size is counted.
WAITS = {
    "_local_scalar_dense",
    "bincount",
    "equal",
    "is_nonzero",
    "item",
    "masked_select",
    "nonzero",
    "unique_dim",
    "_unique2",
}


KERNEL_KEY = torch._C.DispatchKeySet(
    torch._C.DispatchKey.CPU if DEVICE.type == "cpu" else torch._C.DispatchKey.CUDA
)


class NoWaiting(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put") and any(
            i is not None and i.dtype == torch.bool for i in args[1]
        )
        assert name not in WAITS and not by_mask, f"{func} waits for the device"
        if func.namespace == "gnnkern":
            # Past this mode, and with it again for what the operator is made of.
            with self:
                return func.redispatch(KERNEL_KEY, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def planned(csr, backend):
    """A matrix with the plan that it would have on a GPU, made without counting."""
    make_plan = import_module(f"gnnkern._{backend}.plan").make_plan
    return csr._replace(plan=make_plan(csr.indptr, csr.indices.shape[0]))


def rows(count, *shape):
    return torch.randn(count, *shape, device=DEVICE)


def graph_calls(backend):
    g = device_graph("hubs")
    fwd, rev = planned(g.csr, backend), planned(g.reverse_csr(), backend)
    x, weight = rows(g.num_src, 2, 3), rows(g.num_edges, 2)
    kernels = torch.ops.gnnkern
    argument = torch.zeros(g.num_dst, 2, 3, dtype=torch.uint8, device=DEVICE)
    grad = rows(g.num_dst, 2, 3)
    yield "spmm sum", lambda: kernels.spmm(*fwd, x, weight, "sum", backend)
    yield "spmm max", lambda: kernels.spmm_select(*fwd, x, weight, "max", g.max_degree, backend)
    yield (
        "spmm max_backward",
        lambda: kernels.spmm_select_backward(
            *fwd, *rev, x, weight, argument, grad, True, True, backend
        ),
    )
    edge = rows(g.num_edges, 1, 3)
    yield "spmm message", lambda: kernels.message_reduce(*fwd, x, edge, "add", "mean", backend)
    yield (
        "spmm message_backward",
        lambda: kernels.message_select_backward(
            *fwd, *rev, x, edge, argument, grad, "div", True, True, backend
        ),
    )
    yield "sddmm dot", lambda: kernels.sddmm(*fwd, grad, x, "dot", backend)
    yield (
        "sddmm on_edges",
        lambda: kernels.on_edges(*fwd, edge, x, "mul", "edge", "src", [2, 1], backend),
    )
    reduces = ["mean", "min", "max", "std"]

    def several():
        return kernels.multi_reduce(*fwd, x, reduces, g.max_degree, True, backend)

    arrays = [fwd.indptr, fwd.indices, fwd.plan, rev.indptr, rev.indices, rev.plan]
    grads = rows(g.num_dst, 4, 2, 3)
    yield "multi_reduce", several
    yield (
        "multi_reduce backward",
        lambda: kernels.multi_reduce_backward(
            arrays, fwd.edge_id, rev.edge_id, x, *several(), grads, reduces, backend
        ),
    )
    yield "edge_softmax", lambda: kernels.edge_softmax(*fwd, weight, None, g.num_src, backend)
    yield "edge_softmax backward", lambda: kernels.edge_softmax(*fwd, weight, weight, 12, backend)


def attention_calls(backend):
    g = device_graph("hubs")
    fwd, rev = planned(g.csr, backend), planned(g.reverse_csr(), backend)
    x, out, grad = rows(g.num_src, 2, 3), rows(g.num_dst, 2, 3), rows(g.num_dst, 2, 3)
    arrays = [fwd.indptr, fwd.indices, fwd.plan, rev.indptr, rev.indices, rev.plan]
    ids, known = (fwd.edge_id, rev.edge_id), (out, rows(g.num_dst, 2), grad)
    seed = torch.randint(2**62, (1,), device=DEVICE)
    kernels = torch.ops.gnnkern
    scores = (rows(g.num_src, 2), rows(g.num_dst, 2), rows(g.num_edges, 2))
    yield (
        "gat_attention",
        lambda: kernels.gat_attention(*fwd, x, *scores, seed, 0.2, 0.5, True, backend),
    )
    yield (
        "gat_attention backward",
        lambda: kernels.gat_attention_backward(
            arrays, *ids, x, *scores, seed, *known, 0.2, 0.5, True, backend
        ),
    )
    key, value, need = rows(g.num_src, 2, 3), rows(g.num_src, 2, 3), [True, True, True]
    of_edges = (rows(g.num_edges, 2), rows(g.num_edges, 2, 3))
    dot = (out, key, value, *of_edges, seed)
    yield "dot_attention", lambda: kernels.dot_attention(*fwd, *dot, 0.5, 0.5, True, backend)
    yield (
        "dot_attention backward",
        lambda: kernels.dot_attention_backward(arrays, *ids, *dot, *known, 0.5, 0.5, need, backend),
    )
    gatv2 = (key, out, rows(2, 3), of_edges[1], seed)
    yield "gatv2_attention", lambda: kernels.gatv2_attention(*fwd, *gatv2, 0.2, 0.5, True, backend)
    yield (
        "gatv2_attention backward",
        lambda: kernels.gatv2_attention_backward(
            arrays, *ids, *gatv2, *known, 0.2, 0.5, True, True, backend
        ),
    )


def segment_calls(backend):
    indptr, (index, num_segments) = device_segments("hubs"), device_index("hubs")
    num_edges, kernels = index.shape[0], torch.ops.gnnkern
    x, y = rows(num_edges, 3), rows(num_segments, 3)
    argument = torch.zeros(num_segments, 3, dtype=torch.int32, device=DEVICE)
    yield "segment_reduce", lambda: kernels.segment_reduce(x, indptr, "sum", backend)
    yield "segment_reduce select", lambda: kernels.segment_select(x, indptr, "min", backend)
    yield (
        "segment_reduce select_backward",
        lambda: kernels.segment_select_backward(y, indptr, argument, num_edges, backend),
    )
    yield "segment_gather", lambda: kernels.segment_gather(y, indptr, num_edges, backend)
    yield "segment_softmax", lambda: kernels.segment_softmax(x, indptr, None, backend)
    yield "segment_logsumexp", lambda: kernels.segment_logsumexp(x, indptr, True, backend)
    shifts = rows(num_segments, 2, 3)
    yield (
        "segment_logsumexp scale",
        lambda: kernels.scale_by_group(x, indptr, True, shifts, y, True, backend),
    )
    order = index.sort(stable=True).indices
    weight, bias = rows(num_segments, 3, 4), rows(num_segments, 4)
    yield "segment_matmul", lambda: kernels.segment_matmul(x, indptr, order, weight, bias, backend)
    grad = rows(num_edges, 4)
    yield "segment_matmul outer", lambda: kernels.segment_outer(x, grad, indptr, order, backend)
    yield (
        "scatter_logsumexp scale",
        lambda: kernels.scale_by_group(x, index, False, shifts, y, True, backend),
    )
    if DEVICE.type != "cpu":
        # On the CPU an index is checked.
        yield (
            "scatter_logsumexp",
            lambda: kernels.scatter_logsumexp(x, index, num_segments, True, backend),
        )
        yield "gather_matmul types", lambda: kernels.order_by_type(index, num_segments)
        yield (
            "scatter_std",
            lambda: kernels.scatter_std(x, index, num_segments, True, True, backend),
        )
        yield (
            "scatter_reduce",
            lambda: kernels.scatter_reduce(x, index, num_segments, "sum", backend),
        )
        yield (
            "scatter_reduce max",
            lambda: kernels.scatter_select(x, index, num_segments, "max", backend),
        )


def implemented(calls, backend):
    """Those of the calls whose op the backend has."""
    tables = gnnkern.ops.implementations()
    for name, call in calls(backend):
        if backend in [row.backend for row in tables[name.split()[0]]]:
            yield name, call


each_calls = pytest.mark.parametrize("calls", [graph_calls, attention_calls, segment_calls])


@each_calls
def test_no_op_waits_for_the_device(calls, backend):
    for _, call in implemented(calls, backend):
        if DEVICE.type != "cpu":
            call()
            torch.cuda.set_sync_debug_mode("error")
        try:
            with NoWaiting():
                call()
        finally:
            if DEVICE.type != "cpu":
                torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE.type == "cpu", reason="no GPU")
@each_calls
def test_cuda_graphs_capture_every_op(calls, backend):
    for name, call in implemented(calls, backend):
        expected = call()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            call()
        torch.cuda.current_stream().wait_stream(stream)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            actual = call()
        captured.replay()
        torch.cuda.synchronize()
        for a, b in zip(_tensors(expected), _tensors(actual), strict=True):
            assert torch.equal(a, b), name


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE.type == "cpu", reason="no GPU")
def test_training_step_is_captured(backend):
    g = device_graph("hubs")
    x = rows(g.num_src, 8).requires_grad_()

    def step():
        (grad,) = torch.autograd.grad(
            gnnkern.spmm(g, x, reduce="max", backend=backend).square().sum(), x
        )
        return grad

    expected = step()
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        actual = step()
    captured.replay()
    torch.cuda.synchronize()
    assert torch.equal(expected, actual)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs")
def test_tensors_of_another_device_than_the_current_one(backend):
    expected = torch.tensor([[2.0], [1.0]])
    for number in range(2):
        device = torch.device("cuda", number)
        edge_index = torch.tensor([[0, 1, 1], [0, 0, 1]], device=device)
        g = gnnkern.Graph.from_edge_index(edge_index, 2)
        out = gnnkern.spmm(g, torch.ones(2, 1, device=device), backend=backend)
        assert out.device == device
        assert torch.equal(out.cpu(), expected)


@pytest.mark.skipif(DEVICE.type != "cpu", reason="a graph on a GPU has its plan")
def test_waiting_would_be_seen(backend):
    # A graph on the CPU has no plan for a GPU: one is made at each call, and its chunks counted.
    g = device_graph("hubs")
    x = rows(g.num_src, 3)
    with pytest.raises(AssertionError, match="waits for the device"), NoWaiting():
        torch.ops.gnnkern.spmm(*g.csr, x, None, "sum", backend)


def _tensors(result):
    return [result] if isinstance(result, torch.Tensor) else list(result)
