"""Problems of spmm with a row per edge, and of sddmm beside its plain dot product."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from gnnkern import Graph
from gnnkern.bench.graphs import BenchGraph
from gnnkern.bench.problems import BACKWARD, BACKWARD_WEIGHT, FORWARD, HEADS, Problem, compared_step
from gnnkern.bench.values import distinct, normal
from gnnkern.reference.sddmm import sddmm_reference
from gnnkern.reference.spmm import spmm_reference

# By kind: op and reduction of spmm; without an op the edges alone are reduced.
_MESSAGES = {
    "spmm_edges": (None, "sum"),
    "spmm_edge_rows": ("mul", "sum"),
    "spmm_add_max": ("add", "max"),
}


def message_op(problem: Problem) -> str | None:
    """What joins x and the edge's row; None where there is no x."""
    return _MESSAGES[problem.kind][0]


def message_of(problem: Problem, src: Tensor) -> Callable[..., Tensor]:
    """The inputs of a problem as messages [E, F], as plain torch makes them."""
    op = message_op(problem)
    if op is None:
        return lambda weight: weight
    join = torch.add if op == "add" else torch.mul
    return lambda x, weight: join(x.index_select(0, src), weight)


def messages(kind: str, graph: BenchGraph, width: int) -> Problem:
    """Messages of a row of x and a row of the edge, or of the latter alone."""
    op, reduce = _MESSAGES[kind]
    nodes, edges = graph.num_nodes, graph.num_edges
    if reduce == "max":
        x, weight = _distinct_sums(graph, width)
    else:
        x, weight = (
            normal(graph, nodes, width, seed=1),
            normal(graph, edges, width, seed=2),
        )
    inputs = {"weight": weight} if op is None else {"x": x, "weight": weight}
    directions: dict[str, tuple[str, ...]] = {FORWARD: ()}
    if op is None:
        directions[BACKWARD] = ("weight",)
    else:
        directions |= {BACKWARD: ("x",), BACKWARD_WEIGHT: ("x", "weight")}
    step = compared_step(edges, width)
    return Problem(
        kind,
        "spmm_messages",
        reduce,
        graph,
        width,
        1,
        inputs,
        directions,
        frozenset({"weight"}),
        (nodes, width),
        lambda name, value: value[:, ::step],
        lambda t: spmm_reference(graph.graph, t.get("x"), t["weight"], reduce, op or "mul"),
    )


def _distinct_sums(graph: BenchGraph, width: int) -> tuple[Tensor, Tensor]:
    """An x and an edge tensor whose sums are exact, and no two of a column alike.

    The numbers of the edges lie between two levels of x, of which there are as many as leave the
    bits of the numbers within those of float32.
    """
    bits = max((graph.num_edges - 1).bit_length(), 4)
    levels = max(min(8, 2 ** (24 - bits)), 1)
    weight = distinct(graph, graph.num_edges, width) / 8
    generator = torch.Generator(graph.device).manual_seed(1)
    shape = (graph.num_nodes, width)
    level = torch.randint(levels, shape, generator=generator, device=graph.device)
    return (level - (levels - 1) / 2) / 2, weight


def on_edges(kind: str, graph: BenchGraph, width: int) -> Problem:
    """Sums of both ends' rows, or dot products per head."""
    op, heads = ("add", 1) if kind == "sddmm_add" else ("dot", HEADS)
    nodes, edges = graph.num_nodes, graph.num_edges
    shape = (nodes, width) if heads == 1 else (nodes, heads, width // heads)
    step = max(math.ceil(edges * width / (1 << 22)), 1)
    compared = Graph.from_edge_index(graph.edge_index[:, ::step], (nodes, nodes))

    def reference(t: Mapping[str, Tensor]) -> Tensor:
        return sddmm_reference(compared, t["x_dst"], t["x_src"], op)

    return Problem(
        kind,
        "sddmm_rows",
        op,
        graph,
        width,
        heads,
        {
            "x_dst": normal(graph, *shape, seed=1),
            "x_src": normal(graph, *shape, seed=2),
        },
        {FORWARD: (), BACKWARD: ("x_dst", "x_src")},
        frozenset({"out"}),
        (edges, width if op == "add" else heads),
        lambda name, value: value[::step] if name == "out" else value,
        reference,
    )
