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
from helpers.graphs import GRAPHS, segments
from helpers.rejects import bad_floats, bad_indices, check_rejects, each_reject

import gnnkern
from gnnkern.reference.segment_logsumexp import segment_logsumexp_reference

INF = float("inf")

lse_backends = each_backend("segment_logsumexp")
lse_kernels = each_kernel("segment_logsumexp")
each_trailing = pytest.mark.parametrize("trailing", [(), (5,), (2, 3)], ids=["1d", "2d", "3d"])


def lse_call(indptr, trailing, dtype=torch.float32):
    def op(x, *, backend):
        return gnnkern.segment_logsumexp(x, indptr, backend=backend)

    def reference(x):
        return segment_logsumexp_reference(x, indptr)

    return Call(op, reference, (3 * normal(int(indptr[-1]), *trailing),)).to(dtype)


# Value and gradient


@lse_kernels
@each_width
@each_dtype
def test_value_and_gradient_at_every_width(backend, width, dtype):
    check_gradient(lse_call(segments("power_law"), (width,), dtype), backend)


@lse_backends
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("trailing", [(), (5,)], ids=["1d", "2d"])
@each_dtype
def test_value_and_gradient_on_every_graph(backend, name, trailing, dtype):
    check_gradient(lse_call(segments(name), trailing, dtype), backend)


@lse_backends
@each_index_dtype
@pytest.mark.parametrize("name", ["empty", "no_edges", "power_law"])
def test_index_dtypes(backend, index_dtype, name):
    check_gradient(lse_call(segments(name, index_dtype), (8,)), backend)


@lse_kernels
@each_layout
@each_trailing
def test_layouts(backend, layout, trailing):
    call = lse_call(segments("bipartite"), trailing).laid_out(layout)
    check_gradient(call, backend, upstream_layout="transposed")


@lse_backends
def test_strided_indptr(backend):
    indptr = segments("bipartite")
    check_gradient(lse_call(torch.stack([indptr, -indptr], dim=1)[:, 0], (3,)), backend)


@lse_backends
def test_gradient_of_a_sum(backend):
    check_gradient(lse_call(segments("power_law"), (33,)), backend, upstream_layout="expanded")


@lse_backends
@each_trailing
def test_gradcheck(backend, trailing):
    check_gradcheck(lse_call(segments("self_loops"), trailing), backend)


@lse_backends
@pytest.mark.parametrize("name", ["multi_edges", "self_loops"])
def test_second_derivative(backend, name):
    check_second_derivative(lse_call(segments(name), (2,)), backend)


# What it is


@lse_backends
@each_trailing
def test_it_is_torch_logsumexp_of_each_segment(backend, trailing):
    indptr = segments("power_law")
    call = lse_call(indptr, trailing)
    parts = call.tensors[0].tensor_split(indptr[1:-1])
    expected = torch.stack([part.logsumexp(0) for part in parts])
    torch.testing.assert_close(call.run(*call.tensors, backend=backend), expected)


@lse_kernels
@pytest.mark.parametrize("name", ["power_law", "long_rows"])
def test_its_gradient_is_the_softmax(backend, name):
    indptr = segments(name)
    x = (3 * normal(int(indptr[-1]), 33)).float().requires_grad_()
    gnnkern.segment_logsumexp(x, indptr, backend=backend).sum().backward()
    softmax = gnnkern.segment_softmax(x.detach(), indptr, backend=backend)
    torch.testing.assert_close(x.grad, softmax)


@lse_backends
def test_empty_segments_and_infinities(backend):
    nan = float("nan")
    x = torch.tensor([-INF, -INF, INF, 0.0, nan, 0.0, 1.0, -INF], requires_grad=True)
    indptr = torch.tensor([0, 0, 2, 4, 4, 6, 8, 8])
    out = gnnkern.segment_logsumexp(x, indptr, backend=backend)
    expected = torch.tensor([-INF, -INF, INF, -INF, nan, 1.0, -INF])
    torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)
    out.sum().backward()
    expected = torch.tensor([0.0, 0.0, nan, 0.0, nan, nan, 1.0, 0.0])
    torch.testing.assert_close(x.grad, expected, rtol=0, atol=0, equal_nan=True)


@lse_kernels
@each_dtype
@pytest.mark.parametrize("name", ["star_in", "long_rows"])
def test_minus_infinity_in_long_segments(backend, name, dtype):
    call = lse_call(segments(name), (17,), dtype)
    call.tensors[0][::3, ::2] = -INF
    call.tensors[0][:2500, 3] = -INF
    check_gradient(call, backend)


# Everything else


@lse_backends
@pytest.mark.parametrize("name", ["power_law", "long_rows"])
@pytest.mark.parametrize("width", [1, 64])
def test_repeatable(backend, name, width):
    check_repeatable(lse_call(segments(name), (width,)), backend)


@lse_backends
def test_compiles(backend):
    check_compiled(lse_call(segments("bipartite"), (8,)), backend)


@lse_backends
@each_trailing
def test_operators(backend, trailing):
    check_operators(lse_call(segments("multi_edges"), trailing), backend)


@lse_backends
def test_autocast(backend):
    check_autocast(lse_call(segments("dense_small"), (16,)), backend)


X, INDPTR = torch.ones(6, 2), torch.tensor([0, 2, 2, 6])


@lse_backends
@each_reject(bad_floats("x", X, ()), bad_indices("indptr", INDPTR, (), (0,), (4, 1)))
def test_rejects(backend, reject):
    arguments = {"x": X, "indptr": INDPTR}
    check_rejects(gnnkern.segment_logsumexp, arguments, reject, backend)


@lse_backends
@each_index_dtype
@pytest.mark.parametrize(
    "indptr", [[0, 2, 2, 5], [0, 2, 2, 7], [1, 2, 2, 6], [0, 4, 3, 6], [0, -1, 2, 6], [0, 9, 2, 6]]
)
def test_rejects_boundaries_that_are_not_those_of_x(backend, index_dtype, indptr):
    with pytest.raises(ValueError, match=r"segment_logsumexp: .*indptr"):
        gnnkern.segment_logsumexp(X, torch.tensor(indptr, dtype=index_dtype), backend=backend)


@pytest.mark.big
def test_big():
    # 2^31 elements of input and more: the last rows lie beyond every 32-bit offset.
    num_rows, width = 2**20 + 4, 2**11
    x = torch.zeros(num_rows, width, dtype=torch.bfloat16)
    x[-1], x[-2] = 30, 2
    indptr = torch.tensor([0, num_rows - 2, num_rows - 2, num_rows])
    out = gnnkern.segment_logsumexp(x, indptr, backend="cpu")
    assert (out[1] == -INF).all()
    assert (out[2] == 30).all()
