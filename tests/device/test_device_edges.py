"""sddmm and edge_softmax: results on edges."""

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
from helpers.devices import device_graph, each_name, on_device, small_tiles
from ops import test_edge_softmax, test_sddmm, test_sddmm_targets

OPS = ("dot", "add", "sub", "mul", "div")
each_op = pytest.mark.parametrize("op", OPS)


def sddmm_call(name, *arguments, **options):
    return on_device(test_sddmm.sddmm_call(device_graph(name), *arguments, **options))


def softmax_call(name, *arguments, **options):
    return on_device(test_edge_softmax.softmax_call(device_graph(name), *arguments, **options))


# sddmm


@each_op
@pytest.mark.parametrize("width, heads", [(1, None), (33, None), (3, 3)])
def test_value_at_every_width(op, width, heads, backend):
    check_value(sddmm_call("multi_edges", width, op, heads), backend)


@each_name
@pytest.mark.parametrize("op", ["dot", "div"])
def test_gradient_on_every_graph(name, op, backend):
    check_gradient(sddmm_call(name, 3, op, dtype=torch.float64), backend)


@each_dtype
@pytest.mark.parametrize("op", ["dot", "div"])
def test_value_of_every_dtype(dtype, op, backend):
    check_value(sddmm_call("hubs", 3, op, 2, dtype), backend)


@pytest.mark.parametrize("op", ["dot", "div"])
@each_layout
def test_layouts(op, layout, backend):
    check_value(sddmm_call("multi_edges", 6, op, 3).laid_out(layout), backend)


@pytest.mark.parametrize("ends", [("src", "dst"), ("edge", "src"), ("dst", "edge"), ("src", "src")])
@pytest.mark.parametrize("op", ["dot", "div"])
def test_targets(op, ends, backend):
    g = device_graph("multi_edges")
    call = test_sddmm_targets.sddmm_call(g, op, ends, "equal", torch.float64)
    check_gradient(on_device(call), backend)


@pytest.mark.parametrize("shape", test_sddmm_targets.SHAPES)
@pytest.mark.parametrize("op", ["sub", "mul"])
def test_shapes(op, shape, backend):
    g = device_graph("multi_edges")
    call = test_sddmm_targets.sddmm_call(g, op, ("dst", "src"), shape, torch.float64)
    check_gradient(on_device(call), backend)


@pytest.mark.parametrize(
    "op, end", [("copy_lhs", "dst"), ("copy_rhs", "src"), ("copy_lhs", "edge")]
)
def test_copies(op, end, backend):
    check_gradient(on_device(test_sddmm_targets.copy_call(device_graph("hubs"), op, end)), backend)


@pytest.mark.parametrize("op", ["dot", "div"])
def test_numerical_derivatives(op, backend):
    with small_tiles(chunk_edges=3):
        check_gradcheck(sddmm_call("tiny", 1, op), backend)


# edge_softmax


@pytest.mark.parametrize("heads", [None, 1, 4, 17])
def test_softmax_of_every_number_of_heads(heads, backend):
    check_gradient(softmax_call("hubs", heads), backend)


@each_name
def test_softmax_on_every_graph(name, backend):
    check_gradient(softmax_call(name, 3), backend)


@each_dtype
def test_softmax_of_every_dtype(dtype, backend):
    check_gradient(softmax_call("hubs", 3, dtype), backend)


@each_layout
def test_softmax_layouts(layout, backend):
    call = softmax_call("multi_edges", 4).laid_out(layout)
    check_gradient(call, backend, upstream_layout="transposed")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_softmax_of_what_is_not_finite(value, backend):
    call = softmax_call("hubs", 3)
    call.tensors[0][::7, 1] = value
    check_value(call, backend)
    call.tensors[0][:] = value
    check_value(call, backend)


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_softmax_of_large_scores(size, backend):
    call = softmax_call("hubs", 3)
    call.tensors[0].add_(size)
    check_value(call, backend)


def test_softmax_numerical_derivative(backend):
    with small_tiles(chunk_edges=3):
        check_gradcheck(softmax_call("tiny"), backend)


# Both


@pytest.mark.parametrize("call_of", [sddmm_call, softmax_call], ids=["sddmm", "softmax"])
def test_everything_else(call_of, backend):
    check_operators(call_of("tiny", 1), backend)
    check_compiled(call_of("tiny", 2), backend)
    check_repeatable(call_of("hubs", 1), backend)


@each_index_dtype
def test_index_dtypes(index_dtype, backend):
    g = device_graph("hubs", index_dtype)
    check_value(on_device(test_sddmm.sddmm_call(g, 3)), backend)
    check_value(on_device(test_edge_softmax.softmax_call(g, 3)), backend)
