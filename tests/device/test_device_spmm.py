import pytest
import torch
from helpers.cases import each_dtype, each_index_dtype, each_layout
from helpers.checks import (
    check_autocast,
    check_compiled,
    check_gradcheck,
    check_gradient,
    check_no_second_derivative,
    check_operators,
    check_part_of_gradients,
    check_repeatable,
    check_second_derivative,
    check_value,
)
from helpers.devices import DEVICE, device_graph, each_name, on_device, small_tiles
from ops.test_spmm import FORMS, HEADS, REDUCES, spmm_call
from ops.test_spmm_messages import copy_call, message_call, on_grid

import gnnkern

each_reduce = pytest.mark.parametrize("reduce", REDUCES)


def call_of(name, *arguments, **options):
    return on_device(spmm_call(device_graph(name), *arguments, **options))


@each_reduce
@pytest.mark.parametrize("width", [1, 3, 33, 64])
def test_value_at_every_width(reduce, width, backend):
    check_value(call_of("hubs", width, reduce), backend)


@each_name
@each_reduce
def test_gradient_on_every_graph(name, reduce, backend):
    check_gradient(call_of(name, 5, reduce).on_grid(), backend)


@pytest.mark.parametrize("reduce", ["sum", "max"])
@pytest.mark.parametrize("form", FORMS[::2])
def test_gradient_of_every_form(reduce, form, backend):
    check_gradient(call_of("hubs", 8, reduce, form).on_grid(), backend)


@each_dtype
@pytest.mark.parametrize("reduce", ["mean", "min"])
def test_gradient_of_every_dtype(dtype, reduce, backend):
    form = "x3_weight_per_head"
    check_gradient(call_of("hubs", 3, reduce, form, dtype).on_grid(), backend)


@each_index_dtype
def test_index_dtypes(index_dtype, backend):
    g = device_graph("hubs", index_dtype)
    check_gradient(on_device(spmm_call(g, 3, "max")), backend)


@each_layout
def test_layouts(layout, backend):
    for reduce in ("sum", "min"):
        call = call_of("multi_edges", 6, reduce, "x3_weight_per_head").laid_out(layout)
        check_gradient(call, backend, upstream_layout="transposed")


@pytest.mark.parametrize("reduce", ["sum", "max"])
def test_gradient_of_a_sum(reduce, backend):
    check_gradient(call_of("bipartite", 5, reduce), backend, upstream_layout="expanded")


@pytest.mark.parametrize("reduce", ["mean", "min"])
def test_gradcheck(reduce, backend):
    with small_tiles(chunk_edges=3):
        check_gradcheck(call_of("tiny", 1, reduce, "x2_weight"), backend)


def test_gradient_of_one_input_alone(backend):
    check_part_of_gradients(call_of("bipartite", 3, "max", "x3_weight_per_head"), backend)


def test_second_derivative(backend):
    check_second_derivative(call_of("tiny", 1, "mean"), backend)
    check_no_second_derivative(call_of("tiny", 1, "max"), backend)


@pytest.mark.parametrize("reduce", ["max", "min"])
@pytest.mark.parametrize("name", ["multi_edges", "hubs"])
def test_the_first_edge_wins_a_tie(reduce, name, backend):
    g = device_graph(name)
    x = torch.ones(g.num_src, 3, device=DEVICE, requires_grad=True)
    weight = torch.ones(g.num_edges, device=DEVICE, requires_grad=True)
    gnnkern.spmm(g, x, weight, reduce=reduce, backend=backend).sum().backward()
    source, destination = g.edge_index.tolist()
    first = {v: e for e, v in reversed(list(enumerate(destination)))}
    weight_grad, x_grad = torch.zeros(g.num_edges), torch.zeros(g.num_src, 3)
    for e in first.values():
        weight_grad[e] += 3
        x_grad[source[e]] += 1
    assert torch.equal(weight.grad.cpu(), weight_grad)
    assert torch.equal(x.grad.cpu(), x_grad)


@each_reduce
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_not_finite(reduce, value, backend):
    call = call_of("hubs", 5, reduce, "x2")
    call.tensors[0][7, ::2] = value
    check_value(call, backend)
    if reduce in ("max", "min"):
        call.tensors[0][:] = value
        check_value(call, backend)


@pytest.mark.parametrize("reduce", ["sum", "max"])
def test_gradient_through_nan(reduce, backend):
    call = call_of("bipartite", 5, reduce, "x2")
    call.tensors[0][7, ::2] = float("nan")
    check_gradient(call, backend)


def test_repeatable(backend):
    check_repeatable(call_of("hubs", 3, "sum"), backend)


@pytest.mark.parametrize("reduce", ["mean", "min"])
def test_operators(reduce, backend):
    check_operators(call_of("tiny", 2, reduce), backend)


@pytest.mark.parametrize("reduce, form", [("mean", "x3_weight_per_head"), ("max", "x2_weight")])
def test_compiles(reduce, form, backend):
    check_compiled(call_of("tiny", 3, reduce, form), backend)


def test_autocast(backend):
    check_autocast(call_of("multi_edges", 3, "sum"), backend)


@each_reduce
def test_wide_heads_whose_tiles_share_a_weight(reduce, backend):
    check_value(call_of("multi_edges", 64, reduce, "x3_weight_per_head"), backend)


# Messages of two operands of any shape


@pytest.mark.parametrize("op", ["add", "sub", "mul", "div"])
@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_messages_of_every_op(op, reduce, backend):
    call = on_device(message_call(device_graph("bipartite"), op, reduce, "row", torch.float64))
    check_gradient(on_grid(call, op), backend)


@pytest.mark.parametrize("shape", ["heads_column", "crossed"])
@pytest.mark.parametrize("op, reduce", [("mul", "sum"), ("div", "max"), ("sub", "min")])
def test_messages_of_every_shape(op, reduce, shape, backend):
    call = on_device(message_call(device_graph("multi_edges"), op, reduce, shape, torch.float64))
    check_gradient(on_grid(call, op), backend)


@each_reduce
def test_rows_of_edges_alone(reduce, backend):
    check_gradient(on_device(copy_call(device_graph("hubs"), reduce)), backend)


def test_heads_are_independent(backend):
    g = device_graph("multi_edges")
    x = torch.randn(g.num_src, HEADS, 4, device=DEVICE)
    weight = torch.randn(g.num_edges, HEADS, device=DEVICE)
    weight *= torch.tensor([1.0, 1e3, 1e6], device=DEVICE)
    together = gnnkern.spmm(g, x, weight, backend=backend)
    for head in range(HEADS):
        alone = gnnkern.spmm(g, x[:, head], weight[:, head], backend=backend)
        torch.testing.assert_close(together[:, head], alone, rtol=1e-6, atol=0)
