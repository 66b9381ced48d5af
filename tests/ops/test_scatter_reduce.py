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
    check_no_second_derivative,
    check_operators,
    check_repeatable,
    check_second_derivative,
    check_value,
)
from helpers.graphs import GRAPHS, scatter_index
from helpers.rejects import Reject, bad_choices, bad_floats, bad_indices, check_rejects, each_reject
from helpers.tolerance import HALVES

import gnnkern
from gnnkern.reference.scatter_reduce import scatter_reduce_reference

REDUCES = ("sum", "mean", "max", "min", "mul")

reduce_backends = each_backend("scatter_reduce")
reduce_kernels = each_kernel("scatter_reduce")
each_reduce = pytest.mark.parametrize("reduce", REDUCES)
each_trailing = pytest.mark.parametrize("trailing", [(), (5,), (2, 3)], ids=["1d", "2d", "3d"])


def reduce_call(indices, trailing, reduce="sum", dtype=torch.float32, **options):
    index, num_segments = indices
    x = normal(len(index), *trailing)
    if reduce == "mul":
        # Factors near 1 and -1, so that thousands of them neither overflow nor vanish.
        x = x.sign() * (0.01 * x).exp()

    def op(x, *, backend):
        return gnnkern.scatter_reduce(
            x, index, num_segments=num_segments, reduce=reduce, backend=backend, **options
        )

    def reference(x):
        return scatter_reduce_reference(x, index, num_segments, reduce)

    return Call(op, reference, (x,)).to(dtype)


# Value and gradient


@reduce_kernels
@each_reduce
@each_width
def test_value_and_gradient_at_every_width(backend, reduce, width):
    check_gradient(reduce_call(scatter_index("power_law"), (width,), reduce), backend)


@reduce_kernels
@each_reduce
@each_dtype
@pytest.mark.parametrize("trailing", [(), (8,), (33,), (3, 43)], ids=["1d", "8", "33", "3x43"])
def test_value_and_gradient_of_every_dtype(backend, reduce, dtype, trailing):
    check_gradient(reduce_call(scatter_index("power_law"), trailing, reduce, dtype), backend)


@reduce_backends
@each_reduce
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("trailing", [(), (5,)], ids=["1d", "2d"])
def test_value_and_gradient_on_every_graph(backend, reduce, name, trailing):
    check_gradient(reduce_call(scatter_index(name), trailing, reduce), backend)


@reduce_kernels
@each_reduce
@pytest.mark.parametrize("dtype", HALVES)
def test_long_segments_of_halves_are_reduced_in_float32(backend, reduce, dtype):
    check_value(reduce_call(scatter_index("long_rows"), (8,), reduce, dtype), backend)


@reduce_backends
@pytest.mark.parametrize("dtype", HALVES)
def test_mean_of_more_rows_than_a_half_can_count(backend, dtype):
    check_gradient(
        reduce_call((torch.zeros(70_000, dtype=torch.int64), 1), (1,), "mean", dtype), backend
    )


@reduce_backends
@each_reduce
@each_index_dtype
@pytest.mark.parametrize("name", ["empty", "no_edges", "power_law"])
def test_index_dtypes(backend, reduce, index_dtype, name):
    check_gradient(reduce_call(scatter_index(name, index_dtype), (8,), reduce), backend)


@reduce_kernels
@each_reduce
@each_layout
@pytest.mark.parametrize("trailing", [(), (2, 3)], ids=["1d", "3d"])
def test_layouts(backend, reduce, layout, trailing):
    call = reduce_call(scatter_index("bipartite"), trailing, reduce).laid_out(layout)
    check_gradient(call, backend, upstream_layout="transposed")


@reduce_backends
@each_reduce
def test_strided_index(backend, reduce):
    index, num_segments = scatter_index("bipartite")
    strided = torch.stack([index, -index], dim=1)[:, 0]
    check_gradient(reduce_call((strided, num_segments), (3,), reduce), backend)


@reduce_backends
@each_reduce
def test_sorted_and_descending_index(backend, reduce):
    index, num_segments = scatter_index("power_law")
    for order in (index.sort().values, index.sort(descending=True).values):
        check_gradient(reduce_call((order, num_segments), (3,), reduce), backend)


@reduce_backends
@each_reduce
def test_gradient_of_a_sum(backend, reduce):
    call = reduce_call(scatter_index("power_law"), (33,), reduce)
    check_gradient(call, backend, upstream_layout="expanded")


@reduce_backends
@each_reduce
@each_trailing
def test_gradcheck(backend, reduce, trailing):
    check_gradcheck(reduce_call(scatter_index("isolated_ends"), trailing, reduce), backend)


@reduce_backends
@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_second_derivative(backend, reduce):
    check_second_derivative(reduce_call(scatter_index("isolated_ends"), (2,), reduce), backend)


@reduce_backends
@pytest.mark.parametrize("reduce", ["max", "min", "mul"])
def test_no_second_derivative(backend, reduce):
    check_no_second_derivative(reduce_call(scatter_index("isolated_ends"), (2,), reduce), backend)


# Values worked out by hand


@reduce_backends
@pytest.mark.parametrize(
    "reduce, expected",
    [
        ("sum", [0.0, -6.0, 0.0, 8.0, 0.0]),
        ("mean", [0.0, -2.0, 0.0, 4.0, 0.0]),
        # The maximum of a segment is negative: a running maximum that starts at 0 shows.
        ("max", [0.0, -1.0, 0.0, 6.0, 0.0]),
        ("min", [0.0, -3.0, 0.0, 2.0, 0.0]),
        ("mul", [1.0, -6.0, 1.0, 12.0, 1.0]),
    ],
)
def test_by_hand(backend, reduce, expected):
    x = torch.tensor([-1.0, 6.0, -3.0, -2.0, 2.0])
    index = torch.tensor([1, 3, 1, 1, 3])
    out = gnnkern.scatter_reduce(x, index, num_segments=5, reduce=reduce, backend=backend)
    assert out.tolist() == expected
    out = gnnkern.scatter_reduce(x, index, reduce=reduce, backend=backend)
    assert out.tolist() == expected[:4]


@reduce_backends
@each_reduce
@each_index_dtype
def test_the_number_of_segments_of_nothing(backend, reduce, index_dtype):
    index = torch.empty(0, dtype=index_dtype)
    x = torch.empty(0, 3)
    out = gnnkern.scatter_reduce(x, index, reduce=reduce, backend=backend)
    assert out.shape == (0, 3)
    out = gnnkern.scatter_reduce(x, index, num_segments=2, reduce=reduce, backend=backend)
    assert out.tolist() == [[float(reduce == "mul")] * 3] * 2


@reduce_backends
@pytest.mark.parametrize(
    "x, expected",
    [
        ([2.0, 3.0, 4.0], [12.0, 8.0, 6.0]),
        ([2.0, 0.0, 4.0], [0.0, 8.0, 0.0]),
        ([0.0, 0.0, 4.0], [0.0, 0.0, 0.0]),
        ([-0.0, 3.0, 4.0], [12.0, 0.0, 0.0]),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
    ],
)
def test_gradient_of_a_product_with_zeros(backend, x, expected):
    # The gradient is the product of the others, where dividing by x would give NaN.
    x = torch.tensor([5.0, *x], requires_grad=True)
    index = torch.tensor([2, 0, 0, 0])
    gnnkern.scatter_reduce(x, index, reduce="mul", backend=backend).sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([1.0, *expected]), rtol=1e-6, atol=0)


# Ties, NaN and infinities


@reduce_backends
@pytest.mark.parametrize("reduce", ["max", "min"])
@pytest.mark.parametrize("name", ["dense_small", "power_law", "long_rows"])
def test_the_first_row_wins_a_tie(backend, reduce, name):
    index, num_segments = scatter_index(name)
    x = torch.full((len(index), 3), -2.0, requires_grad=True)
    out = gnnkern.scatter_reduce(
        x, index, num_segments=num_segments, reduce=reduce, backend=backend
    )
    out.sum().backward()
    expected, seen = torch.zeros_like(x), set()
    for row, segment in enumerate(index.tolist()):
        expected[row] = segment not in seen
        seen.add(segment)
    assert torch.equal(x.grad, expected)


@reduce_kernels
@pytest.mark.parametrize("reduce", ["max", "min"])
@pytest.mark.parametrize("name", ["dense_small", "long_rows"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_ties(backend, reduce, name, dtype):
    check_gradient(reduce_call(scatter_index(name), (33,), reduce, dtype).on_grid(), backend)


@reduce_kernels
@each_reduce
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["power_law", "long_rows"])
def test_nan_propagates(backend, reduce, dtype, name):
    call = reduce_call(scatter_index(name), (33,), reduce, dtype)
    call.tensors[0][7, ::2] = float("nan")
    call.tensors[0][9, ::3] = float("nan")
    check_gradient(call, backend)
    assert call.run(*call.tensors, backend=backend).isnan().any()


@reduce_backends
@pytest.mark.parametrize("reduce", ["max", "min"])
def test_the_first_nan_wins(backend, reduce):
    nan = float("nan")
    x = torch.tensor([1.0, nan, 5.0, nan, -5.0], requires_grad=True)
    index = torch.zeros(5, dtype=torch.int64)
    out = gnnkern.scatter_reduce(x, index, reduce=reduce, backend=backend)
    assert out.isnan().all()
    out.sum().backward()
    assert x.grad.tolist() == [0, 1, 0, 0, 0]


@reduce_backends
@pytest.mark.parametrize("reduce", ["max", "min"])
@pytest.mark.parametrize("infinity", [float("inf"), -float("inf")])
def test_infinities_are_values_like_others(backend, reduce, infinity):
    call = reduce_call(scatter_index("bipartite"), (8,), reduce)
    call.tensors[0][::2] = infinity
    check_gradient(call, backend)
    call.tensors[0][:] = infinity
    check_gradient(call, backend)


# Everything else


@reduce_backends
@each_reduce
@pytest.mark.parametrize("name", ["power_law", "long_rows"])
@pytest.mark.parametrize("width", [1, 64])
def test_repeatable(backend, reduce, name, width):
    check_repeatable(reduce_call(scatter_index(name), (width,), reduce), backend)


@reduce_backends
@each_reduce
def test_compiles(backend, reduce):
    check_compiled(reduce_call(scatter_index("bipartite"), (8,), reduce), backend)


@reduce_backends
@each_reduce
@each_trailing
def test_operators(backend, reduce, trailing):
    check_operators(reduce_call(scatter_index("bipartite"), trailing, reduce), backend)


@reduce_backends
@each_reduce
def test_autocast(backend, reduce):
    check_autocast(reduce_call(scatter_index("power_law"), (16,), reduce), backend)


X, INDEX = torch.ones(6, 2), torch.tensor([2, 0, 2, 1, 1, 0])


@reduce_backends
@each_reject(
    bad_floats("x", X, (), (5, 2), (7, 2)),
    bad_indices("index", INDEX, (), (5,), (7,), (6, 2), (6, 1)),
    bad_choices("reduce", "median", "prod", "Sum ", ""),
    [
        Reject("num_segments", "too_small", 2, ValueError),
        Reject("num_segments", "negative", -1, ValueError),
        Reject("num_segments", "float", 3.0, TypeError),
        Reject("num_segments", "tensor", torch.tensor([3, 3]), TypeError),
        Reject("deterministic", "number", 0, TypeError),
        Reject("deterministic", "none", None, TypeError),
    ],
)
def test_rejects(backend, reject):
    arguments = {
        "x": X,
        "index": INDEX,
        "num_segments": 3,
        "reduce": "sum",
        "deterministic": True,
    }
    check_rejects(gnnkern.scatter_reduce, arguments, reject, backend)


@reduce_backends
@each_reduce
@each_index_dtype
@pytest.mark.parametrize(
    "bad, num_segments", [(-1, None), (-7, None), (-1, 3), (3, 3), (2**31 - 1, 3)]
)
def test_rejects_an_index_out_of_range(backend, reduce, index_dtype, bad, num_segments):
    index = INDEX.to(index_dtype, copy=True)
    index[4] = bad
    with pytest.raises(ValueError, match=rf"scatter_reduce: .*index.*{bad}"):
        gnnkern.scatter_reduce(X, index, num_segments=num_segments, reduce=reduce, backend=backend)


@reduce_backends
@each_reduce
def test_any_order_is_allowed_to_be_in_order(backend, reduce):
    call = reduce_call(scatter_index("power_law"), (3,), reduce, deterministic=False)
    check_value(call, backend)
    in_order = reduce_call(scatter_index("power_law"), (3,), reduce)
    results = [each.run(*call.tensors, backend=backend) for each in (call, in_order)]
    assert backend == "cuda" or torch.equal(*results)


@pytest.mark.big
@pytest.mark.parametrize("reduce", ["sum", "max"])
def test_big(reduce):
    # 2^31 elements of input and more: the last rows lie beyond every 32-bit offset.
    num_rows, width = 2**20 + 4, 2**11
    x = torch.zeros(num_rows, width, dtype=torch.bfloat16)
    x[-1], x[-2] = 3, 2
    index = torch.zeros(num_rows, dtype=torch.int64)
    index[-2:] = 2
    out = gnnkern.scatter_reduce(x, index, num_segments=3, reduce=reduce, backend="cpu")
    assert (out[:2] == 0).all()
    assert (out[2] == (5 if reduce == "sum" else 3)).all()
