"""Problems of products by type: a row per node, and as many matrices as there are types."""

from __future__ import annotations

import torch

from gnnkern.bench.graphs import BenchGraph
from gnnkern.bench.problems import BACKWARD, FORWARD, Problem
from gnnkern.bench.values import normal
from gnnkern.reference.gather_matmul import gather_matmul_reference
from gnnkern.reference.segment_matmul import segment_matmul_reference


def typed_matmul(kind: str, graph: BenchGraph, width: int) -> Problem:
    """`segment_matmul_8`: 8 types, rows in their order; `gather_matmul_8`: in any order.

    Sizes of types differ as those of real ones do, from none at all to a multiple of the average.
    """
    op, _, count = kind.rpartition("_")
    num_types = int(count)
    device = graph.device
    generator = torch.Generator(device).manual_seed(5)
    uniform = torch.rand(graph.num_nodes, generator=generator, device=device)
    types = (uniform.square() * num_types).long()  # [N]
    in_order = op == "segment_matmul"
    if in_order:
        types = types.sort().values
    problem = Problem(
        kind,
        op,
        "",
        graph,
        width,
        1,
        {
            "x": normal(graph, graph.num_nodes, width, seed=1),
            "weight": normal(graph, num_types, width, width, seed=2) / width**0.5,
        },
        {FORWARD: (), BACKWARD: ("x", "weight")},
        frozenset(),
        (graph.num_nodes, width),
        lambda name, value: value,
        lambda t: (
            segment_matmul_reference(t["x"], type_boundaries(problem), t["weight"])
            if in_order
            else gather_matmul_reference(t["x"], t["weight"], types)
        ),
        types,
    )
    return problem


def type_boundaries(problem: Problem) -> torch.Tensor:  # [R + 1]
    """Where the rows of each type begin, once rows are sorted."""
    assert problem.index is not None
    count = torch.bincount(problem.index, minlength=problem.inputs["weight"].shape[0])
    return torch.nn.functional.pad(count.cumsum(0), (1, 0))
