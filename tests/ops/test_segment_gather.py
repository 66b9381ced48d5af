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
from helpers.tolerance import HALVES

import gnnkern
from gnnkern.reference.segment_gather import segment_gather_reference

gather_backends = each_backend("segment_gather")
gather_kernels = each_kernel("segment_gather")
each_trailing = pytest.mark.parametrize("trailing", [(), (5,), (2, 3)], ids=["1d", "2d", "3d"])


def gather_call(indptr, trailing, dtype=torch.float32):
    def op(x, *, backend):
        return gnnkern.segment_gather(x, indptr, backend=backend)

    def reference(x):
        return segment_gather_reference(x, indptr)

    return Call(op, reference, (normal(len(indptr) - 1, *trailing),)).to(dtype)


# Value and gradient


@gather_kernels
@each_width
@each_dtype
def test_value_and_gradient_at_every_width(backend, width, dtype):
    check_gradient(gather_call(segments("power_law"), (width,), dtype), backend)


@gather_backends
@pytest.mark.parametrize("name", GRAPHS)
@each_trailing
def test_value_and_gradient_on_every_graph(backend, name, trailing):
    check_gradient(gather_call(segments(name), trailing), backend)


@gather_kernels
@pytest.mark.parametrize("dtype", HALVES)
def test_gradient_of_long_segments_of_halves(backend, dtype):
    check_gradient(gather_call(segments("long_rows"), (8,), dtype), backend)


@gather_backends
@each_index_dtype
@pytest.mark.parametrize("name", ["empty", "no_edges", "power_law"])
def test_index_dtypes(backend, index_dtype, name):
    check_gradient(gather_call(segments(name, index_dtype), (8,)), backend)


@gather_kernels
@each_layout
@each_trailing
def test_layouts(backend, layout, trailing):
    call = gather_call(segments("bipartite"), trailing).laid_out(layout)
    check_gradient(call, backend, upstream_layout="transposed")


@gather_backends
def test_strided_indptr(backend):
    indptr = segments("bipartite")
    check_gradient(gather_call(torch.stack([indptr, -indptr], dim=1)[:, 0], (3,)), backend)


@gather_backends
def test_gradient_of_a_sum(backend):
    check_gradient(gather_call(segments("power_law"), (33,)), backend, upstream_layout="expanded")


@gather_backends
@each_trailing
def test_gradcheck(backend, trailing):
    check_gradcheck(gather_call(segments("isolated_ends"), trailing), backend)


@gather_backends
def test_second_derivative(backend):
    check_second_derivative(gather_call(segments("isolated_ends"), (2,)), backend)


# What it is


@gather_backends
def test_by_hand(backend):
    x = torch.tensor([1.0, -2.0, 3.0, 4.0], requires_grad=True)
    out = gnnkern.segment_gather(x, torch.tensor([0, 2, 2, 5, 6]), backend=backend)
    assert out.tolist() == [1, 1, 3, 3, 3, 4]
    out.backward(torch.tensor([1.0, 10.0, 100.0, 1000.0, 1e4, 1e5]))
    assert x.grad.tolist() == [11, 0, 11100, 1e5]


@gather_backends
@each_dtype
def test_bits_are_copied(backend, dtype):
    x = torch.tensor([0.0, -0.0, float("inf"), float("nan"), 0.1]).to(dtype)
    out = gnnkern.segment_gather(x, torch.tensor([0, 1, 2, 3, 4, 5]), backend=backend)
    assert torch.equal(out.signbit(), x.signbit())
    torch.testing.assert_close(out, x, rtol=0, atol=0, equal_nan=True)


# Everything else


@gather_backends
@pytest.mark.parametrize("name", ["power_law", "long_rows"])
@pytest.mark.parametrize("width", [1, 64])
@each_dtype
def test_repeatable(backend, name, width, dtype):
    check_repeatable(gather_call(segments(name), (width,), dtype), backend)


@gather_backends
@each_trailing
def test_compiles(backend, trailing):
    check_compiled(gather_call(segments("bipartite"), trailing), backend)


@gather_backends
@each_trailing
def test_operators(backend, trailing):
    check_operators(gather_call(segments("bipartite"), trailing), backend)


@gather_backends
def test_autocast(backend):
    check_autocast(gather_call(segments("power_law"), (16,)), backend)


X, INDPTR = torch.ones(3, 2), torch.tensor([0, 2, 2, 6])


@gather_backends
@each_reject(
    bad_floats("x", X, (), (2, 2), (4, 2), (6, 2)),
    bad_indices("indptr", INDPTR, (), (0,), (4, 1)),
)
def test_rejects(backend, reject):
    check_rejects(gnnkern.segment_gather, {"x": X, "indptr": INDPTR}, reject, backend)


@gather_backends
@each_index_dtype
@pytest.mark.parametrize("indptr", [[1, 2, 2, 6], [0, 4, 3, 6], [0, -1, 2, 6], [0, 2, 6, -6]])
def test_rejects_boundaries_out_of_order(backend, index_dtype, indptr):
    with pytest.raises(ValueError, match=r"segment_gather: .*indptr"):
        gnnkern.segment_gather(X, torch.tensor(indptr, dtype=index_dtype), backend=backend)


@pytest.mark.big
def test_big():
    # 2^31 elements of output and more: the last rows lie beyond every 32-bit offset.
    num_rows, width = 2**20 + 4, 2**11
    x = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.bfloat16).expand(3, width).contiguous()
    indptr = torch.tensor([0, num_rows - 2, num_rows - 2, num_rows])
    out = gnnkern.segment_gather(x, indptr, backend="cpu")
    assert out.numel() > 2**31
    assert (out[:-2] == 1).all()
    assert (out[-2:] == 3).all()
