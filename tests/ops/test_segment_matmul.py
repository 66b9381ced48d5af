import pytest
import torch
from helpers.cases import (
    WIDTHS,
    Call,
    each_backend,
    each_dtype,
    each_index_dtype,
    each_kernel,
    each_layout,
    normal,
)
from helpers.checks import (
    check_autocast,
    check_compiled,
    check_gradcheck,
    check_gradient,
    check_operators,
    check_part_of_gradients,
    check_repeatable,
    check_second_derivative,
)
from helpers.graphs import GRAPHS, segments
from helpers.rejects import bad_floats, bad_indices, check_rejects, each_reject

import gnnkern
from gnnkern._cpu import dense_products
from gnnkern.reference.segment_matmul import segment_matmul_reference

matmul_backends = each_backend("segment_matmul")
matmul_kernels = each_kernel("segment_matmul")
each_bias = pytest.mark.parametrize("bias", [False, True], ids=["no_bias", "bias"])

SIZES = (
    [(K, 33) for K in WIDTHS] + [(33, M) for M in WIDTHS] + [(1, 1), (64, 64), (128, 16), (5, 200)]
)


def matmul_call(indptr, width=8, out_width=5, bias=True, dtype=torch.float32):
    num_segments = len(indptr) - 1
    tensors = [normal(int(indptr[-1]), width), normal(num_segments, width, out_width)]
    if bias:
        tensors.append(normal(num_segments, out_width))

    def op(x, weight, bias=None, *, backend):
        return gnnkern.segment_matmul(x, indptr, weight, bias, backend=backend)

    def reference(x, weight, bias=None):
        return segment_matmul_reference(x, indptr, weight, bias)

    return Call(op, reference, tuple(tensors)).to(dtype)


# Value and gradients


@matmul_kernels
@pytest.mark.parametrize("width, out_width", SIZES)
def test_value_and_gradients_at_every_width(backend, width, out_width):
    check_gradient(matmul_call(segments("bipartite"), width, out_width), backend)


@matmul_kernels
@each_dtype
@each_bias
# The one sum of "star_in" needs some columns: how far a single number is off is chance.
@pytest.mark.parametrize("width, out_width", [(1, 8), (8, 8), (33, 17), (64, 100)])
@pytest.mark.parametrize("name", ["self_loops", "star_in", "power_law"])
def test_value_and_gradients_of_every_dtype(backend, dtype, bias, width, out_width, name):
    check_gradient(matmul_call(segments(name), width, out_width, bias, dtype), backend)


@matmul_backends
@pytest.mark.parametrize("name", GRAPHS)
@each_bias
def test_value_and_gradients_on_every_graph(backend, name, bias):
    check_gradient(matmul_call(segments(name), bias=bias), backend)


@matmul_kernels
@each_dtype
@pytest.mark.parametrize("num_rows", [1, 5, 23, 24, 25, 63, 64, 65, 300])
def test_segments_around_the_sizes_where_the_kernel_changes(backend, dtype, num_rows):
    indptr = torch.tensor([0, num_rows, num_rows, 2 * num_rows])
    check_gradient(matmul_call(indptr, 48, 32, dtype=dtype), backend)


@matmul_kernels
@each_dtype
def test_long_segments(backend, dtype):
    check_gradient(matmul_call(segments("long_rows"), 33, 20, dtype=dtype), backend)


@matmul_backends
@each_index_dtype
@pytest.mark.parametrize("name", ["empty", "no_edges", "power_law"])
def test_index_dtypes(backend, index_dtype, name):
    check_gradient(matmul_call(segments(name, index_dtype)), backend)


@matmul_kernels
@each_layout
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layouts(backend, layout, dtype):
    call = matmul_call(segments("bipartite"), 32, 32, dtype=dtype).laid_out(layout)
    check_gradient(call, backend, upstream_layout="transposed")


@matmul_kernels
@pytest.mark.parametrize("dims", [(0, 2, 1), (1, 0, 2), (2, 1, 0)])
def test_matrices_of_any_strides(backend, dims):
    call = matmul_call(segments("power_law"), 35, 36, bias=False)
    x, weight = call.tensors
    weight = weight.permute(dims).contiguous().permute(tuple(torch.tensor(dims).argsort().tolist()))
    check_gradient(Call(call.op, call.reference, (x, weight)), backend)


@matmul_kernels
def test_one_matrix_for_all_segments(backend):
    indptr = segments("power_law")
    x, matrix = normal(int(indptr[-1]), 16).float(), normal(16, 32).float()
    weight = matrix.expand(len(indptr) - 1, 16, 32)
    out = gnnkern.segment_matmul(x, indptr, weight, backend=backend)
    torch.testing.assert_close(out, x @ matrix)


@matmul_backends
def test_strided_indptr(backend):
    indptr = segments("bipartite")
    check_gradient(matmul_call(torch.stack([indptr, -indptr], dim=1)[:, 0]), backend)


@matmul_backends
def test_gradient_of_a_sum(backend):
    check_gradient(matmul_call(segments("power_law")), backend, upstream_layout="expanded")


@matmul_kernels
def test_gradients_one_at_a_time(backend):
    check_part_of_gradients(matmul_call(segments("bipartite")), backend)


@matmul_backends
@each_bias
def test_gradcheck(backend, bias):
    check_gradcheck(matmul_call(segments("isolated_ends"), 3, 2, bias), backend)


@matmul_backends
@each_bias
def test_second_derivative(backend, bias):
    check_second_derivative(matmul_call(segments("isolated_ends"), 3, 2, bias), backend)


@matmul_backends
def test_third_derivative(backend):
    indptr = segments("self_loops")
    x, weight = normal(int(indptr[-1]), 2), normal(len(indptr) - 1, 2, 2)

    def gradient_of_square(x, weight):
        out = gnnkern.segment_matmul(x, indptr, weight, backend=backend)
        return torch.autograd.grad(out.square().sum(), (x, weight), create_graph=True)

    inputs = [x.requires_grad_(), weight.requires_grad_()]
    assert torch.autograd.gradgradcheck(gradient_of_square, inputs)


# By hand and by torch


@matmul_backends
def test_by_hand(backend):
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    weight = torch.tensor([[[1.0], [10.0]], [[7.0], [7.0]], [[0.0], [-1.0]]])
    bias = torch.tensor([[0.5], [9.0], [0.25]])
    indptr = torch.tensor([0, 2, 2, 3])
    out = gnnkern.segment_matmul(x, indptr, weight, backend=backend)
    assert out.tolist() == [[21.0], [43.0], [-6.0]]
    out = gnnkern.segment_matmul(x, indptr, weight, bias, backend=backend)
    assert out.tolist() == [[21.5], [43.5], [-5.75]]


@matmul_backends
def test_the_matrix_of_an_empty_segment_has_gradient_zero(backend):
    x, weight = torch.ones(3, 4), torch.ones(3, 4, 5, requires_grad=True)
    bias = torch.ones(3, 5, requires_grad=True)
    indptr = torch.tensor([0, 2, 2, 3])
    gnnkern.segment_matmul(x, indptr, weight, bias, backend=backend).sum().backward()
    assert [weight.grad[r].unique().tolist() for r in range(3)] == [[2.0], [0.0], [1.0]]
    assert [bias.grad[r].unique().tolist() for r in range(3)] == [[2.0], [0.0], [1.0]]


@matmul_kernels
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_no_value_leaves_its_segment(backend, bad):
    call = matmul_call(segments("power_law"), 33, 17)
    x, weight, bias = call.tensors
    x[100] = bad
    weight[-1] = bad
    check_gradient(Call(call.op, call.reference, (x, weight, bias)), backend)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sums", [False, True])
def test_torch_products_of_large_segments(monkeypatch, dtype, sums):
    # What decides between the two ways to the same values is set aside.
    monkeypatch.setattr(
        "gnnkern._cpu.segment_matmul.prefers_dense", lambda *_, sums: sums == sums_wanted
    )
    sums_wanted = sums
    for name in ("isolated_ends", "power_law"):
        check_gradient(matmul_call(segments(name), 33, 17, dtype=dtype), "cpu")


def test_small_segments_are_the_kernels():
    x = torch.empty(200_000, 64, dtype=torch.bfloat16, device="meta")
    assert not dense_products.prefers_dense(x, 2000, 64, 64, sums=False)
    assert not dense_products.prefers_dense(x.float(), 8, 64, 64, sums=True)
    assert dense_products.prefers_dense(x.float(), 8, 1024, 1024, sums=True)


# Everything else


@matmul_kernels
@pytest.mark.parametrize("name", ["power_law", "long_rows"])
def test_repeatable(backend, name):
    check_repeatable(matmul_call(segments(name), 33, 64), backend)


# The reference splits by the content of indptr, which a graph cannot hold.
@matmul_kernels
@each_bias
def test_compiles(backend, bias):
    check_compiled(matmul_call(segments("bipartite"), bias=bias), backend)


@matmul_backends
@each_bias
def test_operators(backend, bias):
    check_operators(matmul_call(segments("bipartite"), bias=bias), backend)


@matmul_backends
def test_autocast(backend):
    check_autocast(matmul_call(segments("power_law"), 16, 16), backend)


X, INDPTR = torch.ones(6, 2), torch.tensor([0, 2, 2, 6])
WEIGHT, BIAS = torch.ones(3, 2, 4), torch.ones(3, 4)


@matmul_backends
@each_reject(
    bad_floats("x", X, (), (6,), (6, 2, 1), beside_others=True),
    bad_floats("weight", WEIGHT, (), (2, 2, 4), (3, 3, 4), (3, 2), (2, 4), beside_others=True),
    bad_floats("bias", BIAS, (), (4,), (3, 5), (2, 4), beside_others=True, optional=True),
    bad_indices("indptr", INDPTR, (), (0,), (4, 1)),
)
def test_rejects(backend, reject):
    arguments = {"x": X, "indptr": INDPTR, "weight": WEIGHT, "bias": BIAS}
    check_rejects(gnnkern.segment_matmul, arguments, reject, backend)


@matmul_backends
@each_index_dtype
@pytest.mark.parametrize("indptr", [[0, 2, 2, 5], [1, 2, 2, 6], [0, 4, 3, 6], [0, -1, 2, 6]])
def test_rejects_boundaries_that_are_not_those_of_x(backend, index_dtype, indptr):
    indptr = torch.tensor(indptr, dtype=index_dtype)
    with pytest.raises(ValueError, match=r"segment_matmul: .*indptr"):
        gnnkern.segment_matmul(X, indptr, WEIGHT, backend=backend)


@pytest.mark.big
def test_big():
    # 2^31 elements of input and more: the last rows lie beyond every 32-bit offset.
    num_rows, width = 2**20 + 4, 2**11
    x = torch.zeros(num_rows, width, dtype=torch.bfloat16)
    x[-1], x[-2] = 3, 2
    indptr = torch.tensor([0, num_rows - 2, num_rows - 2, num_rows])
    weight = torch.ones(3, width, 1, dtype=torch.bfloat16)
    out = gnnkern.segment_matmul(x, indptr, weight, backend="cpu")
    assert (out[:-2] == 0).all()
    assert out[-2:].tolist() == [[2.0 * width], [3.0 * width]]
