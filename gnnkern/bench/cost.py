"""The cost model: the bytes that an op must move, and those that it gathers.

    compulsory   every byte once: input rows, output rows, indices
    gathered     E x F x itemsize per gather of rows: what moves when no row is found in a cache

An op that only streams gathers nothing: its compulsory bytes stand for both.
"""

from __future__ import annotations

from typing import NamedTuple

from gnnkern.bench.bandwidth import copy_bandwidth, gather_bandwidth
from gnnkern.bench.problems import BACKWARD_WEIGHT, FORWARD, Problem

_INDEX = 4


class Cost(NamedTuple):
    """Bytes of one forward, or of a forward and the gradients of its direction."""

    compulsory: int
    gathered: int

    def __add__(self, other: object) -> Cost:
        assert isinstance(other, Cost)
        return Cost(self.compulsory + other.compulsory, self.gathered + other.gathered)

    @property
    def moved(self) -> int:
        """The bytes that an achieved bandwidth is quoted against."""
        return self.gathered or self.compulsory


class Floor(NamedTuple):
    """The times in seconds that a measured one stands between."""

    compulsory: float
    gather: float
    cache: float

    @property
    def least(self) -> float:
        return max(self.compulsory, self.cache)


def cost(problem: Problem, direction: str) -> Cost:
    """The bytes of a problem in a direction."""
    g = problem.graph.with_loops.graph if problem.op == "gat_layer" else problem.graph.graph
    edges, nodes = g.num_edges, g.num_dst
    itemsize = problem.dtype.itemsize
    rows = nodes * problem.width * itemsize
    edge_rows = edges * problem.width * itemsize
    scalars = edges * itemsize
    structure = (edges + nodes + 1) * _INDEX
    forward = {
        "spmm": Cost(structure + 2 * rows + problem.weighted * scalars, edge_rows),
        "sddmm": Cost(structure + 2 * rows + scalars, edge_rows),
        "edge_softmax": Cost(structure + 2 * edge_rows, 0),
        "gat_attention": Cost(structure + 2 * rows, edge_rows),
        # The linear map reads x and writes what attention reads.
        "gat_layer": Cost(structure + 4 * rows, edge_rows),
        "segment_reduce": Cost(nodes * _INDEX + edge_rows + rows, 0),
        "segment_gather": Cost(nodes * _INDEX + edge_rows + rows, 0),
        "segment_softmax": Cost(nodes * _INDEX + 2 * edge_rows, 0),
        "scatter_reduce": Cost(edges * _INDEX + edge_rows + rows, 0),
        # Four results from one gather.
        "multi_reduce": Cost(structure + 5 * rows, edge_rows),
    }[problem.op]
    select = problem.reduce == "max" or problem.op == "multi_reduce"
    argument = nodes * problem.width * (1 if g.max_degree <= 255 else 2) if select else 0
    if direction == FORWARD:
        return forward
    backward = {
        # A winner is scattered to one row each: nothing is gathered by edge.
        "spmm": Cost(2 * argument + 2 * rows, 0) if select else forward,
        "sddmm": forward + forward,
        "edge_softmax": Cost(structure + 3 * edge_rows, 0),
        "gat_attention": Cost(structure + 4 * rows + scalars * problem.heads, edge_rows),
        "gat_layer": Cost(structure + 8 * rows + scalars * problem.heads, edge_rows),
        "segment_reduce": Cost(2 * argument + edge_rows + rows, 0),
        "segment_gather": forward,
        "segment_softmax": Cost(nodes * _INDEX + 3 * edge_rows, 0),
        "scatter_reduce": Cost(edges * _INDEX + 2 * argument + edge_rows + rows, 0),
        # Four gradients, mean, deviation, x and its gradient; what is gathered is the gradient of a
        # message at the mean, how it grows from there, and the mean.
        "multi_reduce": Cost(structure + 8 * rows + 4 * argument, 3 * edge_rows),
    }[problem.op]
    if direction == BACKWARD_WEIGHT:
        # The weight's gradient is the dot of both ends' rows.
        backward += Cost(structure + 2 * rows + scalars, edge_rows)
    return forward + backward


def floor(moved: Cost, width: int) -> Floor:
    """The floor on this machine; what gathers nothing does not ask for the cache's bandwidth."""
    copy = copy_bandwidth()
    cache = moved.gathered / gather_bandwidth(width) if moved.gathered else 0.0
    return Floor(moved.compulsory / copy, moved.moved / copy, cache)
