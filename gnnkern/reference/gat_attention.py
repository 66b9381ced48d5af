"""Each node sums its in-neighbours by learned attention, per head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ._precision import widen
from .edge_softmax import edge_softmax_reference
from .philox import dropout_keep_mask
from .spmm import spmm_reference

if TYPE_CHECKING:
    from ..graph import Graph


def gat_attention_reference(
    graph: Graph,
    x: Tensor,  # [num_src, H, D]
    score_src: Tensor,  # [num_src, H]
    score_dst: Tensor,  # [num_dst, H]
    edge_score: Tensor | None,  # [E, H]
    negative_slope: float,
    dropout: float,
    seed: Tensor | None,  # [1] int64, None without dropout
) -> Tensor:  # [num_dst, H, D]
    """Return row v = the sum of `alpha[e] * x[u]` over the edges e = (u, v), for every head.

    alpha is the softmax, over the edges into v, of the leaky ReLU of
    `score_src[u] + score_dst[v] + edge_score[e]`, then dropped out with probability `dropout`.
    Source: Velickovic et al., "Graph Attention Networks" (2018).
    """
    source, destination = graph.edge_index
    score = widen(score_src).index_select(0, source)  # [E, H]
    score = score + widen(score_dst).index_select(0, destination)
    if edge_score is not None:
        score = score + widen(edge_score)
    score = torch.nn.functional.leaky_relu(score, negative_slope)
    alpha = edge_softmax_reference(graph, score)  # [E, H]
    if dropout > 0:
        if seed is None:
            raise ValueError("gat_attention: dropout > 0 needs a seed")
        keep = dropout_keep_mask(seed, graph.num_edges, score.shape[1], dropout)  # [E, H]
        alpha = torch.where(keep, alpha / (1 - dropout), 0)
    return spmm_reference(graph, widen(x), alpha, "sum").to(x.dtype)
