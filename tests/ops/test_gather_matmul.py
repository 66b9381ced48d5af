import pytest
import torch
from helpers.cases import (
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
from helpers.graphs import GRAPHS, scatter_index
from helpers.rejects import bad_floats, bad_indices, check_rejects, each_reject

import gnnkern
from gnnkern.reference.gather_matmul import gather_matmul_reference

matmul_backends = each_backend("gather_matmul")
matmul_kernels = each_kernel("gather_matmul")
each_bias = pytest.mark.parametrize("bias", [False, True], ids=["no_bias", "bias"])


def matmul_call(types, width=8, out_width=5, bias=True, dtype=torch.float32):
    type_index, num_types = types
    tensors = [normal(len(type_index), width), normal(num_types, width, out_width)]
    if bias:
        tensors.append(normal(num_types, out_width))

    def op(x, weight, bias=None, *, backend):
        return gnnkern.gather_matmul(x, weight, type_index, bias, backend=backend)

    def reference(x, weight, bias=None):
        return gather_matmul_reference(x, weight, type_index, bias)

    return Call(op, reference, tuple(tensors)).to(dtype)


# Value and gradients


@matmul_kernels
@pytest.mark.parametrize("width", [0, 1, 3, 8, 31, 33, 64, 100])
@pytest.mark.parametrize("out_width", [0, 1, 16, 33, 129])
def test_value_and_gradients_at_every_width(backend, width, out_width):
    check_gradient(matmul_call(scatter_index("bipartite"), width, out_width), backend)


@matmul_kernels
@each_dtype
@each_bias
@pytest.mark.parametrize("name", ["self_loops", "star_in", "power_law", "long_rows"])
def test_value_and_gradients_of_every_dtype(backend, dtype, bias, name):
    check_gradient(matmul_call(scatter_index(name), 33, 32, bias, dtype), backend)


@matmul_backends
@pytest.mark.parametrize("name", GRAPHS)
@each_bias
def test_value_and_gradients_on_every_graph(backend, name, bias):
    check_gradient(matmul_call(scatter_index(name), bias=bias), backend)


@matmul_backends
@each_index_dtype
@pytest.mark.parametrize("name", ["empty", "no_edges", "power_law"])
def test_index_dtypes(backend, index_dtype, name):
    check_gradient(matmul_call(scatter_index(name, index_dtype)), backend)


@matmul_kernels
@each_layout
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layouts(backend, layout, dtype):
    call = matmul_call(scatter_index("bipartite"), 32, 32, dtype=dtype).laid_out(layout)
    check_gradient(call, backend, upstream_layout="transposed")


@matmul_backends
def test_strided_types(backend):
    index, num_types = scatter_index("bipartite")
    strided = torch.stack([index, -index], dim=1)[:, 0]
    check_gradient(matmul_call((strided, num_types)), backend)


@matmul_backends
def test_sorted_and_descending_types(backend):
    index, num_types = scatter_index("power_law")
    for order in (index.sort().values, index.sort(descending=True).values):
        check_gradient(matmul_call((order, num_types)), backend)


@matmul_backends
def test_gradient_of_a_sum(backend):
    check_gradient(matmul_call(scatter_index("power_law")), backend, upstream_layout="expanded")


@matmul_kernels
def test_gradients_one_at_a_time(backend):
    check_part_of_gradients(matmul_call(scatter_index("bipartite")), backend)


@matmul_backends
@each_bias
def test_gradcheck(backend, bias):
    check_gradcheck(matmul_call(scatter_index("multi_edges"), 3, 2, bias), backend)


@matmul_backends
@each_bias
def test_second_derivative(backend, bias):
    check_second_derivative(matmul_call(scatter_index("multi_edges"), 3, 2, bias), backend)


# By hand and by torch


@matmul_backends
def test_by_hand(backend):
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    weight = torch.tensor([[[1.0], [10.0]], [[7.0], [7.0]], [[0.0], [-1.0]]])
    bias = torch.tensor([[0.5], [9.0], [0.25]])
    type_index = torch.tensor([2, 0, 2])
    out = gnnkern.gather_matmul(x, weight, type_index, backend=backend)
    assert out.tolist() == [[-2.0], [43.0], [-6.0]]
    out = gnnkern.gather_matmul(x, weight, type_index, bias, backend=backend)
    assert out.tolist() == [[-1.75], [43.5], [-5.75]]


@matmul_backends
def test_it_is_a_batch_of_products(backend):
    type_index, num_types = scatter_index("power_law")
    call = matmul_call((type_index, num_types), 7, 9, bias=False)
    x, weight = call.tensors
    expected = torch.bmm(x[:, None], weight[type_index]).squeeze(1)
    torch.testing.assert_close(call.run(x, weight, backend=backend), expected)


@matmul_kernels
def test_types_in_order_are_segments(backend):
    index, num_types = scatter_index("power_law")
    index = index.sort().values
    indptr = torch.searchsorted(index, torch.arange(num_types + 1))
    call = matmul_call((index, num_types), 33, 20)
    x, weight, bias = call.tensors
    by_type = gnnkern.gather_matmul(x, weight, index, bias, backend=backend)
    assert torch.equal(by_type, gnnkern.segment_matmul(x, indptr, weight, bias, backend=backend))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("in_order", [False, True])
def test_torch_products_of_many_rows_of_a_type(monkeypatch, dtype, in_order):
    monkeypatch.setattr("gnnkern._cpu.segment_matmul.prefers_dense", lambda *_, sums: True)
    index, num_types = scatter_index("power_law")
    if in_order:
        index = index.sort().values
    check_gradient(matmul_call((index, num_types), 33, 17, dtype=dtype), "cpu")


# Everything else


@matmul_kernels
@pytest.mark.parametrize("name", ["power_law", "long_rows"])
def test_repeatable(backend, name):
    check_repeatable(matmul_call(scatter_index(name), 33, 64), backend)


# The reference splits by the content of type_index, which a graph cannot hold.
@matmul_kernels
@each_bias
def test_compiles(backend, bias):
    check_compiled(matmul_call(scatter_index("bipartite"), bias=bias), backend)


@matmul_backends
@each_bias
def test_operators(backend, bias):
    check_operators(matmul_call(scatter_index("bipartite"), bias=bias), backend)


@matmul_backends
def test_autocast(backend):
    check_autocast(matmul_call(scatter_index("power_law"), 16, 16), backend)


X, TYPE_INDEX = torch.ones(6, 2), torch.tensor([2, 0, 2, 1, 1, 0])
WEIGHT, BIAS = torch.ones(3, 2, 4), torch.ones(3, 4)


@matmul_backends
@each_reject(
    bad_floats("x", X, (), (6,), (6, 3), (6, 2, 1), beside_others=True),
    bad_floats("weight", WEIGHT, (), (3, 3, 4), (3, 2), (2, 4), beside_others=True),
    bad_floats("bias", BIAS, (), (4,), (3, 5), (2, 4), beside_others=True, optional=True),
    bad_indices("type_index", TYPE_INDEX, (), (5,), (7,), (6, 2), (6, 1)),
)
def test_rejects(backend, reject):
    arguments = {"x": X, "weight": WEIGHT, "type_index": TYPE_INDEX, "bias": BIAS}
    check_rejects(gnnkern.gather_matmul, arguments, reject, backend)


@matmul_backends
@each_index_dtype
@pytest.mark.parametrize("bad", [-1, -7, 3, 2**31 - 1])
def test_rejects_a_type_out_of_range(backend, index_dtype, bad):
    type_index = TYPE_INDEX.to(index_dtype, copy=True)
    type_index[4] = bad
    with pytest.raises(ValueError, match=rf"gather_matmul: type_index .*{bad} at position 4"):
        gnnkern.gather_matmul(X, WEIGHT, type_index, backend=backend)
