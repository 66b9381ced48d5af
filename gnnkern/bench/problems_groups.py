"""Problems of statistics of groups: logarithms of sums of exponentials, standard deviations."""

from __future__ import annotations

from torch import Tensor

from gnnkern.bench.graphs import BenchGraph
from gnnkern.bench.problems import BACKWARD, FORWARD, Problem, _columns, compared_step
from gnnkern.bench.values import normal, permuted
from gnnkern.reference.scatter_logsumexp import scatter_logsumexp_reference
from gnnkern.reference.scatter_std import scatter_std_reference
from gnnkern.reference.segment_logsumexp import segment_logsumexp_reference


def group_statistics(kind: str, graph: BenchGraph, width: int) -> Problem:
    """A row per edge and group per node; with a self loop each, since peers differ on no rows."""
    graph = graph.with_loops
    index = permuted(graph.dst, seed=3)

    def reference(x: Tensor) -> Tensor:
        if kind == "segment_logsumexp":
            return segment_logsumexp_reference(x, graph.indptr)
        if kind == "scatter_logsumexp":
            return scatter_logsumexp_reference(x, index, graph.num_nodes)
        return scatter_std_reference(x, index, graph.num_nodes, unbiased=True)

    return Problem(
        kind,
        kind,
        "",
        graph,
        width,
        1,
        {"x": normal(graph, graph.num_edges, width, seed=1)},
        {FORWARD: (), BACKWARD: ("x",)},
        frozenset(),
        (graph.num_nodes, width),
        _columns(("x", "out"), compared_step(graph.num_edges, width)),
        lambda t: reference(t["x"]),
        None if kind == "segment_logsumexp" else index,
    )
