"""multi_reduce: several reductions of one gather, and their gradient."""

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
    check_repeatable,
    check_second_derivative,
    check_value,
)
from helpers.devices import DEVICE, device_graph, each_name, on_device, small_tiles
from ops.test_multi_reduce import PNA, REDUCES, each_subset, each_way, moved, multi_call, named

import gnnkern

some_ways = named("reduces", [("std",), ("sum", "max"), PNA])


def call_of(name, *arguments, **options):
    return on_device(multi_call(device_graph(name), *arguments, **options))


@each_subset
def test_gradient_of_every_subset(reduces, backend):
    check_gradient(call_of("hubs", 3, reduces).on_grid(), backend)


@each_name
@some_ways
def test_gradient_on_every_graph(name, reduces, backend):
    check_gradient(call_of(name, 5, reduces).on_grid(), backend)


@pytest.mark.parametrize("width, heads", [(0, None), (1, None), (33, None), (5, 3)])
@each_way
def test_gradient_at_every_width(width, heads, reduces, backend):
    check_gradient(call_of("multi_edges", width, reduces, heads).on_grid(), backend)


@each_dtype
@some_ways
def test_gradient_of_every_dtype(dtype, reduces, backend):
    check_gradient(call_of("hubs", 3, reduces, dtype=dtype).on_grid(), backend)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("at", range(len(REDUCES)), ids=REDUCES)
def test_value_of_one_reduction_among_all(at, dtype, backend):
    # One at a time: the largest of six would hide the error of the others.
    call = call_of("hubs", 5, REDUCES, dtype=dtype)
    alone = type(call)(
        lambda x, backend: call.op(x, backend=backend)[:, at],
        lambda x: call.reference(x)[:, at],
        call.tensors,
    )
    check_value(alone, backend)


@each_index_dtype
def test_index_dtypes(index_dtype, backend):
    g = device_graph("hubs", index_dtype)
    check_gradient(on_device(multi_call(g, 3)), backend)


@each_layout
@some_ways
def test_layouts(layout, reduces, backend):
    call = call_of("multi_edges", 6, reduces).laid_out(layout)
    check_gradient(call, backend, upstream_layout="transposed")


@some_ways
def test_gradient_of_a_sum(reduces, backend):
    call = call_of("bipartite", 3, reduces).on_grid()
    check_gradient(call, backend, upstream_layout="expanded")


@each_way
def test_gradcheck(reduces, backend):
    with small_tiles(chunk_edges=3):
        check_gradcheck(call_of("tiny", 1, reduces), backend)


def test_second_derivative(backend):
    check_second_derivative(call_of("tiny", 1, ("mean", "sum")), backend)
    check_no_second_derivative(call_of("tiny", 1, PNA), backend)


@some_ways
def test_operators(reduces, backend):
    check_operators(call_of("tiny", 2, reduces), backend)


@some_ways
def test_compiles(reduces, backend):
    check_compiled(call_of("tiny", 2, reduces), backend)


@some_ways
def test_repeatable(reduces, backend):
    check_repeatable(call_of("hubs", 3, reduces), backend)


def test_autocast(backend):
    check_autocast(call_of("multi_edges", 3), backend)


def test_the_same_result_with_and_without_a_gradient(backend):
    g = device_graph("hubs")
    x = torch.randn(g.num_src, 3, device=DEVICE)
    without = gnnkern.multi_reduce(g, x, reduces=REDUCES, backend=backend)
    with_gradient = gnnkern.multi_reduce(g, x.requires_grad_(), reduces=REDUCES, backend=backend)
    assert torch.equal(with_gradient, without)


@pytest.mark.parametrize("reduces", [("std",), ("var",), ("std", "mean")], ids="-".join)
@pytest.mark.parametrize("offset, spread", [(-1e4, 1.0), (1.0, 1e-3)])
def test_an_offset_costs_no_digits(reduces, offset, spread, backend):
    call = moved(call_of("hubs", 5, reduces), offset, spread)
    check_gradient(call, backend)
    exact = call.reference(call.tensors[0].double())[:, 0]
    actual = call.run(*call.tensors, backend=backend)[:, 0].double()
    assert (actual - exact).abs().max() < 2e-6 * exact.abs().max()


@pytest.mark.parametrize("value", [0.0, 0.1, -12345.6])
def test_equal_messages_have_no_spread_and_no_gradient(value, backend):
    g = device_graph("hubs")
    x = torch.full((g.num_src, 3), value, device=DEVICE, requires_grad=True)
    out = gnnkern.multi_reduce(g, x, reduces=("std", "var"), backend=backend)
    out.sum().backward()
    assert torch.equal(out, torch.zeros_like(out))
    assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("reduce", ["max", "min"])
@pytest.mark.parametrize("name", ["multi_edges", "hubs"])
def test_the_first_edge_wins_a_tie(reduce, name, backend):
    g = device_graph(name)
    x = torch.ones(g.num_src, 3, device=DEVICE, requires_grad=True)
    out = gnnkern.multi_reduce(g, x, reduces=("std", reduce), backend=backend)
    out[:, 1].sum().backward()
    source, destination = g.edge_index.tolist()
    first = {v: e for e, v in reversed(list(enumerate(destination)))}
    expected = torch.zeros(g.num_src, 3)
    for e in first.values():
        expected[source[e]] += 1
    assert torch.equal(x.grad.cpu(), expected)


@each_way
def test_gradient_through_nan(reduces, backend):
    call = call_of("hubs", 5, reduces)
    call.tensors[0][7, ::2] = float("nan")
    check_gradient(call, backend)


@each_way
@pytest.mark.parametrize("infinity", [float("inf"), -float("inf")])
def test_infinities_are_values_like_others(reduces, infinity, backend):
    call = call_of("hubs", 3, reduces)
    call.tensors[0][::2] = infinity
    check_value(call, backend)
    call.tensors[0][:] = infinity
    check_value(call, backend)
