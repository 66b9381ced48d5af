"""Softmax over the edges into each node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from .segment_softmax import softmax_by_index

if TYPE_CHECKING:
    from ..graph import Graph


def edge_softmax_reference(
    graph: Graph,
    score: Tensor,  # [E] or [E, H]
) -> Tensor:  # like score
    """Return exp(score[e]) over the sum of exp(score) of all edges into e's destination.

    A row of scores that is -inf throughout gives 0.
    """
    _, destination = graph.edge_index
    return softmax_by_index(score, destination, graph.num_dst)
