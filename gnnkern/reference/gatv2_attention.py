"""Each node sums its in-neighbours by attention whose score sees both ends at once, per head."""

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


def gatv2_attention_reference(
    graph: Graph,
    x_src: Tensor,  # [num_src, H, D]
    x_dst: Tensor,  # [num_dst, H, D]
    att: Tensor,  # [H, D]
    edge_x: Tensor | None,  # [E, H, D]
    negative_slope: float,
    dropout: float,
    seed: Tensor | None,  # [1] int64, None without dropout
) -> Tensor:  # [num_dst, H, D]
    """Return row v = the sum of `alpha[e] * x_src[u]` over the edges e = (u, v), for every head.

    alpha is the softmax, over the edges into v, of the dot product of att and the leaky ReLU of
    `x_src[u] + x_dst[v] + edge_x[e]`, then dropped out with probability `dropout`.
    Source: Brody et al., "How attentive are graph attention networks?" (2022).
    """
    source, destination = graph.edge_index
    x = widen(x_src).index_select(0, source)  # [E, H, D]
    x = x + widen(x_dst).index_select(0, destination)
    if edge_x is not None:
        x = x + widen(edge_x)
    x = torch.nn.functional.leaky_relu(x, negative_slope)
    score = (x * widen(att)).sum(-1)  # [E, H]
    alpha = edge_softmax_reference(graph, score)  # [E, H]
    if dropout > 0:
        if seed is None:
            raise ValueError("gatv2_attention: dropout > 0 needs a seed")
        keep = dropout_keep_mask(seed, graph.num_edges, score.shape[1], dropout)  # [E, H]
        alpha = torch.where(keep, alpha / (1 - dropout), 0)
    return spmm_reference(graph, widen(x_src), alpha, "sum").to(x_src.dtype)
