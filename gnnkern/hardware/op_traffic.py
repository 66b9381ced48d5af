"""The bytes and operations of every op, one function each.

Rows that no edge reads are not counted, nor is what stays in registers. An input is counted once
per pass over the edges; a backward adds what it reads, what it writes, and what the forward saves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gnnkern.hardware.traffic import Call, Cost, Gather

__all__ = ["INPUTS", "TRAFFIC"]

# Operations of a leaky ReLU, a softmax and its sum, per score; of their gradient.
_SCORE_FLOPS = 8


def _cost(index: int, stream: int, flops: int = 0, gathers: Sequence[Gather] = ()) -> Cost:
    return Cost(index + stream, index, flops, tuple(gathers))


# -- ops on a graph --------------------------------------------------------------------------------


def _spmm(c: Call) -> Cost:
    e = c.edges
    if c.edge_rows and not c.weights:
        return _edge_sums(c)
    per_edge = c.width * (2 if c.weights else 1)
    out = e.num_dst * c.row
    total = _cost(
        e.structure_bytes + c.order,
        c.from_src.table_bytes + out + c.edge_scalars,
        e.num_edges * per_edge,
        (c.from_src,),
    )
    if c.selects:
        return total + _select_backward(c)
    if "x" in c.backward:
        index = e.reverse_bytes + (e.reverse_order_bytes if c.weights else 0)
        rows = c.from_dst.table_bytes + e.num_src * c.row
        total += _cost(index, rows + c.edge_scalars, e.num_edges * per_edge, (c.from_dst,))
    if "weight" in c.backward:
        total += _dots(c)
    return total


def _edge_sums(c: Call) -> Cost:
    """Rows of the edges alone, in and, as gradients, out."""
    e = c.edges
    index, rows = e.boundary_bytes + e.order_bytes, e.num_edges * c.row
    total = _cost(index, rows + e.num_dst * c.row, e.num_edges * c.width)
    if not c.backward:
        return total
    return total + _cost(index, 2 * c.selects * c.argument + rows + e.num_dst * c.row)


def _select_backward(c: Call) -> Cost:
    """Winners alone are written: nothing is gathered by edge."""
    total = Cost()
    e = c.edges
    rows = e.num_dst * c.row
    if c.backward:
        total += _cost(0, c.selects * c.argument)
    if "x" in c.backward:
        read = c.selects * (c.argument + rows) + c.edge_scalars
        total += _cost(0, read + e.num_src * c.row, c.selects * e.num_dst * c.width)
    if "weight" in c.backward:
        read = c.selects * (c.argument + 2 * rows)
        total += _cost(c.order, read + c.edge_scalars, 2 * c.selects * e.num_dst * c.width)
    return total


def _dots(c: Call) -> Cost:
    """A number per edge and head from the rows of both ends."""
    e = c.edges
    rows = c.from_src.table_bytes + c.from_dst.table_bytes
    scalars = e.num_edges * max(c.weights, 1) * c.item
    index = e.structure_bytes + e.order_bytes
    return _cost(index, rows + scalars, 2 * e.num_edges * c.width, (c.from_src,))


def _sddmm(c: Call) -> Cost:
    e = c.edges
    dot = c.edge_op == "dot"
    # One number per head, or a row, per edge: the result, and its gradient.
    made = e.num_edges * c.item * (c.heads if dot else c.width)
    flops = e.num_edges * c.width * (2 if dot else 1)
    if c.edge_rows:
        # One operand is a stream, the other at least the rows of one end; so are their gradients.
        once = e.num_edges * c.row + min(c.from_src.table_bytes, c.from_dst.table_bytes) + made
        return _cost(
            (e.structure_bytes + e.order_bytes) * (1 + len(c.backward)),
            once * (1 + len(c.backward)),
            flops * (1 + len(c.backward)),
        )
    both = c.from_src.table_bytes + c.from_dst.table_bytes
    total = _cost(e.structure_bytes + e.order_bytes, both + made, flops, (c.from_src,))
    needs_rows = c.edge_op not in ("add", "sub")
    for name, index, order, rows, other in (
        ("x_dst", e.structure_bytes, e.order_bytes, e.num_dst, c.from_src),
        ("x_src", e.reverse_bytes, e.reverse_order_bytes, e.num_src, c.from_dst),
    ):
        if name in c.backward:
            read = other.table_bytes if needs_rows else 0
            gathers = (other,) if needs_rows else ()
            total += _cost(index + order, made + read + rows * c.row, flops, gathers)
    return total


def _edge_softmax(c: Call) -> Cost:
    e = c.edges
    index = e.boundary_bytes + e.order_bytes
    return _softmax(c, index)


def _softmax(c: Call, index: int) -> Cost:
    scores = c.edges.num_edges * c.row
    flops = 4 * c.edges.num_edges * c.width
    total = _cost(index, 2 * scores, flops)
    return total + _cost(index, 3 * scores, flops) if c.backward else total


def _attention_scalars(c: Call) -> tuple[int, int]:
    """Bytes of a number per destination and head, and of one per edge and head, accumulated."""
    return c.edges.num_dst * c.heads * c.wide, c.edges.num_edges * c.heads * c.wide


def _gat_attention(c: Call) -> Cost:
    e = c.edges
    node_scores = (e.sources.distinct + e.num_dst) * c.heads * c.item
    log_sum_exp, edge_grads = _attention_scalars(c)
    flops = e.num_edges * (2 * c.width + _SCORE_FLOPS * c.heads)
    total = _cost(
        e.structure_bytes + c.order,
        c.from_src.table_bytes + e.num_dst * c.row + node_scores + c.edge_scalars,
        flops,
        (c.from_src,),
    )
    if not c.backward:
        return total
    # Read: x, the gradient, the result in full precision, scores; written: the gradients of x, of
    # the scores at both ends and on the edges, which a last pass sums by destination.
    rows = 2 * e.num_src * c.row + c.from_dst.table_bytes + e.num_dst * c.width * c.wide
    saved = log_sum_exp + (e.num_dst * c.width * c.wide if c.wide != c.item else 0)
    scalars = 2 * node_scores + c.edge_scalars + log_sum_exp + 2 * edge_grads
    index = e.reverse_bytes + e.reverse_order_bytes + e.boundary_bytes + e.order_bytes
    return total + _cost(index, saved + rows + scalars, 2 * flops, (c.from_dst,))


def _gatv2_attention(c: Call) -> Cost:
    e = c.edges
    edge_x = e.num_edges * c.row if c.edge_rows else 0
    log_sum_exp, edge_grads = _attention_scalars(c)
    flops = e.num_edges * (6 * c.width + _SCORE_FLOPS * c.heads)
    dst_rows = e.num_dst * c.row
    total = _cost(
        e.structure_bytes + c.order,
        c.from_src.table_bytes + 2 * dst_rows + edge_x,
        flops,
        (c.from_src,),
    )
    if not c.backward:
        return total
    # By destination: alpha, the scores' gradient and a sign per element; by source: the rest.
    signs = -(-e.num_edges * c.width // 8)
    by_dst = _cost(
        e.structure_bytes + c.order,
        2 * log_sum_exp + c.from_src.table_bytes + 4 * dst_rows + 2 * edge_grads + signs + edge_x,
        flops,
        (c.from_src,),
    )
    by_src = _cost(
        e.reverse_bytes + e.reverse_order_bytes,
        c.from_dst.table_bytes + e.num_src * c.row + 2 * edge_grads + signs + edge_x,
        flops,
        (c.from_dst,),
    )
    return total + by_dst + by_src


def _dot_attention(c: Call) -> Cost:
    e = c.edges
    edge_x = e.num_edges * c.row if c.edge_rows else 0
    log_sum_exp, edge_grads = _attention_scalars(c)
    flops = e.num_edges * (4 * c.width + _SCORE_FLOPS * c.heads)
    dst_rows = e.num_dst * c.row
    total = _cost(
        e.structure_bytes + c.order,
        2 * c.from_src.table_bytes + 2 * dst_rows + c.edge_scalars + 2 * edge_x,
        flops,
        (c.from_src, c.from_src),
    )
    if not c.backward:
        return total
    # By source: query and the gradient are gathered, and <result, gradient> made before; by
    # destination: key.
    by_src = _cost(
        e.reverse_bytes + e.reverse_order_bytes,
        2 * log_sum_exp
        + e.num_dst * c.width * c.wide
        + 2 * c.from_dst.table_bytes
        + 4 * e.num_src * c.row
        + 2 * c.edge_scalars
        + edge_grads
        + 2 * edge_x,
        2 * flops,
        (c.from_dst, c.from_dst),
    )
    by_dst = _cost(
        e.structure_bytes + e.order_bytes,
        c.from_src.table_bytes + dst_rows + edge_grads + edge_x,
        flops,
        (c.from_src,),
    )
    return total + by_src + by_dst


def _multi_reduce(c: Call) -> Cost:
    e = c.edges
    reduces = len(c.reduces)
    total = _cost(
        e.structure_bytes,
        c.from_src.table_bytes + reduces * e.num_dst * c.row,
        e.num_edges * c.width * reduces,
        (c.from_src,),
    )
    if not c.backward:
        return total
    total += _select_backward(c)
    if c.selects == reduces:
        return total
    # The gradient of a sum or a mean is one row per destination; that of a spread is x times one
    # row and another, three rows side by side.
    spread = any(reduce in ("var", "std") for reduce in c.reduces)
    gather = Gather(c.row * (3 if spread else 1), e.targets)
    # The rows are made from the gradients first, and x is read where they multiply it.
    made = 2 * gather.table_bytes + (reduces - c.selects) * e.num_dst * c.row
    rows = e.num_src * c.row * (2 if spread else 1)
    return total + _cost(e.reverse_bytes, made + rows, e.num_edges * gather.row_bytes, (gather,))


# -- ops on rows in segments or groups: `num_edges` rows, `num_dst` segments -----------------------


def _segment_reduce(c: Call) -> Cost:
    return _reduce(c, c.edges.boundary_bytes, ())


def _scatter_reduce(c: Call) -> Cost:
    # Rows come in any order: their gradients are gathered from the groups.
    index = c.edges.num_edges * c.edges.index_bytes
    return _reduce(c, index, (c.from_dst,))


def _reduce(c: Call, index: int, backward_gathers: tuple[Gather, ...]) -> Cost:
    e = c.edges
    rows, out = e.num_edges * c.row, e.num_dst * c.row
    total = _cost(index, rows + out, e.num_edges * c.width)
    if not c.backward:
        return total
    if c.selects:
        return total + _cost(0, 2 * c.argument + out + rows)
    # A product's gradient needs the rows and the result again.
    again = rows + out if "mul" in c.reduces else 0
    return total + _cost(index, out + rows + again, 0, backward_gathers)


def _spread(c: Call, index: int, flops: int, gathers: tuple[Gather, ...]) -> Cost:
    """A reduction whose gradient needs its rows and its result again."""
    e = c.edges
    rows, out = e.num_edges * c.row, e.num_dst * c.row
    total = _cost(index, rows + out, flops)
    return total + _cost(index, 2 * rows + 2 * out, flops, gathers) if c.backward else total


def _segment_logsumexp(c: Call) -> Cost:
    return _spread(c, c.edges.boundary_bytes, 4 * c.edges.num_edges * c.width, ())


def _scatter_logsumexp(c: Call) -> Cost:
    index = c.edges.num_edges * c.edges.index_bytes
    return _spread(c, index, 4 * c.edges.num_edges * c.width, (c.from_dst, c.from_dst))


def _scatter_std(c: Call) -> Cost:
    index = c.edges.num_edges * c.edges.index_bytes
    return _spread(c, index, 4 * c.edges.num_edges * c.width, (c.from_dst, c.from_dst))


def _segment_gather(c: Call) -> Cost:
    e = c.edges
    forward = _cost(e.boundary_bytes, (e.num_edges + e.num_dst) * c.row)
    return forward + forward if c.backward else forward


def _segment_softmax(c: Call) -> Cost:
    return _softmax(c, c.edges.boundary_bytes)


def _segment_matmul(c: Call) -> Cost:
    return _typed_matmul(c, c.edges.boundary_bytes)


def _gather_matmul(c: Call) -> Cost:
    return _typed_matmul(c, c.edges.num_edges * c.edges.index_bytes)


def _typed_matmul(c: Call, index: int) -> Cost:
    """Row e times the matrix [width, out_width] of its type, of which there are `num_dst`."""
    e = c.edges
    rows, out = e.num_edges * c.row, e.num_edges * c.out_width * c.item
    matrices = e.num_dst * c.width * c.out_width * c.item
    bias = e.num_dst * c.out_width * c.item if c.weights else 0
    flops = 2 * e.num_edges * c.width * c.out_width
    total = _cost(index, rows + matrices + bias + out, flops)
    # Each gradient is a product of the same size with the gradient of the result.
    for name in ("x", "weight"):
        if name in c.backward:
            total += _cost(index, out + matrices + rows, flops)
    if "bias" in c.backward:
        total += _cost(index, out + bias, e.num_edges * c.out_width)
    return total


# By the name of the op: what may be differentiated by, and the cost.
INPUTS: dict[str, tuple[str, ...]] = {
    "dot_attention": ("query", "key", "value", "edge_bias", "edge_x"),
    "edge_softmax": ("score",),
    "gat_attention": ("x", "score_src", "score_dst", "edge_score"),
    "gather_matmul": ("x", "weight", "bias"),
    "gatv2_attention": ("x_src", "x_dst", "att", "edge_x"),
    "multi_reduce": ("x",),
    "scatter_logsumexp": ("x",),
    "scatter_reduce": ("x",),
    "scatter_std": ("x",),
    "sddmm": ("x_dst", "x_src"),
    "segment_gather": ("x",),
    "segment_logsumexp": ("x",),
    "segment_matmul": ("x", "weight", "bias"),
    "segment_reduce": ("x",),
    "segment_softmax": ("x",),
    "spmm": ("x", "weight"),
}
TRAFFIC: dict[str, Callable[[Call], Cost]] = {
    "dot_attention": _dot_attention,
    "edge_softmax": _edge_softmax,
    "gat_attention": _gat_attention,
    "gather_matmul": _gather_matmul,
    "gatv2_attention": _gatv2_attention,
    "multi_reduce": _multi_reduce,
    "scatter_logsumexp": _scatter_logsumexp,
    "scatter_reduce": _scatter_reduce,
    "scatter_std": _scatter_std,
    "sddmm": _sddmm,
    "segment_gather": _segment_gather,
    "segment_logsumexp": _segment_logsumexp,
    "segment_matmul": _segment_matmul,
    "segment_reduce": _segment_reduce,
    "segment_softmax": _segment_softmax,
    "spmm": _spmm,
}
