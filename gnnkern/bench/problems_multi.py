"""Problems of `multi_reduce`."""

from __future__ import annotations

from torch import Tensor

from gnnkern.bench.graphs import BenchGraph
from gnnkern.bench.problems import BACKWARD, FORWARD, Problem, compared_step
from gnnkern.bench.values import distinct
from gnnkern.reference.multi_reduce import multi_reduce_reference

PNA = ("mean", "min", "max", "std")

# Below it, float32 loses a tenth of a permille of the gradient of a deviation that is made of a
# mean of squares less the square of a mean, as most users make it.
_LEAST_DEVIATION = 0.1


def multi_reduce(kind: str, graph: BenchGraph, width: int) -> Problem:
    """Mean, minimum, maximum and standard deviation, as in a PNA layer."""
    step = compared_step(graph.num_edges, width)

    def well_posed(out: Tensor) -> Tensor:  # like out, [N, 4, F]
        known = out.new_ones(out.shape)
        deviation = out[:, PNA.index("std")]
        known[:, PNA.index("std")] = (deviation > _LEAST_DEVIATION) | (deviation < 1e-9)
        return known

    return Problem(
        kind,
        "multi_reduce",
        "",
        graph,
        width,
        1,
        {"x": distinct(graph, graph.num_nodes, width)},
        {FORWARD: (), BACKWARD: ("x",)},
        frozenset(),
        (graph.num_nodes, len(PNA), width),
        lambda name, value: value[..., ::step],
        lambda t: multi_reduce_reference(graph.graph, t["x"], PNA),
        well_posed=well_posed,
    )
