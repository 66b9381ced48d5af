"""segment_reduce, segment_gather, segment_softmax and scatter_reduce: rows without a graph."""

from functools import partial

import pytest
import torch
from helpers.cases import each_dtype, each_index_dtype, each_layout
from helpers.checks import (
    check_compiled,
    check_gradcheck,
    check_gradient,
    check_operators,
    check_repeatable,
    check_value,
)
from helpers.devices import (
    DEVICE,
    device_index,
    device_segments,
    each_name,
    on_device,
    small_tiles,
)
from ops import test_scatter_reduce, test_segment_gather, test_segment_reduce, test_segment_softmax

import gnnkern

REDUCES = ("sum", "mean", "max", "min", "mul")


def segment_reduce_call(reduce, name, trailing, dtype=torch.float32, index=torch.int64):
    indptr = device_segments(name, index)
    return on_device(test_segment_reduce.reduce_call(indptr, trailing, reduce, dtype))


def scatter_reduce_call(reduce, name, trailing, dtype=torch.float32, index=torch.int64):
    indices = device_index(name, index)
    return on_device(test_scatter_reduce.reduce_call(indices, trailing, reduce, dtype))


def gather_call(name, trailing, dtype=torch.float32, index=torch.int64):
    indptr = device_segments(name, index)
    return on_device(test_segment_gather.gather_call(indptr, trailing, dtype))


def softmax_call(name, trailing, dtype=torch.float32, index=torch.int64):
    indptr = device_segments(name, index)
    return on_device(test_segment_softmax.softmax_call(indptr, trailing, dtype))


CALLS = {
    **{f"segment_reduce_{reduce}": partial(segment_reduce_call, reduce) for reduce in REDUCES},
    **{f"scatter_reduce_{reduce}": partial(scatter_reduce_call, reduce) for reduce in REDUCES},
    "segment_gather": gather_call,
    "segment_softmax": softmax_call,
}
# One of each family.
SOME = ("segment_reduce_mean", "segment_reduce_max", "scatter_reduce_min", "segment_softmax")
each_call = pytest.mark.parametrize("which", CALLS)
some_calls = pytest.mark.parametrize("which", SOME)


@each_call
def test_gradient(which, backend):
    check_gradient(CALLS[which]("hubs", (3,)), backend)


@some_calls
@each_name
def test_value_on_every_graph(which, name, backend):
    check_value(CALLS[which](name, (3,)), backend)


@pytest.mark.parametrize("trailing", [(), (33,), (2, 3)], ids=["1d", "33", "2x3"])
@pytest.mark.parametrize("which", [*SOME, "segment_gather"])
def test_gradient_of_every_shape(which, trailing, backend):
    check_gradient(CALLS[which]("multi_edges", trailing), backend)


@pytest.mark.parametrize("width", [1, 40])
@some_calls
def test_value_of_wide_and_narrow_rows(which, width, backend):
    check_value(CALLS[which]("hubs", (width,)), backend)


@each_dtype
@pytest.mark.parametrize("which", [*SOME, "segment_gather"])
def test_gradient_of_every_dtype(which, dtype, backend):
    check_gradient(CALLS[which]("multi_edges", (3,), dtype), backend)


@each_index_dtype
@some_calls
def test_index_dtypes(which, index_dtype, backend):
    check_value(CALLS[which]("hubs", (3,), torch.float32, index_dtype), backend)


@each_layout
@pytest.mark.parametrize("which", ["segment_reduce_max", "segment_softmax", "segment_gather"])
def test_layouts(which, layout, backend):
    call = CALLS[which]("multi_edges", (6,)).laid_out(layout)
    check_gradient(call, backend, upstream_layout="transposed")


@pytest.mark.parametrize("which", ["segment_reduce_mul", "scatter_reduce_max", "segment_softmax"])
def test_gradcheck(which, backend):
    with small_tiles(chunk_edges=3):
        check_gradcheck(CALLS[which]("tiny", (1,)), backend)


@pytest.mark.parametrize("which", [*SOME, "segment_gather"])
def test_operators(which, backend):
    check_operators(CALLS[which]("tiny", (1,)), backend)


@some_calls
def test_compiles(which, backend):
    check_compiled(CALLS[which]("tiny", (2,)), backend)


@pytest.mark.parametrize("which", ["segment_reduce_max", "segment_softmax"])
def test_repeatable(which, backend):
    check_repeatable(CALLS[which]("hubs", (3,)), backend)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("which", ["segment_reduce_max", "segment_softmax"])
def test_not_finite(which, value, backend):
    call = CALLS[which]("hubs", (3,))
    call.tensors[0][::7, 1] = value
    # Both a whole short segment and a whole long one.
    call.tensors[0][:32, 2] = value
    call.tensors[0][50:, 2] = value
    check_value(call, backend)


def test_zeros_in_a_product(backend):
    call = segment_reduce_call("mul", "hubs", (3,))
    call.tensors[0][::20, 0] = 0
    call.tensors[0][::7, 1] = 0
    check_gradient(call, backend)


@pytest.mark.skipif(DEVICE.type != "cpu", reason="a device raises later, and is lost by it")
def test_a_group_out_of_range_raises(backend):
    index = torch.tensor([0, 5, 1])
    with pytest.raises(ValueError, match=r"num_segments=2.*got 5 at position 1"):
        gnnkern.scatter_reduce(torch.ones(3, 2), index, num_segments=2, backend=backend)
