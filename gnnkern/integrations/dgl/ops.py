"""DGL's sparse operators, by its names and with its shapes, on gnnkern's kernels.

Every operator takes a `gnnkern.Graph` or a `DGLGraph` of one relation. Features have a row per node
or edge and any shape behind it, also none; the shapes of two operands are aligned at their *ends*
and broadcast, as in NumPy: weights [E, H] of features [N, H, D] are written [E, H, 1].

Where DGL differs from `gnnkern.spmm` and its like, this is DGL: a node without edges gets minus
infinity in a maximum and infinity in a minimum (`update_all` and `segment_reduce` turn every
infinity of these into 0), and dot products keep a last dimension of 1. Where the two differ by
what is an accident there, this is gnnkern: NaN propagates through max and min (DGL drops it); of
equal messages the first edge takes the whole gradient; a node without edges sends none (DGL: to row
0); softmax of minus infinities alone is 0 (DGL: NaN); wrong sizes of segments raise.

Besides the functions below, each pair of a message and a reduction has a name, such as
`copy_u_sum(g, x)`, `copy_e_max(g, e)` and `u_mul_e_mean(g, x, e)`, and so has each combination on
edges: `u_dot_v(g, x, y)`, `e_sub_u(g, e, x)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import permutations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gnnkern.graph import Graph
from gnnkern.integrations.dgl.errors import DGLError
from gnnkern.integrations.dgl.function import BINARY, REDUCES
from gnnkern.integrations.dgl.structure import ALL, EdgeType, Structure, ids_on, is_all
from gnnkern.ops._checks import check_floats, check_option
from gnnkern.ops.edge_softmax import edge_softmax as softmax_over_edges
from gnnkern.ops.gather_matmul import gather_matmul
from gnnkern.ops.sddmm import sddmm
from gnnkern.ops.segment_matmul import segment_matmul
from gnnkern.ops.segment_reduce import segment_reduce as reduce_segments
from gnnkern.ops.segment_softmax import segment_softmax as softmax_of_segments
from gnnkern.ops.spmm import spmm

__all__ = [
    "align",
    "copy_e",
    "copy_u",
    "copy_v",
    "edge_softmax",
    "gather_mm",
    "gsddmm",
    "gspmm",
    "segment_mm",
    "segment_reduce",
    "segment_softmax",
]

_TARGETS = {"u": "src", "v": "dst", "e": "edge"}
_COPIES = ("copy_lhs", "copy_rhs")
LOSER = {"max": -torch.inf, "min": torch.inf}


def graph_of(who: str, g: object) -> Graph:
    """The one relation of a graph as the kernels take it."""
    if isinstance(g, Graph):
        return g
    if isinstance(g, Structure):
        return g.relation()
    raise TypeError(f"{who}: g must be a DGLGraph or a gnnkern.Graph, got {type(g).__name__}")


def align(lhs: Tensor, rhs: Tensor) -> tuple[Tensor, Tensor]:
    """Two operands [rows, ...] with as many dimensions: those behind the rows meet at the end."""
    dims = max(lhs.dim(), rhs.dim())
    first, second = (
        x.reshape(x.shape[0], *[1] * (dims - x.dim()), *x.shape[1:]) for x in (lhs, rhs)
    )
    return first, second


def _operand(who: str, name: str, g: Graph, x: Tensor | None, target: str) -> Tensor:
    """An operand with a row for everything at its target."""
    check_floats(who, g.device, **{name: x})
    assert x is not None
    what, rows = {
        "u": ("num_src", g.num_src),
        "v": ("num_dst", g.num_dst),
        "e": ("E", g.num_edges),
    }[target]
    if x.dim() == 0 or x.shape[0] != rows:
        raise DGLError(f"{who}: {name} must have shape [{what}={rows}, ...], got {list(x.shape)}")
    return x


def _aligned(who: str, lhs: Tensor, rhs: Tensor, dot: bool = False) -> tuple[Tensor, Tensor]:
    """Operands whose shapes behind the rows broadcast, with one dimension there at least."""
    check_floats(who, lhs.device, lhs_data=lhs, rhs_data=rhs)
    pairs = list(zip(reversed(lhs.shape[1:]), reversed(rhs.shape[1:]), strict=False))
    unequal = dot and bool(pairs) and pairs[0][0] != pairs[0][1]
    if unequal or not all(a == b or 1 in (a, b) for a, b in pairs):
        same = " and end equally" if dot else ""
        raise DGLError(
            f"{who}: rows of lhs_data and rhs_data must broadcast{same}, got {list(lhs.shape[1:])} "
            f"and {list(rhs.shape[1:])}"
        )
    lhs, rhs = align(lhs, rhs)
    return (lhs, rhs) if lhs.dim() > 1 else (lhs.unsqueeze(-1), rhs.unsqueeze(-1))


def gspmm(
    g: Graph | Structure,
    op: str,
    reduce_op: str,
    lhs_data: Tensor | None,  # [num_src, ...]
    rhs_data: Tensor | None,  # [E, ...]
) -> Tensor:  # [num_dst, ...]
    """Reduce the messages `lhs_data[u] op rhs_data[e]` over the edges e = (u, v) into each node v.

    Args:
        g: The graph, of one relation.
        op: "add", "sub", "mul", "div", "copy_lhs" (rhs_data may be None) or "copy_rhs" (lhs_data
            may be None).
        reduce_op: "sum", "mean", "max" or "min".
        lhs_data: [num_src, ...] features of the sources.
        rhs_data: [E, ...] features of the edges, in the caller's order.

    Returns:
        [num_dst, ...], the shapes behind the rows broadcast. A node without edges gets 0, in a
        maximum minus infinity and in a minimum infinity.

    Numerics, gradients and cost: those of `gnnkern.spmm`, which does it in one walk; nothing of
    size E x F is made.

    Raises:
        TypeError: an operand is no floating tensor, or the dtypes differ.
        ValueError: a shape, device or option is wrong (`DGLError`, where it is a shape).
    """
    out = reduced(g, op, reduce_op, lhs_data, rhs_data)
    if reduce_op not in LOSER:
        return out
    return out.masked_fill(isolated(graph_of("gspmm", g), out), LOSER[reduce_op])


def isolated(g: Graph, like: Tensor) -> Tensor:  # [num_dst, 1, ...]
    """Which nodes have no edges, to mask rows with."""
    return (g.in_degree == 0).view(-1, *[1] * (like.dim() - 1))


def reduced(
    g: Graph | Structure,
    op: str,
    reduce_op: str,
    lhs_data: Tensor | None,
    rhs_data: Tensor | None,
) -> Tensor:
    """`gspmm` where a node without edges always gets 0."""
    graph = graph_of("gspmm", g)
    check_option("gspmm", "op", op, (*BINARY[:-1], *_COPIES))
    check_option("gspmm", "reduce_op", reduce_op, REDUCES)
    if op == "copy_lhs":
        x = _operand("gspmm", "lhs_data", graph, lhs_data, "u")
        rows = spmm(graph, x.reshape(x.shape[0], *x.shape[1:] or (1,)), reduce=reduce_op)
        return rows.reshape(-1, *x.shape[1:])
    rhs = _operand("gspmm", "rhs_data", graph, rhs_data, "e")
    if op == "copy_rhs":
        return spmm(graph, None, rhs, reduce=reduce_op)
    lhs = _operand("gspmm", "lhs_data", graph, lhs_data, "u")
    x, edge = _aligned("gspmm", lhs, rhs)
    out = spmm(graph, x, edge, op=op, reduce=reduce_op)
    return out.squeeze(-1) if lhs.dim() == rhs.dim() == 1 else out


def gsddmm(
    g: Graph | Structure,
    op: str,
    lhs_data: Tensor | None,
    rhs_data: Tensor | None,
    lhs_target: str = "u",
    rhs_target: str = "v",
) -> Tensor:  # [E, ...]
    """Combine `lhs_data` and `rhs_data` on every edge.

    Args:
        g: The graph, of one relation.
        op: "add", "sub", "mul", "div", "dot" (over the last dimension, of equal size, kept as 1),
            "copy_lhs" or "copy_rhs" (the other operand may be None).
        lhs_data: [num_src, ...], [num_dst, ...] or [E, ...], as lhs_target says.
        rhs_data: Likewise, as rhs_target says.
        lhs_target: "u" (source), "v" (destination) or "e" (edge).
        rhs_target: Likewise.

    Returns:
        [E, ...] in the caller's edge order, the shapes behind the rows broadcast.

    Numerics, gradients and cost: those of `gnnkern.sddmm`.

    Raises:
        TypeError: an operand is no floating tensor, or the dtypes differ.
        ValueError: a shape, device or option is wrong (`DGLError`, where it is a shape).
    """
    graph = graph_of("gsddmm", g)
    check_option("gsddmm", "op", op, (*BINARY, *_COPIES))
    check_option("gsddmm", "lhs_target", lhs_target, tuple(_TARGETS))
    check_option("gsddmm", "rhs_target", rhs_target, tuple(_TARGETS))
    if op in _COPIES:
        left = op == "copy_lhs"
        name, value = ("lhs_data", lhs_data) if left else ("rhs_data", rhs_data)
        target = lhs_target if left else rhs_target
        x = _operand("gsddmm", name, graph, value, target)
        if target == "e":
            return x
        rows = x.reshape(x.shape[0], *x.shape[1:] or (1,))
        ends = (_TARGETS[target], _TARGETS[target])
        out = sddmm(graph, rows, None, op="copy_lhs", targets=ends)
        return out.reshape(-1, *x.shape[1:])
    lhs = _operand("gsddmm", "lhs_data", graph, lhs_data, lhs_target)
    rhs = _operand("gsddmm", "rhs_data", graph, rhs_data, rhs_target)
    first, second = _aligned("gsddmm", lhs, rhs, dot=op == "dot")
    if (lhs_target, rhs_target) == ("u", "v") and op not in ("sub", "div"):
        # The order in which the kernel has a loop of its own.
        first, second, lhs_target, rhs_target = second, first, rhs_target, lhs_target
    out = sddmm(graph, first, second, op=op, targets=(_TARGETS[lhs_target], _TARGETS[rhs_target]))
    if lhs.dim() == rhs.dim() == 1:
        return out.reshape(-1)
    return out.unsqueeze(-1) if op == "dot" else out


def copy_u(g: Graph | Structure, x: Tensor) -> Tensor:
    """What lies at the source of every edge: [num_src, ...] to [E, ...]."""
    return gsddmm(g, "copy_lhs", x, None)


def copy_v(g: Graph | Structure, x: Tensor) -> Tensor:
    """What lies at the destination of every edge: [num_dst, ...] to [E, ...]."""
    return gsddmm(g, "copy_rhs", None, x)


def copy_e(g: Graph | Structure, x: Tensor) -> Tensor:
    """What lies at every edge: x itself."""
    return gsddmm(g, "copy_lhs", x, None, "e")


def edge_softmax(
    graph: Graph | Structure,
    logits: Any,  # [E, ...], or a dict of these by edge type
    eids: Any = ALL,
    norm_by: str = "dst",
) -> Any:
    """Softmax of scores over the edges that share a node, for every trailing column by itself.

    Args:
        graph: The graph. Of several relations: `logits` is a dict by edge type, and the softmax is
            over all edges into (or out of) a node, whatever their relation.
        logits: [E, ...] in the caller's edge order, or [len(eids), ...].
        eids: [K] ids of the edges that take part; by default all.
        norm_by: "dst": over the edges into each node; "src": over those out of each node.

    Returns:
        Weights of the shape and order of `logits`; a dict by canonical edge type for a dict.

    Numerics, gradients and cost: those of `gnnkern.edge_softmax`. A subset of edges is sorted at
    every call.

    Raises:
        TypeError: `logits` is no floating tensor, or a dict where the graph has one relation.
        ValueError: a shape, device or option is wrong.
    """
    check_option("edge_softmax", "norm_by", norm_by, ("dst", "src"))
    if isinstance(logits, Mapping):
        if not isinstance(graph, Structure):
            raise TypeError("edge_softmax: a dict of logits needs a DGLGraph")
        return _softmax_of_relations(graph, logits, norm_by)
    g = graph_of("edge_softmax", graph)
    if not is_all(eids):
        some = g.edge_index[:, ids_on(g.device, eids)]
        g = Graph.from_edge_index(some, (g.num_src, g.num_dst))
    score = _operand("edge_softmax", "logits", g, logits, "e")
    heads = score.flatten(1) if score.dim() > 1 else score
    return softmax_over_edges(g if norm_by == "dst" else g.reverse, heads).view(score.shape)


def _softmax_of_relations(
    graph: Structure, logits: Mapping[Any, Tensor], norm_by: str
) -> dict[EdgeType, Tensor]:
    scores = {graph.to_canonical_etype(etype): score for etype, score in logits.items()}
    weights: dict[EdgeType, Tensor] = {}
    end = 2 if norm_by == "dst" else 0
    for ntype in dict.fromkeys(etype[end] for etype in scores):
        etypes = [etype for etype in scores if etype[end] == ntype]
        for etype in etypes:
            _operand(
                "edge_softmax", f"logits[{etype!r}]", graph.relation(etype), scores[etype], "e"
            )
        nodes = [graph.relation(etype).edge_index[end // 2] for etype in etypes]
        node = torch.cat(nodes)
        size = graph.num_nodes(ntype)
        joint = Graph.from_edge_index(torch.stack((node, node)), (size, size))
        parts = edge_softmax(joint, torch.cat([scores[etype] for etype in etypes]))
        weights.update(zip(etypes, parts.split([len(n) for n in nodes]), strict=True))
    return {etype: weights[etype] for etype in scores}


def _boundaries(who: str, seglen: Tensor, num_rows: int) -> Tensor:  # [N + 1]
    """Where segments of these lengths begin and end."""
    if not isinstance(seglen, Tensor) or seglen.is_floating_point() or seglen.dim() != 1:
        raise TypeError(f"{who}: segment lengths must be an integer tensor [N]")
    indptr = torch.nn.functional.pad(seglen.long().cumsum(0), (1, 0))
    if seglen.is_cpu and (int(indptr[-1]) != num_rows or bool((seglen < 0).any())):
        raise DGLError(
            f"{who}: segment lengths must not be negative and sum to {num_rows} rows, got a sum of "
            f"{int(indptr[-1])}"
        )
    return indptr


def segment_reduce(seglen: Tensor, value: Tensor, reducer: str = "sum") -> Tensor:  # [N, ...]
    """Reduce consecutive rows.

    Args:
        seglen: [N] integer lengths of the segments, which sum to E.
        value: [E, ...] rows, grouped.
        reducer: "sum", "mean", "max" or "min".

    Returns:
        [N, ...]. An empty segment gets 0, and so does every infinite maximum or minimum.

    Numerics, gradients and cost: those of `gnnkern.segment_reduce`.

    Raises:
        TypeError: `value` is not floating, or `seglen` not of integers.
        ValueError: the lengths do not sum to E, or an option is wrong.
    """
    check_option("segment_reduce", "reducer", reducer, REDUCES)
    indptr = _boundaries("segment_reduce", seglen, value.shape[0])
    out = reduce_segments(value, indptr, reduce=reducer)
    return without_infinities(out) if reducer in LOSER else out


def without_infinities(out: Tensor) -> Tensor:
    """Maxima and minima as DGL returns them: 0 where they are infinite."""
    return out.masked_fill(out.isinf(), 0)


def segment_softmax(seglen: Tensor, value: Tensor) -> Tensor:  # [E, ...]
    """Softmax of consecutive rows: `seglen` [N] sums to E, `value` is [E, ...]."""
    return softmax_of_segments(value, _boundaries("segment_softmax", seglen, value.shape[0]))


def segment_mm(a: Tensor, b: Tensor, seglen_a: Tensor) -> Tensor:  # [N, M]
    """Consecutive rows times the matrix of their segment; as `gnnkern.segment_matmul`.

    Args:
        a: [N, K] rows, grouped.
        b: [R, K, M] one matrix per segment.
        seglen_a: [R] integer lengths of the segments, which sum to N.
    """
    return segment_matmul(a, _boundaries("segment_mm", seglen_a, a.shape[0]), b)


def gather_mm(a: Tensor, b: Tensor, *, idx_b: Tensor) -> Tensor:  # [N, M]
    """Row i of `a` [N, K] times matrix `idx_b[i]` of `b` [R, K, M]; as `gnnkern.gather_matmul`."""
    return gather_matmul(a, b, idx_b)


# -- one name for every pair -----------------------------------------------------------------------


def _named(name: str, doc: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


def _copy_reduce(end: str, reduce: str) -> Callable[..., Tensor]:
    def function(g: Graph | Structure, x: Tensor) -> Tensor:
        lhs, rhs = (x, None) if end == "u" else (None, x)
        return gspmm(g, "copy_lhs" if end == "u" else "copy_rhs", reduce, lhs, rhs)

    doc = f"The {reduce} over the edges into each node of what lies at {end}; see `gspmm`."
    return _named(f"copy_{end}_{reduce}", doc, function)


def _message_reduce(op: str, reduce: str) -> Callable[..., Tensor]:
    def function(g: Graph | Structure, x: Tensor, y: Tensor) -> Tensor:
        return gspmm(g, op, reduce, x, y)

    doc = f"The {reduce} over the edges into each node of x[u] {op} y[e]; see `gspmm`."
    return _named(f"u_{op}_e_{reduce}", doc, function)


def _on_edges(lhs: str, op: str, rhs: str) -> Callable[..., Tensor]:
    def function(g: Graph | Structure, x: Tensor, y: Tensor) -> Tensor:
        return gsddmm(g, op, x, y, lhs, rhs)

    return _named(
        f"{lhs}_{op}_{rhs}", f"x[{lhs}] {op} y[{rhs}] on every edge; see `gsddmm`.", function
    )


_MADE = [
    *(_copy_reduce(end, reduce) for end in "ue" for reduce in REDUCES),
    *(_message_reduce(op, reduce) for op in BINARY[:-1] for reduce in REDUCES),
    *(_on_edges(lhs, op, rhs) for lhs, rhs in permutations("uve", 2) for op in BINARY),
]
globals().update({function.__name__: function for function in _MADE})
__all__ += [function.__name__ for function in _MADE]

if TYPE_CHECKING:

    def __getattr__(name: str) -> Callable[..., Tensor]: ...
