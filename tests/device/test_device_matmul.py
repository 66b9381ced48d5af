"""segment_matmul and gather_matmul: rows times the matrix of their segment or type."""

import pytest
import torch
from helpers.cases import Call, each_dtype, each_index_dtype, each_layout
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
from helpers.devices import (
    DEVICE,
    device_index,
    device_segments,
    each_name,
    on_device,
    small_tiles,
)
from ops import test_gather_matmul, test_segment_matmul

import gnnkern

FLOAT32, INT64 = torch.float32, torch.int64


def segment_call(name, width=5, out_width=3, bias=True, dtype=FLOAT32, index=INT64):
    indptr = device_segments(name, index)
    return on_device(test_segment_matmul.matmul_call(indptr, width, out_width, bias, dtype))


def gather_call(name, width=5, out_width=3, bias=True, dtype=FLOAT32, index=INT64):
    types = device_index(name, index)
    return on_device(test_gather_matmul.matmul_call(types, width, out_width, bias, dtype))


CALLS = {"segment_matmul": segment_call, "gather_matmul": gather_call}
each_call = pytest.mark.parametrize("which", CALLS)
each_bias = pytest.mark.parametrize("bias", [False, True], ids=["no_bias", "bias"])


@each_call
@each_name
@each_bias
def test_gradients_on_every_graph(which, name, bias, backend):
    check_gradient(CALLS[which](name, bias=bias), backend)


@each_call
@pytest.mark.parametrize("width, out_width", [(0, 3), (3, 0), (1, 1), (33, 17), (8, 40)])
def test_gradients_at_every_width(which, width, out_width, backend):
    check_gradient(CALLS[which]("hubs", width, out_width), backend)


@each_call
@each_dtype
def test_gradients_of_every_dtype(which, dtype, backend):
    check_gradient(CALLS[which]("hubs", 9, 10, dtype=dtype), backend)


@each_call
@each_index_dtype
def test_index_dtypes(which, index_dtype, backend):
    check_gradient(CALLS[which]("hubs", index=index_dtype), backend)


@each_call
@each_layout
def test_layouts(which, layout, backend):
    call = CALLS[which]("multi_edges", 8, 6).laid_out(layout)
    check_gradient(call, backend, upstream_layout="transposed")


@pytest.mark.parametrize("dims", [(0, 2, 1), (1, 0, 2), (2, 1, 0)])
def test_matrices_of_any_strides(dims, backend):
    call = segment_call("hubs", 7, 6, bias=False)
    x, weight = call.tensors
    weight = weight.permute(dims).contiguous().permute(tuple(torch.tensor(dims).argsort().tolist()))
    check_gradient(Call(call.op, call.reference, (x, weight)), backend)


def test_one_matrix_for_all_segments(backend):
    indptr = device_segments("hubs")
    x, matrix = torch.randn(int(indptr[-1]), 4, device=DEVICE), torch.randn(4, 5, device=DEVICE)
    weight = matrix.expand(len(indptr) - 1, 4, 5)
    out = gnnkern.segment_matmul(x, indptr, weight, backend=backend)
    torch.testing.assert_close(out, x @ matrix)


@each_call
def test_gradient_of_a_sum(which, backend):
    check_gradient(CALLS[which]("multi_edges"), backend, upstream_layout="expanded")


@each_call
def test_gradients_one_at_a_time(which, backend):
    check_part_of_gradients(CALLS[which]("multi_edges"), backend)


@each_call
@each_bias
def test_derivatives(which, bias, backend):
    with small_tiles(chunk_edges=3):
        check_gradcheck(CALLS[which]("tiny", 2, 1, bias), backend)
        check_second_derivative(CALLS[which]("tiny", 2, 1, bias), backend)


@each_call
@each_bias
def test_operators(which, bias, backend):
    check_operators(CALLS[which]("tiny", 2, 1, bias), backend)


@each_call
@each_bias
def test_compiles(which, bias, backend):
    check_compiled(CALLS[which]("tiny", 2, 3, bias), backend)


@each_call
def test_repeatable(which, backend):
    check_repeatable(CALLS[which]("hubs"), backend)


@each_call
def test_autocast(which, backend):
    check_autocast(CALLS[which]("tiny", 4, 4), backend)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_no_value_leaves_its_segment(bad, backend):
    call = segment_call("hubs", 5, 6)
    x, weight, _ = call.tensors
    x[20] = bad
    weight[-2] = bad
    check_gradient(call, backend)


def test_types_in_order_are_segments(backend):
    indptr, (index, _) = device_segments("hubs"), device_index("hubs")
    call = gather_call("hubs", 6, 5)
    x, weight, bias = call.tensors
    in_order = gnnkern.gather_matmul(x, weight, index.sort().values, bias, backend=backend)
    expected = gnnkern.segment_matmul(x, indptr, weight, bias, backend=backend)
    assert torch.equal(in_order, expected)


def test_the_matrix_of_an_empty_segment_has_gradient_zero(backend):
    x = torch.ones(3, 4, device=DEVICE)
    weight = torch.ones(3, 4, 5, device=DEVICE, requires_grad=True)
    bias = torch.ones(3, 5, device=DEVICE, requires_grad=True)
    indptr = torch.tensor([0, 2, 2, 3], device=DEVICE)
    gnnkern.segment_matmul(x, indptr, weight, bias, backend=backend).sum().backward()
    assert [weight.grad[r].unique().tolist() for r in range(3)] == [[2.0], [0.0], [1.0]]
    assert [bias.grad[r].unique().tolist() for r in range(3)] == [[2.0], [0.0], [1.0]]


@pytest.mark.skipif(DEVICE.type != "cpu", reason="a device raises later, and is lost by it")
def test_a_type_out_of_range_raises(backend):
    x, weight = torch.ones(3, 2), torch.ones(2, 2, 2)
    with pytest.raises(ValueError, match=r"type_index must be in \[0, R=2\).*5 at position 1"):
        gnnkern.gather_matmul(x, weight, torch.tensor([0, 5, 1]), backend=backend)
