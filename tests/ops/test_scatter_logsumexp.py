import pytest
import torch
from helpers.cases import (
    Call,
    each_backend,
    each_dtype,
    each_index_dtype,
    each_kernel,
    each_layout,
    each_width,
    normal,
)
from helpers.checks import (
    check_autocast,
    check_compiled,
    check_gradcheck,
    check_gradient,
    check_operators,
    check_repeatable,
    check_second_derivative,
)
from helpers.graphs import GRAPHS, scatter_index
from helpers.rejects import Reject, bad_floats, bad_indices, check_rejects, each_reject

import gnnkern
from gnnkern.reference.scatter_logsumexp import scatter_logsumexp_reference

INF = float("inf")

lse_backends = each_backend("scatter_logsumexp")
lse_kernels = each_kernel("scatter_logsumexp")
each_trailing = pytest.mark.parametrize("trailing", [(), (5,), (2, 3)], ids=["1d", "2d", "3d"])


def lse_call(indices, trailing, dtype=torch.float32):
    index, num_segments = indices

    def op(x, *, backend):
        return gnnkern.scatter_logsumexp(x, index, num_segments=num_segments, backend=backend)

    def reference(x):
        return scatter_logsumexp_reference(x, index, num_segments)

    return Call(op, reference, (3 * normal(len(index), *trailing),)).to(dtype)


# Value and gradient


@lse_kernels
@each_width
@each_dtype
def test_value_and_gradient_at_every_width(backend, width, dtype):
    check_gradient(lse_call(scatter_index("power_law"), (width,), dtype), backend)


@lse_backends
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("trailing", [(), (5,)], ids=["1d", "2d"])
@each_dtype
def test_value_and_gradient_on_every_graph(backend, name, trailing, dtype):
    check_gradient(lse_call(scatter_index(name), trailing, dtype), backend)


@lse_backends
@each_index_dtype
@pytest.mark.parametrize("name", ["empty", "no_edges", "power_law"])
def test_index_dtypes(backend, index_dtype, name):
    check_gradient(lse_call(scatter_index(name, index_dtype), (8,)), backend)


@lse_kernels
@each_layout
@each_trailing
def test_layouts(backend, layout, trailing):
    call = lse_call(scatter_index("bipartite"), trailing).laid_out(layout)
    check_gradient(call, backend, upstream_layout="transposed")


@lse_backends
def test_strided_index(backend):
    index, num_segments = scatter_index("bipartite")
    strided = torch.stack([index, -index], dim=1)[:, 0]
    check_gradient(lse_call((strided, num_segments), (3,)), backend)


@lse_backends
def test_sorted_and_descending_index(backend):
    index, num_segments = scatter_index("power_law")
    for order in (index.sort().values, index.sort(descending=True).values):
        check_gradient(lse_call((order, num_segments), (3,)), backend)


@lse_backends
def test_gradient_of_a_sum(backend):
    check_gradient(lse_call(scatter_index("power_law"), (33,)), backend, upstream_layout="expanded")


@lse_backends
@each_trailing
def test_gradcheck(backend, trailing):
    check_gradcheck(lse_call(scatter_index("self_loops"), trailing), backend)


@lse_backends
@pytest.mark.parametrize("name", ["multi_edges", "self_loops"])
def test_second_derivative(backend, name):
    check_second_derivative(lse_call(scatter_index(name), (2,)), backend)


# Values worked out by hand, and by torch


@lse_backends
def test_by_hand(backend):
    x = torch.tensor([0.0, 3.0, 0.0, -INF, 3.0])
    index = torch.tensor([1, 3, 1, 4, 1])
    log = torch.tensor([2 + torch.e**3]).log().item()
    expected = torch.tensor([-INF, log, -INF, 3.0, -INF, -INF])
    out = gnnkern.scatter_logsumexp(x, index, num_segments=6, backend=backend)
    torch.testing.assert_close(out, expected)
    out = gnnkern.scatter_logsumexp(x, index, backend=backend)
    torch.testing.assert_close(out, expected[:5])


@lse_backends
@each_index_dtype
def test_the_number_of_segments_of_nothing(backend, index_dtype):
    index = torch.empty(0, dtype=index_dtype)
    x = torch.empty(0, 3)
    assert gnnkern.scatter_logsumexp(x, index, backend=backend).shape == (0, 3)
    out = gnnkern.scatter_logsumexp(x, index, num_segments=2, backend=backend)
    assert out.tolist() == [[-INF] * 3] * 2


@lse_backends
@pytest.mark.parametrize(
    "x, expected",
    [
        ([-INF, -INF], [0.0, 0.0]),
        ([-INF, 1.0], [0.0, 1.0]),
        ([1.0, -INF], [1.0, 0.0]),
        ([INF, 1.0], [float("nan"), 0.0]),
        ([1.0, INF], [0.0, float("nan")]),
        ([float("nan"), 1.0], [float("nan")] * 2),
        ([1.0, float("nan")], [float("nan")] * 2),
    ],
)
@each_dtype
@pytest.mark.parametrize("width", [1, 33])
def test_infinities(backend, x, expected, dtype, width):
    x = torch.tensor([*x, 5.0], dtype=dtype)[:, None].repeat(1, width).requires_grad_()
    index = torch.tensor([1, 1, 0])
    out = gnnkern.scatter_logsumexp(x, index, backend=backend)
    assert torch.equal(out[0], x[2])
    torch.testing.assert_close(out[1], x[:2].logsumexp(0), rtol=0, atol=0, equal_nan=True)
    (grad,) = torch.autograd.grad(out.sum(), x)
    expected = torch.tensor([*expected, 1.0], dtype=dtype)[:, None].expand(-1, width)
    torch.testing.assert_close(grad, expected, rtol=0, atol=0, equal_nan=True)


@lse_backends
@pytest.mark.parametrize("shift", [-1e4, 0.0, 1e4])
def test_large_values_do_not_overflow(backend, shift):
    index, num_segments = scatter_index("power_law")
    x = (normal(len(index), 3) * 8).round() / 8
    shifted = (x + shift).float().requires_grad_()
    out = gnnkern.scatter_logsumexp(shifted, index, num_segments=num_segments, backend=backend)
    expected = scatter_logsumexp_reference(x.requires_grad_(), index, num_segments) + shift
    torch.testing.assert_close(out.double(), expected, rtol=2e-7, atol=1e-5)
    # The gradient does not see the shift at all.
    (grad,) = torch.autograd.grad(out[out.isfinite()].sum(), shifted)
    (expected,) = torch.autograd.grad(expected[expected.isfinite()].sum(), x)
    torch.testing.assert_close(grad.double(), expected, rtol=1e-5, atol=1e-9)


@lse_kernels
@each_dtype
def test_a_row_that_grows_and_one_that_falls(backend, dtype):
    # The running maximum changes at every step, or never.
    rising = torch.linspace(-60, 60, 5000, dtype=torch.float64)
    x = torch.stack([rising, rising.flip(0)], dim=1).repeat(1, 20)
    index = torch.zeros(5000, dtype=torch.int64)
    call = lse_call((index, 1), (40,), dtype)
    check_gradient(Call(call.op, call.reference, (x.to(dtype),)), backend)


# Everything else


@lse_backends
@pytest.mark.parametrize("name", ["power_law", "long_rows"])
@pytest.mark.parametrize("width", [1, 64])
def test_repeatable(backend, name, width):
    check_repeatable(lse_call(scatter_index(name), (width,)), backend)


@lse_backends
def test_compiles(backend):
    check_compiled(lse_call(scatter_index("bipartite"), (8,)), backend)


@lse_backends
@each_trailing
def test_operators(backend, trailing):
    check_operators(lse_call(scatter_index("multi_edges"), trailing), backend)


@lse_backends
def test_autocast(backend):
    check_autocast(lse_call(scatter_index("dense_small"), (16,)), backend)


X, INDEX = torch.ones(6, 2), torch.tensor([2, 0, 2, 1, 1, 0])


@lse_backends
@each_reject(
    bad_floats("x", X, (), (5, 2), (7, 2)),
    bad_indices("index", INDEX, (), (5,), (7,), (6, 2), (6, 1)),
    [
        Reject("num_segments", "too_small", 2, ValueError),
        Reject("num_segments", "negative", -1, ValueError),
        Reject("num_segments", "float", 3.0, TypeError),
        Reject("num_segments", "tensor", torch.tensor([3, 3]), TypeError),
    ],
)
def test_rejects(backend, reject):
    arguments = {"x": X, "index": INDEX, "num_segments": 3}
    check_rejects(gnnkern.scatter_logsumexp, arguments, reject, backend)


@lse_backends
@each_index_dtype
@pytest.mark.parametrize(
    "bad, num_segments", [(-1, None), (-7, None), (-1, 3), (3, 3), (2**31 - 1, 3)]
)
def test_rejects_an_index_out_of_range(backend, index_dtype, bad, num_segments):
    index = INDEX.to(index_dtype, copy=True)
    index[4] = bad
    with pytest.raises(ValueError, match=rf"scatter_logsumexp: .*index.*{bad}"):
        gnnkern.scatter_logsumexp(X, index, num_segments=num_segments, backend=backend)
