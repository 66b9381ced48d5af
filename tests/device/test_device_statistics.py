"""segment_logsumexp, scatter_logsumexp and scatter_std: what groups of rows have in common."""

from functools import partial

import pytest
import torch
from helpers.cases import each_dtype, each_index_dtype, each_layout
from helpers.checks import (
    check_autocast,
    check_compiled,
    check_gradcheck,
    check_gradient,
    check_operators,
    check_repeatable,
    check_second_derivative,
)
from helpers.devices import (
    DEVICE,
    device_index,
    device_segments,
    each_name,
    on_device,
    small_tiles,
)
from ops import test_scatter_logsumexp, test_scatter_std, test_segment_logsumexp

import gnnkern

INF = float("inf")


def index_of(name, index_dtype):
    """Groups of the named graph, or, for numerical derivatives, a few of which none is empty."""
    if name == "full":
        return torch.tensor([0, 1, 0, 0, 0], dtype=index_dtype, device=DEVICE), 2
    return device_index(name, index_dtype)


def segment_call(name, trailing, dtype=torch.float32, index=torch.int64):
    if name == "full":
        indptr = torch.tensor([0, 4, 5], dtype=index, device=DEVICE)
    else:
        indptr = device_segments(name, index)
    return on_device(test_segment_logsumexp.lse_call(indptr, trailing, dtype))


def scatter_call(name, trailing, dtype=torch.float32, index=torch.int64):
    call = test_scatter_logsumexp.lse_call(index_of(name, index), trailing, dtype)
    return on_device(call)


def std_call(unbiased, name, trailing, dtype=torch.float32, index=torch.int64):
    call = test_scatter_std.std_call(index_of(name, index), trailing, unbiased, dtype)
    return on_device(call)


CALLS = {
    "segment_logsumexp": segment_call,
    "scatter_logsumexp": scatter_call,
    "scatter_std": partial(std_call, True),
    "scatter_std_biased": partial(std_call, False),
}
each_call = pytest.mark.parametrize("which", CALLS)


@each_call
@each_name
def test_gradient_on_every_graph(which, name, backend):
    check_gradient(CALLS[which](name, (3,)), backend)


@each_call
@pytest.mark.parametrize("trailing", [(), (33,), (2, 3), (0,)], ids=["1d", "33", "2x3", "0"])
def test_gradient_of_every_shape(which, trailing, backend):
    check_gradient(CALLS[which]("hubs", trailing), backend)


@each_call
@each_dtype
def test_gradient_of_every_dtype(which, dtype, backend):
    check_gradient(CALLS[which]("hubs", (5,), dtype), backend)


@each_call
@each_index_dtype
def test_index_dtypes(which, index_dtype, backend):
    check_gradient(CALLS[which]("multi_edges", (3,), torch.float32, index_dtype), backend)


@each_call
@each_layout
def test_layouts(which, layout, backend):
    call = CALLS[which]("multi_edges", (6,)).laid_out(layout)
    check_gradient(call, backend, upstream_layout="transposed")


@each_call
def test_gradient_of_a_sum(which, backend):
    check_gradient(CALLS[which]("multi_edges", (3,)), backend, upstream_layout="expanded")


@each_call
def test_derivatives(which, backend):
    with small_tiles(chunk_edges=3):
        check_gradcheck(CALLS[which]("full", (2,)), backend)
        check_second_derivative(CALLS[which]("full", (2,)), backend)


@each_call
def test_operators(which, backend):
    check_operators(CALLS[which]("tiny", (1,)), backend)


@each_call
def test_compiles(which, backend):
    check_compiled(CALLS[which]("tiny", (2,)), backend)


@each_call
def test_repeatable(which, backend):
    check_repeatable(CALLS[which]("hubs", (3,)), backend)


@each_call
def test_autocast(which, backend):
    check_autocast(CALLS[which]("full", (2,)), backend)


@pytest.mark.parametrize("value", [float("nan"), INF, -INF])
@each_call
def test_not_finite(which, value, backend):
    call = CALLS[which]("hubs", (3,))
    call.tensors[0][::7, 1] = value
    # Both a whole short segment and a whole long one.
    call.tensors[0][:32, 2] = value
    call.tensors[0][50:, 2] = value
    check_gradient(call, backend)


@pytest.mark.parametrize("which", ["segment_logsumexp", "scatter_logsumexp"])
def test_infinities(which, backend):
    nan = float("nan")
    x = torch.tensor([-INF, -INF, INF, 0.0, nan, 0.0, 1.0, -INF], device=DEVICE).requires_grad_()
    if which == "segment_logsumexp":
        indptr = torch.tensor([0, 0, 2, 4, 4, 6, 8, 8], device=DEVICE)
        out = gnnkern.segment_logsumexp(x, indptr, backend=backend)
    else:
        index = torch.tensor([1, 1, 2, 2, 4, 4, 5, 5], device=DEVICE)
        out = gnnkern.scatter_logsumexp(x, index, num_segments=7, backend=backend)
    expected = torch.tensor([-INF, -INF, INF, -INF, nan, 1.0, -INF], device=DEVICE)
    torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)
    out.sum().backward()
    expected = torch.tensor([0.0, 0.0, nan, 0.0, nan, nan, 1.0, 0.0], device=DEVICE)
    torch.testing.assert_close(x.grad, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("which", ["segment_logsumexp", "scatter_logsumexp"])
def test_a_shift_is_not_seen_by_the_gradient(which, backend):
    call = CALLS[which]("hubs", (3,)).on_grid()
    (x,) = call.tensors
    far = (x + 1e4).requires_grad_()
    out = call.run(far, backend=backend)
    (grad,) = torch.autograd.grad(out[out.isfinite()].sum(), far)
    near = x.double().requires_grad_()
    out = call.reference(near)
    (expected,) = torch.autograd.grad(out[out.isfinite()].sum(), near)
    torch.testing.assert_close(grad.double(), expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("mean", [1e3, -1e5])
def test_scatter_std_of_values_far_from_zero_loses_nothing(mean, backend):
    call = on_device(test_scatter_std.std_call(device_index("hubs"), (5,), mean=mean))
    out = call.run(*call.tensors, backend=backend).double()
    expected = call.reference(call.tensors[0].double())
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


def test_scatter_std_of_equal_rows_is_zero_and_so_is_its_gradient(backend):
    index, num_segments = device_index("hubs")
    x = (index[:, None] / 8 + 0.1).repeat(1, 5).requires_grad_()
    out = gnnkern.scatter_std(x, index, num_segments=num_segments, backend=backend)
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert (out == 0).all() and (grad == 0).all()


def test_scatter_std_of_a_first_row_far_from_the_others_loses_few_digits(backend):
    index = torch.zeros(200, dtype=torch.int64, device=DEVICE)
    call = on_device(test_scatter_std.std_call((index, 1), (3,)))
    call.tensors[0][0] = 1000.0
    out = call.run(*call.tensors, backend=backend).double()
    expected = call.reference(call.tensors[0].double())
    torch.testing.assert_close(out, expected, rtol=2e-6, atol=0)
