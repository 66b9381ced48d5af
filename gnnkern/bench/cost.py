"""What a problem must cost on this machine, by the model in `gnnkern.hardware.cost`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from torch import Tensor

from gnnkern.bench.problems import Problem
from gnnkern.hardware import Machine, probe
from gnnkern.hardware import cost as model
from gnnkern.hardware.cost import Cost, Edges, Times

# Of the graph, each edge once, as rows in segments or groups: their arrays are int64.
_ON_ROWS = ("segment_", "scatter_", "gather_")


@lru_cache(maxsize=2)
def machine(device: str = "cpu") -> Machine:
    """The device on the threads that are pinned, measured at first use or read from its file."""
    return probe(device)


def cost(problem: Problem, direction: str) -> Cost:
    """The bytes and operations of a problem in a direction."""
    backward = problem.directions[direction]
    layer = _LAYERS.get(problem.op)
    if layer is not None:
        return layer(problem, bool(backward))
    edges = Edges.of(problem.graph.graph)
    if problem.op.startswith(_ON_ROWS):
        edges = replace(edges, in_order=True, index_bytes=8)
    if problem.op.endswith("_matmul"):
        # A row per node, and a matrix per type.
        edges = Edges.segments(problem.inputs["weight"].shape[0], edges.num_dst)
    return model.cost(
        _PUBLIC.get(problem.op, problem.op),
        edges,
        width=problem.width,
        dtype=_first(problem).dtype,
        heads=problem.heads,
        reduce=problem.reduce or "sum",
        weighted=problem.weighted and "x" in problem.inputs and not problem.op.endswith("_matmul"),
        backward=backward,
        edge_rows=problem.op == "spmm_messages",
        edge_op=problem.reduce or "dot",
        out_width=problem.width,
    )


def limits(problem: Problem, moved: Cost) -> Times:
    """The times that a measured one stands between."""
    return model.times(moved, machine(str(problem.device)), dtype=_first(problem).dtype)


def _first(problem: Problem) -> Tensor:
    return next(iter(problem.inputs.values()))


def _gat_layer(problem: Problem, backward: bool) -> Cost:
    """A linear map of square weights, then the attention over the edges with self loops."""
    g = problem.graph.with_loops.graph
    x = _first(problem)
    attention = model.cost(
        "gat_attention",
        g,
        width=problem.width,
        dtype=x.dtype,
        heads=problem.heads,
        backward=("x", "score_src", "score_dst") if backward else (),
    )
    row_bytes = g.num_dst * problem.width * x.element_size()
    flops = 2 * g.num_dst * problem.width**2
    linear = Cost(2 * row_bytes, 0, flops)
    # The gradient of the result and x are read, that of x is written; h is read for the scores'.
    return attention + linear + (Cost(4 * row_bytes, 0, 2 * flops) if backward else Cost())


def _gatv2_layer(problem: Problem, backward: bool) -> Cost:
    """Two linear maps of square weights, then the attention over the edges with self loops."""
    g = problem.graph.with_loops.graph
    x = _first(problem)
    attention = model.cost(
        "gatv2_attention",
        g,
        width=problem.width,
        dtype=x.dtype,
        heads=problem.heads,
        backward=("x_src", "x_dst", "att") if backward else (),
    )
    row_bytes = g.num_dst * problem.width * x.element_size()
    flops = 2 * 2 * g.num_dst * problem.width**2
    linear = Cost(3 * row_bytes, 0, flops)
    # Two gradients and x are read, that of x is written.
    return attention + linear + (Cost(4 * row_bytes, 0, 2 * flops) if backward else Cost())


def _transformer_layer(problem: Problem, backward: bool) -> Cost:
    """Four linear maps of square weights, the attention, and the sum with the fourth."""
    g = problem.graph.graph
    x = _first(problem)
    attention = model.cost(
        "dot_attention",
        g,
        width=problem.width,
        dtype=x.dtype,
        heads=problem.heads,
        backward=("query", "key", "value") if backward else (),
    )
    row_bytes = g.num_dst * problem.width * x.element_size()
    flops = 4 * 2 * g.num_dst * problem.width**2
    linear = Cost(7 * row_bytes, 0, flops)
    # Four gradients and x are read, that of x is written.
    return attention + linear + (Cost(6 * row_bytes, 0, 2 * flops) if backward else Cost())


_LAYERS: dict[str, Callable[[Problem, bool], Cost]] = {
    "gat_layer": _gat_layer,
    "gatv2_layer": _gatv2_layer,
    "transformer_layer": _transformer_layer,
}

_PUBLIC = {"spmm_messages": "spmm", "sddmm_rows": "sddmm"}
