"""gat_attention, dot_attention and gatv2_attention: scores, softmax and sum in one walk."""

from functools import partial

import pytest
import torch
from helpers.attention import dot_call, gat_call, gatv2_call
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
    check_value,
    value_and_gradients,
)
from helpers.devices import DEVICE, device_graph, each_name, on_device, small_tiles
from ops import (
    test_dot_attention_dropout,
    test_gat_attention_dropout,
    test_gatv2_attention_dropout,
)

import gnnkern
from gnnkern import Graph

INF = float("inf")

# By op: a call without edge tensors, and one with all of them.
CALLS = {
    "gat_attention": gat_call,
    "gat_attention_edges": partial(gat_call, edge_score=True),
    "dot_attention": dot_call,
    "dot_attention_edges": partial(dot_call, edges="edge_bias, edge_x"),
    "gatv2_attention": gatv2_call,
    "gatv2_attention_edges": partial(gatv2_call, edge_x=True),
}
DROPPED = {
    "gat_attention": test_gat_attention_dropout.dropped_call,
    "dot_attention": test_dot_attention_dropout.dropped_call,
    "gatv2_attention": test_gatv2_attention_dropout.dropped_call,
}
each_call = pytest.mark.parametrize("which", CALLS)
each_with_edges = pytest.mark.parametrize("which", [name for name in CALLS if "edges" in name])
each_op = pytest.mark.parametrize("op", DROPPED)


def call_of(which, name, *arguments, index=torch.int64, **options):
    return on_device(CALLS[which](device_graph(name, index), *arguments, **options))


# Heads inside of one tile and in several, narrower and wider than a tile


@each_call
@pytest.mark.parametrize("heads, width", [(1, 1), (3, 3), (2, 16), (1, 33), (3, 17)])
def test_gradient_at_every_width(which, heads, width, backend):
    check_gradient(call_of(which, "multi_edges", heads, width), backend)


@each_call
@pytest.mark.parametrize("heads, width", [(1, 0), (0, 3)])
def test_widths_of_zero(which, heads, width, backend):
    check_gradient(call_of(which, "multi_edges", heads, width), backend)


@each_name
@each_call
def test_gradient_on_every_graph(which, name, backend):
    check_gradient(call_of(which, name), backend)


@each_call
def test_long_rows_of_heads_wider_than_a_tile(which, backend):
    check_gradient(call_of(which, "hubs", 1, 19), backend)


@each_dtype
@each_call
def test_gradient_of_every_dtype(which, dtype, backend):
    check_gradient(call_of(which, "hubs", 2, 5, dtype=dtype), backend)


@each_index_dtype
@each_with_edges
def test_index_dtypes(which, index_dtype, backend):
    check_gradient(call_of(which, "hubs", 1, 3, index=index_dtype), backend)


@each_layout
@each_with_edges
def test_layouts(which, layout, backend):
    call = call_of(which, "multi_edges", 3, 4).laid_out(layout)
    check_gradient(call, backend, upstream_layout="transposed")


@each_call
def test_gradient_of_a_sum(which, backend):
    check_gradient(call_of(which, "bipartite"), backend, upstream_layout="expanded")


@each_call
def test_gradcheck(which, backend):
    with small_tiles(chunk_edges=3):
        check_gradcheck(call_of(which, "tiny", 1, 2), backend)


@each_with_edges
def test_gradient_of_one_input_alone(which, backend):
    check_part_of_gradients(call_of(which, "bipartite"), backend)


@each_call
def test_no_second_derivative(which, backend):
    check_no_second_derivative(call_of(which, "tiny", 1, 2), backend)


@each_call
def test_repeatable(which, backend):
    check_repeatable(call_of(which, "hubs", 2, 3), backend)


@each_call
def test_operators(which, backend):
    check_operators(call_of(which, "tiny", 1, 2), backend)


@each_with_edges
def test_compiles(which, backend):
    check_compiled(call_of(which, "tiny", 1, 2), backend)


@each_with_edges
def test_autocast(which, backend):
    check_autocast(call_of(which, "multi_edges"), backend)


@each_with_edges
def test_heads_are_independent(which, backend):
    # Heads of very different size, in value and gradient: a head mixed up shows.
    call = call_of(which, "hubs", 3, 3)
    upstream = torch.randn(8, 3, 3, device=DEVICE) * torch.tensor([[1.0], [1e3], [1e6]]).to(DEVICE)
    together = value_and_gradients(partial(call.run, backend=backend), call.tensors, upstream)
    expected = value_and_gradients(call.reference, call.tensors, upstream)
    # Heads are the last dimension of scores, and the last but one of rows.
    for result, wanted in zip(together, expected, strict=True):
        dim = result.shape.index(3) if result.dim() == 2 else result.dim() - 2
        for a, b in zip(result.unbind(dim), wanted.unbind(dim), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=3e-6 * float(b.abs().max() + 1))


# Scores that are not finite


def masked_call(op):
    """Return a call with edges, and the tensor of it whose minus infinities leave edges out."""
    call = call_of(f"{op}_edges", "hubs", 3, 3)
    if op == "gatv2_attention":
        call.tensors[2].abs_()
    return call, call.tensors[3]


@each_op
def test_a_row_of_minus_infinity_gives_zero(op, backend):
    # Head 0 is masked throughout, head 1 here and there, head 2 nowhere.
    call, mask = masked_call(op)
    mask[:, 0] = -INF
    mask[::2, 1] = -INF
    check_gradient(call, backend)
    run = partial(call.run, backend=backend)
    out, *gradients = value_and_gradients(run, call.tensors)
    if op == "gatv2_attention":
        # Of att: the activation times 0 where a score is masked, that is, NaN.
        assert gradients.pop(2)[:2].isnan().all()
    assert (out[:, 0] == 0).all()
    assert all(gradient.isfinite().all() for gradient in gradients)


@each_op
@pytest.mark.parametrize("part", [slice(16), slice(16, 32), slice(32, None)])
def test_one_masked_chunk_of_a_long_row(op, part, backend):
    call, mask = masked_call(op)
    long_row = (device_graph("hubs").edge_index[1] == 5).nonzero()[:, 0]
    mask[long_row[part]] = -INF
    check_gradient(call, backend)


@each_op
@pytest.mark.parametrize("value", [float("nan"), INF])
def test_not_finite_spoils_its_nodes_and_head_only(op, value, backend):
    for which in range(len(call_of(f"{op}_edges", "hubs").tensors)):
        call = call_of(f"{op}_edges", "hubs", 3, 3)
        call.tensors[which][2, 1] = value
        check_value(call, backend)


@each_op
@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_large_scores_do_not_overflow(op, shift, backend):
    call, added = masked_call(op)
    added += shift
    check_value(call, backend)


# Dropout


@each_name
@each_op
def test_dropout_is_that_of_the_reference(op, name, backend):
    check_gradient(on_device(DROPPED[op](device_graph(name), 0.4)), backend)


@each_op
def test_gradcheck_with_dropout(op, backend):
    check_gradcheck(on_device(DROPPED[op](device_graph("tiny"), 0.7, heads=1)), backend)


@each_op
def test_dropout_of_next_to_everything(op, backend):
    check_gradient(on_device(DROPPED[op](device_graph("tiny"), 1 - 1e-7, heads=1)), backend)


@pytest.mark.parametrize("heads, p", [(1, 0.5), (2, 0.1), (5, 0.9)])
def test_dropout_masks_are_those_of_the_reference(heads, p, backend):
    # One edge into every node: the result is 0 where it was dropped.
    nodes = torch.randperm(61)
    edge_index = torch.stack([torch.zeros_like(nodes), nodes]).to(DEVICE)
    g = Graph.from_edge_index(edge_index, num_nodes=(1, 61))
    x, ones = torch.ones(1, heads, 1, device=DEVICE), torch.ones(61, heads, device=DEVICE)
    masks = []
    for name in (backend, "reference"):
        torch.manual_seed(11)
        masks.append(gnnkern.gat_attention(g, x, x[..., 0], ones, dropout=p, backend=name))
    assert torch.equal(masks[0] == 0, masks[1] == 0)
    torch.testing.assert_close(masks[0], masks[1])
