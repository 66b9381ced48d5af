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
    check_value,
)
from helpers.graphs import GRAPHS, graph, segments
from helpers.rejects import bad_floats, bad_indices, check_rejects, each_reject

import gnnkern
from gnnkern.reference.segment_softmax import segment_softmax_reference

INF = float("inf")

softmax_backends = each_backend("segment_softmax")
softmax_kernels = each_kernel("segment_softmax")
each_trailing = pytest.mark.parametrize("trailing", [(), (5,), (2, 3)], ids=["1d", "2d", "3d"])


def softmax_call(indptr, trailing, dtype=torch.float32):
    def op(x, *, backend):
        return gnnkern.segment_softmax(x, indptr, backend=backend)

    def reference(x):
        return segment_softmax_reference(x, indptr)

    return Call(op, reference, (3 * normal(int(indptr[-1]), *trailing),)).to(dtype)


# Value and gradient


@softmax_kernels
@each_width
@each_dtype
def test_value_and_gradient_at_every_width(backend, width, dtype):
    check_gradient(softmax_call(segments("power_law"), (width,), dtype), backend)


@softmax_backends
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("trailing", [(), (5,)], ids=["1d", "2d"])
@each_dtype
def test_value_and_gradient_on_every_graph(backend, name, trailing, dtype):
    check_gradient(softmax_call(segments(name), trailing, dtype), backend)


@softmax_backends
@each_index_dtype
@pytest.mark.parametrize("name", ["empty", "no_edges", "power_law"])
def test_index_dtypes(backend, index_dtype, name):
    check_gradient(softmax_call(segments(name, index_dtype), (8,)), backend)


@softmax_kernels
@each_layout
@each_trailing
def test_layouts(backend, layout, trailing):
    call = softmax_call(segments("bipartite"), trailing).laid_out(layout)
    check_gradient(call, backend, upstream_layout="transposed")


@softmax_backends
def test_strided_indptr(backend):
    indptr = segments("bipartite")
    check_gradient(softmax_call(torch.stack([indptr, -indptr], dim=1)[:, 0], (3,)), backend)


@softmax_backends
@each_trailing
def test_gradcheck(backend, trailing):
    check_gradcheck(softmax_call(segments("isolated_ends"), trailing), backend)


@softmax_backends
def test_no_second_derivative(backend):
    check_no_second_derivative(softmax_call(segments("isolated_ends"), (2,)), backend)


# What a softmax is


@softmax_backends
@each_trailing
def test_it_is_torch_softmax_of_each_segment(backend, trailing):
    indptr = segments("power_law")
    call = softmax_call(indptr, trailing)
    parts = call.tensors[0].tensor_split(indptr[1:-1])
    expected = torch.cat([part.softmax(0) for part in parts])
    torch.testing.assert_close(call.run(*call.tensors, backend=backend), expected)


@softmax_backends
def test_it_is_edge_softmax_of_sorted_edges(backend):
    g = graph("dense_small")
    score = normal(g.num_edges, 3).float()
    by_segment = gnnkern.segment_softmax(score, segments("dense_small"), backend=backend)
    by_edge = gnnkern.edge_softmax(g, score, backend=backend)
    torch.testing.assert_close(by_segment, by_edge)


@softmax_backends
@pytest.mark.parametrize("shift", [-1e4, 0.0, 1e4])
def test_large_scores_do_not_overflow(backend, shift):
    indptr = segments("power_law")
    x = (normal(int(indptr[-1]), 3) * 8).round() / 8
    shifted = gnnkern.segment_softmax((x + shift).float(), indptr, backend=backend)
    expected = segment_softmax_reference(x, indptr)
    torch.testing.assert_close(shifted.double(), expected, rtol=1e-5, atol=1e-9)


@softmax_backends
@each_dtype
@pytest.mark.parametrize("name", ["star_in", "long_rows"])
def test_a_column_of_minus_infinity_gives_zero(backend, dtype, name):
    # Column 0 is -inf throughout, column 1 here and there, column 2 but for one 0 per segment.
    indptr = segments(name)
    call = softmax_call(indptr, (4,), dtype)
    x = call.tensors[0]
    x[:, 0] = -INF
    x[::2, 1] = -INF
    x[:, 2] = -INF
    last = indptr[1:][indptr.diff() > 0] - 1
    x[last, 2] = 0
    check_gradient(call, backend)
    out = call.run(x, backend=backend)
    assert (out[:, 0] == 0).all()
    assert (out[last, 2] == 1).all()
    assert out[:, 2].sum() == len(last)


@softmax_backends
@each_dtype
@pytest.mark.parametrize("bad", [float("nan"), INF], ids=["nan", "inf"])
def test_nan_and_infinity_spoil_their_segment_and_column_only(backend, dtype, bad):
    indptr = segments("power_law")
    call = softmax_call(indptr, (3,), dtype)
    call.tensors[0][40, 1] = bad
    check_value(call, backend)
    out = call.run(*call.tensors, backend=backend)
    begin = indptr[indptr <= 40].max()
    end = indptr[indptr > 40].min()
    assert out[40, 1].isnan()
    assert not out[:begin].isnan().any()
    assert not out[end:].isnan().any()
    assert not out[:, ::2].isnan().any()


# Everything else


@softmax_backends
@pytest.mark.parametrize("name", ["power_law", "long_rows"])
@pytest.mark.parametrize("trailing", [(), (5,)], ids=["1d", "2d"])
@each_dtype
def test_repeatable(backend, name, trailing, dtype):
    check_repeatable(softmax_call(segments(name), trailing, dtype), backend)


@softmax_backends
@each_trailing
def test_compiles(backend, trailing):
    check_compiled(softmax_call(segments("bipartite"), trailing), backend)


@softmax_backends
@each_trailing
def test_operators(backend, trailing):
    check_operators(softmax_call(segments("bipartite"), trailing), backend)


@softmax_backends
def test_autocast(backend):
    check_autocast(softmax_call(segments("power_law"), (16,)), backend)


X, INDPTR = torch.ones(6, 2), torch.tensor([0, 2, 2, 6])


@softmax_backends
@each_reject(
    bad_floats("x", X, ()),
    bad_indices("indptr", INDPTR, (), (0,), (4, 1)),
)
def test_rejects(backend, reject):
    check_rejects(gnnkern.segment_softmax, {"x": X, "indptr": INDPTR}, reject, backend)


@softmax_backends
@each_index_dtype
@pytest.mark.parametrize(
    "indptr", [[0, 2, 2, 5], [0, 2, 2, 7], [1, 2, 2, 6], [0, 4, 3, 6], [0, -1, 2, 6], [0, 9, 2, 6]]
)
def test_rejects_boundaries_that_are_not_those_of_x(backend, index_dtype, indptr):
    with pytest.raises(ValueError, match=r"segment_softmax: .*indptr"):
        gnnkern.segment_softmax(X, torch.tensor(indptr, dtype=index_dtype), backend=backend)


@pytest.mark.big
def test_big():
    # 2^31 scores and more: the last rows lie beyond every 32-bit offset.
    num_rows, width = 2**20 + 4, 2**11
    x = torch.zeros(num_rows, width, dtype=torch.bfloat16)
    x[-2:, -1] = torch.tensor([0.0, -INF])
    indptr = torch.arange(0, num_rows + 1, 2)
    out = gnnkern.segment_softmax(x, indptr, backend="cpu")
    assert (out[:-2] == 0.5).all()
    assert (out[-2:, :-1] == 0.5).all()
    assert out[-2:, -1].tolist() == [1, 0]
