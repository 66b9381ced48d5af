"""sddmm with operands at every end of an edge, of every shape."""

import itertools

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
    check_value,
)
from helpers.graphs import GRAPHS, fresh_graph, graph
from helpers.rejects import Reject, bad_floats, check_rejects, each_reject
from helpers.tolerance import HALVES

import gnnkern
from gnnkern.reference.sddmm import sddmm_reference

OPS = ("dot", "add", "sub", "mul", "div")
ENDS = ("dst", "src", "edge")
H, D, F = 3, 5, 19

SHAPES = {
    "equal": ((F,), (F,)),
    "heads": ((H, D), (H, D)),
    "lhs_row": ((D,), (H, D)),
    "rhs_head": ((H, D), (1, D)),
    "crossed": ((H, 1, D), (1, 2, D)),
    "four": ((2, H, D), (2, H, D)),
}
# The last dimensions differ, which a dot product does not take.
COLUMNS = {
    "rhs_column": ((H, D), (H, 1)),
    "lhs_column": ((1,), (F,)),
    "columns_crossed": ((H, 1), (D,)),
}

each_op = pytest.mark.parametrize("op", OPS)
each_pair = pytest.mark.parametrize("ends", [*itertools.product(ENDS, ENDS)], ids="-".join)
each_mixed_pair = pytest.mark.parametrize("ends", [*itertools.permutations(ENDS, 2)], ids="-".join)
# What torch asks of an operator does not depend on the kernel: some pairs stand for all.
_FEW = (("dst", "src"), ("src", "edge"))
each_of_few_pairs = pytest.mark.parametrize(
    "ends",
    [
        pytest.param(pair, marks=() if pair in _FEW else pytest.mark.slow, id="-".join(pair))
        for pair in itertools.permutations(ENDS, 2)
    ],
)
each_shape = pytest.mark.parametrize("shape", SHAPES)
sddmm_backends = each_backend("sddmm")
sddmm_kernels = each_kernel("sddmm")


def rows_of(g, end):
    return {"dst": g.num_dst, "src": g.num_src, "edge": g.num_edges}[end]


def sddmm_call(g, op, ends, shape="equal", dtype=torch.float32):
    lhs_shape, rhs_shape = {**SHAPES, **COLUMNS}.get(shape) or shape
    lhs, rhs = normal(rows_of(g, ends[0]), *lhs_shape), normal(rows_of(g, ends[1]), *rhs_shape)
    if op == "div":
        # Divisors stay away from 0.
        rhs = rhs + rhs.sign()

    def public(lhs, rhs, *, backend):
        return gnnkern.sddmm(g, lhs, rhs, op=op, targets=ends, backend=backend)

    def reference(lhs, rhs):
        return sddmm_reference(g, lhs, rhs, op, ends)

    return Call(public, reference, (lhs, rhs)).to(dtype)


def copy_call(g, op, end, shape=(F,), dtype=torch.float32):
    ends = (end, "src") if op == "copy_lhs" else ("dst", end)

    def both(x):
        return (x, None) if op == "copy_lhs" else (None, x)

    def public(x, *, backend):
        return gnnkern.sddmm(g, *both(x), op=op, targets=ends, backend=backend)

    def reference(x):
        return sddmm_reference(g, *both(x), op, ends)

    return Call(public, reference, (normal(rows_of(g, end), *shape),)).to(dtype)


@sddmm_kernels
@each_op
@each_pair
@each_shape
@pytest.mark.parametrize("name", ["no_edges", "multi_edges", "bipartite"])
def test_value_and_gradient_in_double(backend, op, ends, shape, name):
    check_gradient(sddmm_call(graph(name), op, ends, shape, torch.float64), backend)


@sddmm_kernels
@pytest.mark.parametrize("op", OPS[1:])
@each_pair
@pytest.mark.parametrize("shape", COLUMNS)
@pytest.mark.parametrize("name", ["multi_edges", "star_in"])
def test_columns_in_double(backend, op, ends, shape, name):
    check_gradient(sddmm_call(graph(name), op, ends, shape, torch.float64), backend)


@sddmm_kernels
@each_op
@each_mixed_pair
@pytest.mark.parametrize("name", GRAPHS)
def test_value_and_gradient_on_every_graph(backend, op, ends, name):
    check_gradient(sddmm_call(graph(name), op, ends, "rhs_head"), backend)


@sddmm_kernels
@each_op
@each_mixed_pair
@each_dtype
@pytest.mark.parametrize("shape", ["equal", "rhs_head"])
def test_value_and_gradient_of_every_dtype(backend, op, ends, dtype, shape):
    check_gradient(sddmm_call(graph("power_law"), op, ends, shape, dtype), backend)


@sddmm_kernels
@each_op
@each_mixed_pair
@pytest.mark.parametrize("width", [0, 1, 8, 33, 64, 129])
def test_widths(backend, op, ends, width):
    g = graph("bipartite")
    for shape in (((width,), (width,)), ((2, width), (width,))):
        check_gradient(sddmm_call(g, op, ends, shape), backend)


@sddmm_kernels
@each_mixed_pair
@pytest.mark.parametrize("dtype", HALVES)
def test_long_dots_of_halves_are_summed_in_float32(backend, ends, dtype):
    call = sddmm_call(graph("multi_edges"), "dot", ends, ((3000,), (1, 3000)), dtype)
    check_value(call, backend)


@sddmm_kernels
@pytest.mark.parametrize("op", ["copy_lhs", "copy_rhs"])
@pytest.mark.parametrize("end", ENDS)
@each_dtype
@pytest.mark.parametrize("name", GRAPHS)
def test_copies(backend, op, end, dtype, name):
    check_gradient(copy_call(graph(name), op, end, (F,), dtype), backend)
    check_gradient(copy_call(graph(name), op, end, (2, H, D), dtype), backend)


@sddmm_backends
@pytest.mark.parametrize("op", ["copy_lhs", "copy_rhs"])
@pytest.mark.parametrize("end", ENDS)
def test_a_copy_is_no_view(backend, op, end):
    call = copy_call(graph("bipartite"), op, end)
    out = call.run(*call.tensors, backend=backend)
    assert out.data_ptr() != call.tensors[0].data_ptr()
    check_compiled(call, backend)
    check_autocast(call, backend)
    check_second_derivative(copy_call(graph("bipartite"), op, end, (2,)), backend)


@sddmm_backends
@each_op
@each_pair
@each_index_dtype
def test_index_dtypes(backend, op, ends, index_dtype):
    check_value(sddmm_call(graph("power_law", index_dtype), op, ends, "rhs_head"), backend)


@sddmm_kernels
@each_op
@each_mixed_pair
@each_layout
def test_layouts(backend, op, ends, layout):
    call = sddmm_call(graph("bipartite"), op, ends, "rhs_head").laid_out(layout)
    check_gradient(call, backend, upstream_layout="transposed")


@sddmm_backends
@each_op
@each_pair
@pytest.mark.parametrize("shape", ["equal", "rhs_head"])
def test_gradcheck(backend, op, ends, shape):
    check_gradcheck(sddmm_call(graph("self_loops"), op, ends, SMALL[shape]), backend)


SMALL = {"equal": ((3,), (3,)), "rhs_head": ((2, 2), (1, 2))}


@sddmm_backends
@each_op
@each_of_few_pairs
def test_second_derivative(backend, op, ends):
    check_second_derivative(
        sddmm_call(graph("isolated_ends"), op, ends, SMALL["rhs_head"]), backend
    )


@sddmm_backends
@each_op
@each_pair
def test_gradient_of_one_input_alone(backend, op, ends):
    check_part_of_gradients(sddmm_call(graph("bipartite"), op, ends, "rhs_head"), backend)


@sddmm_backends
@each_op
@each_pair
@pytest.mark.parametrize("shape", ["equal", "crossed"])
def test_repeatable(backend, op, ends, shape):
    check_repeatable(sddmm_call(graph("long_rows"), op, ends, shape), backend)


@sddmm_backends
@pytest.mark.parametrize("op", ["dot", "div"])
@each_of_few_pairs
def test_compiles(backend, op, ends):
    check_compiled(sddmm_call(graph("bipartite"), op, ends, "rhs_head"), backend)


@sddmm_backends
def test_compiles_on_a_graph_whose_reverse_is_not_ready(backend):
    check_compiled(sddmm_call(fresh_graph("bipartite"), "mul", ("src", "edge")), backend)


@sddmm_backends
@pytest.mark.parametrize("op", ["dot", "div"])
@each_of_few_pairs
@pytest.mark.parametrize("shape", ["equal", "crossed"])
def test_operators(backend, op, ends, shape):
    check_operators(sddmm_call(graph("bipartite"), op, ends, shape), backend)


@sddmm_backends
@each_op
@each_pair
def test_autocast(backend, op, ends):
    check_autocast(sddmm_call(graph("power_law"), op, ends, "rhs_head"), backend)


@sddmm_backends
@pytest.mark.parametrize(
    "op, ends, expected",
    [
        ("sub", ("src", "dst"), [[-8.0, -90.0], [13.0, 0.0], [-8.0, -90.0]]),
        ("add", ("dst", "edge"), [[11.0, 101.0], [-8.0, 12.0], [13.0, 103.0]]),
        ("mul", ("edge", "src"), [[2.0, 10.0], [6.0, 20.0], [6.0, 30.0]]),
        ("dot", ("src", "edge"), [12.0, 26.0, 36.0]),
        ("copy_rhs", ("dst", "src"), [[2.0, 10.0], [3.0, 10.0], [2.0, 10.0]]),
    ],
)
def test_by_hand(backend, op, ends, expected):
    # 1 -> 2, 0 -> 0, 1 -> 2: in the caller's order, which is not that of the destinations' sort.
    edge_index = torch.tensor([[1, 0, 1], [2, 0, 2]])
    g = gnnkern.Graph.from_edge_index(edge_index, num_nodes=(2, 3))
    rows = {
        "dst": torch.tensor([[-10.0, 10.0], [0.0, 0.0], [10.0, 100.0]]),
        "src": torch.tensor([[3.0, 10.0], [2.0, 10.0]]),
        "edge": torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]),
    }
    lhs, rhs = (rows[end] for end in ends)
    out = gnnkern.sddmm(g, lhs, rhs, op=op, targets=ends, backend=backend)
    assert out.tolist() == expected


X_DST, X_EDGE = torch.ones(29, 2, 4), torch.ones(90, 2, 4)


@sddmm_backends
@each_op
@each_reject(
    bad_floats("x_dst", X_DST, (28, 2, 4), (90, 2, 4), (29, 3, 4), (29,), (), beside_others=True),
    bad_floats("x_src", X_EDGE, (13, 2, 4), (29, 2, 4), (90, 2, 3), (90,), (), beside_others=True),
    [
        Reject("targets", "node", ("dst", "node"), ValueError),
        Reject("targets", "word", "dst", ValueError),
        Reject("targets", "None", None, ValueError),
        Reject("targets", "three", ("dst", "src", "edge"), ValueError),
    ],
)
def test_rejects(backend, op, reject):
    arguments = {"g": graph("bipartite"), "x_dst": X_DST, "x_src": X_EDGE, "op": op}
    arguments["targets"] = ("dst", "edge")
    check_rejects(gnnkern.sddmm, arguments, reject, backend)


@sddmm_backends
def test_rejects_what_cannot_be_dotted_or_copied(backend):
    g = graph("bipartite")
    with pytest.raises(ValueError, match=r"sddmm: x_src must have a last dimension of 4"):
        gnnkern.sddmm(g, X_DST, X_EDGE[..., :1], targets=("dst", "edge"), backend=backend)
    with pytest.raises(TypeError, match="sddmm: x_dst must be a tensor"):
        gnnkern.sddmm(g, None, X_EDGE, op="copy_lhs", backend=backend)
    with pytest.raises(ValueError, match=r"sddmm: x_src must have shape \[num_src=13"):
        gnnkern.sddmm(g, None, X_EDGE, op="copy_rhs", backend=backend)
