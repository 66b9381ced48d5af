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
    check_value,
)
from helpers.graphs import GRAPHS, scatter_index
from helpers.rejects import Reject, bad_floats, bad_indices, check_rejects, each_reject
from helpers.tolerance import HALVES

import gnnkern
from gnnkern.reference.scatter_std import scatter_std_reference

std_backends = each_backend("scatter_std")
std_kernels = each_kernel("scatter_std")
each_trailing = pytest.mark.parametrize("trailing", [(), (5,), (2, 3)], ids=["1d", "2d", "3d"])
each_bias = pytest.mark.parametrize("unbiased", [True, False], ids=["unbiased", "biased"])


def std_call(indices, trailing, unbiased=True, dtype=torch.float32, mean=0.0):
    index, num_segments = indices

    def op(x, *, backend):
        return gnnkern.scatter_std(
            x, index, num_segments=num_segments, unbiased=unbiased, backend=backend
        )

    def reference(x):
        return scatter_std_reference(x, index, num_segments, unbiased)

    return Call(op, reference, (normal(len(index), *trailing) + mean,)).to(dtype)


# Value and gradient


@std_kernels
@each_width
@each_dtype
def test_value_and_gradient_at_every_width(backend, width, dtype):
    check_gradient(std_call(scatter_index("power_law"), (width,), dtype=dtype), backend)


@std_backends
@each_bias
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("trailing", [(), (5,)], ids=["1d", "2d"])
def test_value_and_gradient_on_every_graph(backend, unbiased, name, trailing):
    check_gradient(std_call(scatter_index(name), trailing, unbiased), backend)


@std_kernels
@each_bias
@pytest.mark.parametrize("dtype", HALVES)
def test_long_segments_of_halves_are_reduced_in_float32(backend, unbiased, dtype):
    check_value(std_call(scatter_index("long_rows"), (8,), unbiased, dtype), backend)


@std_backends
@pytest.mark.parametrize("dtype", HALVES)
def test_more_rows_than_a_half_can_count(backend, dtype):
    index = torch.zeros(70_000, dtype=torch.int64)
    check_gradient(std_call((index, 1), (1,), dtype=dtype), backend)


@std_backends
@each_index_dtype
@pytest.mark.parametrize("name", ["empty", "no_edges", "power_law"])
def test_index_dtypes(backend, index_dtype, name):
    check_gradient(std_call(scatter_index(name, index_dtype), (8,)), backend)


@std_kernels
@each_layout
@each_trailing
def test_layouts(backend, layout, trailing):
    call = std_call(scatter_index("bipartite"), trailing).laid_out(layout)
    check_gradient(call, backend, upstream_layout="transposed")


@std_backends
def test_strided_index(backend):
    index, num_segments = scatter_index("bipartite")
    strided = torch.stack([index, -index], dim=1)[:, 0]
    check_gradient(std_call((strided, num_segments), (3,)), backend)


@std_backends
def test_sorted_and_descending_index(backend):
    index, num_segments = scatter_index("power_law")
    for order in (index.sort().values, index.sort(descending=True).values):
        check_gradient(std_call((order, num_segments), (3,)), backend)


@std_backends
def test_gradient_of_a_sum(backend):
    check_gradient(std_call(scatter_index("power_law"), (33,)), backend, upstream_layout="expanded")


@std_backends
@each_bias
@each_trailing
def test_gradcheck(backend, unbiased, trailing):
    check_gradcheck(std_call(scatter_index("multi_edges"), trailing, unbiased), backend)


@std_backends
@each_bias
def test_second_derivative(backend, unbiased):
    check_second_derivative(std_call(scatter_index("multi_edges"), (2,), unbiased), backend)


# What it is


@pytest.mark.filterwarnings("ignore:std.*degrees of freedom")
@std_backends
@each_bias
@each_trailing
def test_it_is_torch_std_of_each_group(backend, unbiased, trailing):
    index, num_segments = scatter_index("bipartite")
    call = std_call((index, num_segments), trailing, unbiased)
    (x,) = call.tensors
    expected = torch.stack([x[index == i].std(0, correction=int(unbiased)) for i in range(29)])
    # Of one value the unbiased estimate is undefined, of none both are.
    expected = expected.nan_to_num(0)
    torch.testing.assert_close(call.run(x, backend=backend), expected)


@std_backends
@pytest.mark.parametrize(
    "unbiased, expected",
    [(True, [0.0, 2.0, 0.0, 2**0.5]), (False, [0.0, (8 / 3) ** 0.5, 0.0, 1.0])],
)
def test_by_hand(backend, unbiased, expected):
    x = torch.tensor([1.0, 5.0, 3.0, 4.0, 2.0, 7.0])
    index = torch.tensor([1, 1, 1, 3, 3, 2])
    out = gnnkern.scatter_std(x, index, num_segments=4, unbiased=unbiased, backend=backend)
    torch.testing.assert_close(out, torch.tensor(expected))


@std_backends
@each_index_dtype
def test_the_number_of_segments_of_nothing(backend, index_dtype):
    index = torch.empty(0, dtype=index_dtype)
    x = torch.empty(0, 3)
    assert gnnkern.scatter_std(x, index, backend=backend).shape == (0, 3)
    out = gnnkern.scatter_std(x, index, num_segments=2, backend=backend)
    assert out.tolist() == [[0.0] * 3] * 2


@std_backends
@each_bias
@each_dtype
@pytest.mark.parametrize("name", ["chain", "power_law", "long_rows"])
def test_equal_rows_have_neither_deviation_nor_gradient(backend, unbiased, dtype, name):
    index, num_segments = scatter_index(name)
    x = (index.to(dtype)[:, None] / 8 + 0.1).repeat(1, 17).requires_grad_()
    out = gnnkern.scatter_std(
        x, index, num_segments=num_segments, unbiased=unbiased, backend=backend
    )
    (grad,) = torch.autograd.grad(out.sum(), x)
    if backend == "reference" and name != "chain":
        # A mean that is rounded is not quite the value that it is the mean of.
        assert (out < 1e-4 * num_segments).all()
        return
    assert (out == 0).all() and (grad == 0).all()


@std_kernels
@pytest.mark.parametrize("mean", [1e3, -1e5])
@pytest.mark.parametrize("name", ["power_law", "long_rows"])
def test_values_far_from_zero_lose_nothing(backend, mean, name):
    # The float32 values are taken for exact.
    call = std_call(scatter_index(name), (20,), mean=mean)
    out = call.run(*call.tensors, backend=backend).double()
    expected = call.reference(call.tensors[0].double())
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


@std_backends
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["power_law", "long_rows"])
def test_nan_propagates(backend, dtype, bad, name):
    call = std_call(scatter_index(name), (33,), dtype=dtype)
    call.tensors[0][7, ::2] = bad
    check_gradient(call, backend)
    assert call.run(*call.tensors, backend=backend).isnan().any()


# Everything else


@std_backends
@pytest.mark.parametrize("name", ["power_law", "long_rows"])
@pytest.mark.parametrize("width", [1, 64])
def test_repeatable(backend, name, width):
    check_repeatable(std_call(scatter_index(name), (width,)), backend)


@std_backends
@each_bias
def test_compiles(backend, unbiased):
    check_compiled(std_call(scatter_index("bipartite"), (8,), unbiased), backend)


@std_backends
@each_trailing
def test_operators(backend, trailing):
    check_operators(std_call(scatter_index("bipartite"), trailing), backend)


@std_backends
def test_autocast(backend):
    check_autocast(std_call(scatter_index("multi_edges"), (16,)), backend)


X, INDEX = torch.ones(6, 2), torch.tensor([2, 0, 2, 1, 1, 0])


@std_backends
@each_reject(
    bad_floats("x", X, (), (5, 2), (7, 2)),
    bad_indices("index", INDEX, (), (5,), (7,), (6, 2), (6, 1)),
    [
        Reject("num_segments", "too_small", 2, ValueError),
        Reject("num_segments", "negative", -1, ValueError),
        Reject("num_segments", "float", 3.0, TypeError),
        Reject("unbiased", "number", 1, TypeError),
        Reject("unbiased", "None", None, TypeError),
    ],
)
def test_rejects(backend, reject):
    arguments = {"x": X, "index": INDEX, "num_segments": 3, "unbiased": True}
    check_rejects(gnnkern.scatter_std, arguments, reject, backend)


@std_backends
@each_index_dtype
@pytest.mark.parametrize(
    "bad, num_segments", [(-1, None), (-7, None), (-1, 3), (3, 3), (2**31 - 1, 3)]
)
def test_rejects_an_index_out_of_range(backend, index_dtype, bad, num_segments):
    index = INDEX.to(index_dtype, copy=True)
    index[4] = bad
    with pytest.raises(ValueError, match=rf"scatter_std: .*index.*{bad}"):
        gnnkern.scatter_std(X, index, num_segments=num_segments, backend=backend)
