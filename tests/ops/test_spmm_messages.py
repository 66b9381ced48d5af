"""spmm with messages of two operands: every op, reduction and way to broadcast."""

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
    Sizes,
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
    value_and_gradients,
)
from helpers.graphs import GRAPHS, fresh_graph, graph
from helpers.rejects import bad_floats, check_rejects, each_reject

import gnnkern
from gnnkern.reference.spmm import spmm_reference

OPS = ("mul", "add", "sub", "div")
REDUCES = ("sum", "mean", "max", "min")
H, D, F = 3, 5, 7

# Behind the rows: x, and the edge operand.
SHAPES = {
    "row": ((F,), (F,)),
    "edge_scalar": ((F,), ()),
    "edge_column": ((F,), (1,)),
    "x_column": ((1,), (F,)),
    "heads": ((H, D), (H,)),
    "heads_column": ((H, D), (H, 1)),
    "head_rows": ((H, D), (1, D)),
    "head_full": ((H, D), (H, D)),
    "one_edge_value": ((H, D), (1, 1)),
    "scalar_of_3d": ((H, D), ()),
    "x_head_rows": ((1, D), (H, 1)),
    "x_heads": ((H, 1), (H, D)),
    "crossed": ((H, 1), (1, D)),
    "four": ((2, 1, D), (1, H, D)),
    "four_heads": ((2, H, D), (2, H, 1)),
    "four_scalar": ((2, H, D), ()),
}

each_op = pytest.mark.parametrize("op", OPS)
each_reduce = pytest.mark.parametrize("reduce", REDUCES)
each_shape = pytest.mark.parametrize("shape", SHAPES)
spmm_backends = each_backend("spmm")
spmm_kernels = each_kernel("spmm")


def message_call(g, op="mul", reduce="sum", shape="row", dtype=torch.float32):
    x_shape, edge_shape = SHAPES[shape] if isinstance(shape, str) else shape
    x, edge = normal(g.num_src, *x_shape), normal(g.num_edges, *edge_shape)
    if op == "div":
        # Divisors stay away from 0.
        edge = edge + edge.sign()

    def public(x, weight, *, backend):
        return gnnkern.spmm(g, x, weight, op=op, reduce=reduce, backend=backend)

    def reference(x, weight):
        return spmm_reference(g, x, weight, reduce, op)

    return Call(public, reference, (x, edge)).to(dtype)


def copy_call(g, reduce="sum", shape=(F,), dtype=torch.float32):
    def public(weight, *, backend):
        return gnnkern.spmm(g, None, weight, reduce=reduce, backend=backend)

    def reference(weight):
        return spmm_reference(g, None, weight, reduce)

    return Call(public, reference, (normal(g.num_edges, *shape),)).to(dtype)


def on_grid(call, op):
    """Ties are plentiful, but no divisor is 0, and no product rounds."""
    x, edge = call.on_grid().tensors
    if op == "div":
        edge = torch.where(edge < 0, -0.5, 2.0).to(edge.dtype)
    return Call(call.op, call.reference, (x, edge))


# Value and gradient


@spmm_kernels
@each_op
@each_reduce
@each_shape
@pytest.mark.parametrize("name", ["no_edges", "multi_edges", "isolated_ends", "bipartite"])
def test_value_and_gradient_in_double(backend, op, reduce, shape, name):
    check_gradient(message_call(graph(name), op, reduce, shape, torch.float64), backend)


@spmm_kernels
@each_op
@each_reduce
@pytest.mark.parametrize("shape", ["row", "heads_column", "crossed"])
@pytest.mark.parametrize("name", GRAPHS)
def test_value_and_gradient_on_every_graph(backend, op, reduce, shape, name):
    check_gradient(message_call(graph(name), op, reduce, shape, torch.float64), backend)


@spmm_kernels
@each_op
@each_reduce
@pytest.mark.parametrize("shape", ["row", "heads_column", "head_rows", "x_column", "edge_scalar"])
@each_dtype
def test_value_and_gradient_of_every_dtype(backend, op, reduce, shape, dtype):
    call = message_call(graph("power_law"), op, reduce, shape, dtype)
    check_value(call, backend)
    check_gradient(on_grid(call, op), backend)


@spmm_kernels
@each_op
@each_reduce
@each_width
def test_widths(backend, op, reduce, width):
    g = graph("bipartite")
    for shape in (((width,), (width,)), ((2, width), (2, 1)), ((2, width), (1, width))):
        check_gradient(on_grid(message_call(g, op, reduce, shape), op), backend)


@spmm_kernels
@each_reduce
@each_dtype
@pytest.mark.parametrize("shape", [(F,), (H, D), (), (1,), (33,), (2, H, D)])
def test_edges_alone(backend, reduce, dtype, shape):
    g = graph("power_law")
    check_value(copy_call(g, reduce, shape, dtype), backend)
    check_gradient(copy_call(g, reduce, shape, dtype).on_grid(), backend)


@spmm_kernels
@each_reduce
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_edges_alone_on_every_graph(backend, reduce, name, dtype):
    check_gradient(copy_call(graph(name), reduce, (F,), dtype).on_grid(), backend)


@spmm_backends
@each_op
@each_reduce
@each_index_dtype
def test_index_dtypes(backend, op, reduce, index_dtype):
    check_value(message_call(graph("power_law", index_dtype), op, reduce), backend)
    check_value(copy_call(graph("power_law", index_dtype), reduce), backend)


@spmm_kernels
@each_op
@each_reduce
@each_layout
@pytest.mark.parametrize("shape", ["row", "heads_column", "crossed"])
def test_layouts(backend, op, reduce, layout, shape):
    call = on_grid(message_call(graph("bipartite"), op, reduce, shape), op).laid_out(layout)
    check_gradient(call, backend, upstream_layout="transposed")


@spmm_backends
@each_op
@each_reduce
@pytest.mark.parametrize("shape", ["row", "crossed"])
def test_expanded_inputs(backend, op, reduce, shape):
    call = message_call(graph("bipartite"), op, reduce, shape)
    expanded = tuple(x[:1].expand_as(x) for x in call.tensors)
    check_value(Call(call.op, call.reference, expanded), backend)


@spmm_backends
@each_op
@each_reduce
@pytest.mark.parametrize("shape", ["row", "heads_column", "four"])
def test_gradcheck(backend, op, reduce, shape):
    check_gradcheck(message_call(graph("multi_edges"), op, reduce, shape), backend)


@spmm_backends
@each_op
@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("shape", ["row", "heads_column", "head_rows", "x_column", "crossed"])
def test_second_derivative(backend, op, reduce, shape):
    call = message_call(graph("self_loops"), op, reduce, shape)
    small = tuple(x[..., :2] if x.dim() > 1 and x.shape[-1] > 1 else x for x in call.tensors)
    check_second_derivative(Call(call.op, call.reference, small), backend)


@spmm_backends
@each_op
@pytest.mark.parametrize("reduce", ["max", "min"])
@pytest.mark.parametrize("shape", ["row", "heads_column", "crossed"])
def test_no_second_derivative(backend, op, reduce, shape):
    check_no_second_derivative(message_call(graph("bipartite"), op, reduce, shape), backend)


@spmm_backends
@each_op
@each_reduce
@pytest.mark.parametrize("shape", ["row", "heads_column", "crossed"])
def test_gradient_of_one_input_alone(backend, op, reduce, shape):
    check_part_of_gradients(message_call(graph("bipartite"), op, reduce, shape), backend)


@spmm_backends
@pytest.mark.parametrize(
    "op, reduce, expected",
    [
        ("add", "sum", [[-9.0, 84.0], [-6.0, 133.0], [0.0, 0.0]]),
        ("sub", "max", [[-7.0, 76.0], [-3.0, 76.0], [0.0, 0.0]]),
        ("mul", "min", [[8.0, 320.0], [-8.0, 60.0], [0.0, 0.0]]),
        ("div", "max", [[8.0, 20.0], [-0.5, 20.0], [0.0, 0.0]]),
    ],
)
def test_by_hand(backend, op, reduce, expected):
    # 0 -> 1 twice, 2 -> 1, 2 -> 0; node 2 has no in-edge.
    edge_index = torch.tensor([[0, 2, 0, 2], [1, 1, 1, 0]])
    g = gnnkern.Graph.from_edge_index(edge_index, num_nodes=3)
    x = torch.tensor([[-2.0, 20.0], [5.0, 5.0], [-8.0, 80.0]])
    weight = torch.tensor([[4.0, 6.0], [1.0, 4.0], [1.0, 3.0], [-1.0, 4.0]])
    out = gnnkern.spmm(g, x, weight, op=op, reduce=reduce, backend=backend)
    torch.testing.assert_close(out, torch.tensor(expected))


@spmm_kernels
@each_op
@each_reduce
@pytest.mark.parametrize("name", ["bipartite", "long_rows"])
def test_nan_propagates(backend, op, reduce, name):
    call = message_call(graph(name), op, reduce)
    call.tensors[1][7, ::2] = float("nan")
    check_gradient(call, backend)


# Everything else


@spmm_backends
@each_op
@each_reduce
@pytest.mark.parametrize("shape", ["row", "heads_column", "crossed"])
def test_repeatable(backend, op, reduce, shape):
    check_repeatable(message_call(graph("long_rows"), op, reduce, shape), backend)


@spmm_backends
@each_op
@pytest.mark.parametrize("reduce", ["sum", "max"])
@pytest.mark.parametrize("shape", ["row", "crossed"])
def test_compiles(backend, op, reduce, shape):
    check_compiled(message_call(graph("bipartite"), op, reduce, shape), backend)


@spmm_backends
@each_op
def test_compiles_on_a_graph_whose_reverse_is_not_ready(backend, op):
    check_compiled(message_call(fresh_graph("bipartite"), op), backend)


@spmm_backends
@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_edges_alone_compile(backend, reduce):
    check_compiled(copy_call(graph("bipartite"), reduce), backend)
    check_compiled(copy_call(graph("chain"), reduce), backend)


@spmm_backends
@each_op
@pytest.mark.parametrize("reduce", ["mean", "max"])
@pytest.mark.parametrize("shape", ["heads_column", "crossed"])
def test_operators(backend, op, reduce, shape):
    check_operators(message_call(graph("bipartite"), op, reduce, shape), backend)


@spmm_backends
@each_reduce
def test_operators_of_edges_alone(backend, reduce):
    check_operators(copy_call(graph("bipartite"), reduce), backend)


@spmm_backends
@each_op
@each_reduce
@pytest.mark.parametrize("shape", ["row", "heads_column"])
def test_autocast(backend, op, reduce, shape):
    check_autocast(message_call(graph("power_law"), op, reduce, shape), backend)


@pytest.mark.parametrize("op", OPS)
@each_reduce
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_as_large_as_the_messages_is_made(op, reduce, dtype):
    g = graph("dense_small")
    call = message_call(g, op, reduce, ((64,), (64,)), dtype)
    inputs = [tensor.requires_grad_() for tensor in call.tensors]
    with Sizes(g.num_edges * 64) as sizes:
        call.op(*inputs, backend="cpu").backward(torch.ones(g.num_dst, 64, dtype=dtype))
    edge = inputs[1]
    own = {edge.untyped_storage().data_ptr(), edge.grad.untyped_storage().data_ptr()}
    assert not sizes.storages - own


X, EDGE = torch.ones(13, 2, 4), torch.ones(90, 2, 4)


@spmm_backends
@each_op
@each_reject(
    bad_floats("x", X, (13, 3, 4), (13, 2, 3), (12, 2, 4), beside_others=True, optional=True),
    bad_floats(
        "weight",
        EDGE,
        (90, 3, 4),
        (90, 2, 3),
        (89, 2, 4),
        (90, 1),
        (90, 2, 4, 1),
        (90, 4),
        beside_others=True,
        optional=True,
    ),
)
def test_rejects(backend, op, reject):
    arguments = {"g": graph("bipartite"), "x": X, "weight": EDGE, "op": op}
    check_rejects(gnnkern.spmm, arguments, reject, backend)


@spmm_backends
def test_rejects_of_edges_alone(backend):
    g = graph("bipartite")
    with pytest.raises(TypeError, match="spmm: x must be a tensor"):
        gnnkern.spmm(g, None, backend=backend)
    for wrong in (EDGE[:89], torch.tensor(1.0)):
        with pytest.raises(ValueError, match=r"spmm: weight must have shape \[E=90"):
            gnnkern.spmm(g, None, wrong, backend=backend)
    with pytest.raises(TypeError, match="spmm: weight must be a tensor"):
        gnnkern.spmm(g, None, [1.0], backend=backend)


@spmm_backends
@each_reduce
def test_the_gradient_of_what_x_ignores_is_none(backend, reduce):
    g = graph("bipartite")
    values = value_and_gradients(
        lambda edge: gnnkern.spmm(g, None, edge, reduce=reduce, op="add", backend=backend),
        (normal(90, 2),),
    )
    assert all(value.isfinite().all() for value in values)
