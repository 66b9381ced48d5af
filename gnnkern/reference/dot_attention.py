"""Each node sums its in-neighbours by scaled dot-product attention, per head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ._precision import widen
from .edge_softmax import edge_softmax_reference
from .philox import dropout_keep_mask
from .scatter_reduce import scatter_reduce_reference

if TYPE_CHECKING:
    from ..graph import Graph


def dot_attention_reference(
    graph: Graph,
    query: Tensor,  # [num_dst, H, D]
    key: Tensor,  # [num_src, H, D]
    value: Tensor,  # [num_src, H, D]
    edge_bias: Tensor | None,  # [E, H]
    edge_x: Tensor | None,  # [E, H, D]
    scale: float,
    dropout: float,
    seed: Tensor | None,  # [1] int64, None without dropout
) -> Tensor:  # [num_dst, H, D]
    """Return row v = the sum of `alpha[e] * (value[u] + edge_x[e])` over the edges e = (u, v).

    alpha is the softmax, over the edges into v, of
    `scale * <query[v], key[u] + edge_x[e]> + edge_bias[e]`, then dropped out with probability
    `dropout`.
    Source: Vaswani et al., "Attention is all you need" (2017); on the edges of a graph: Shi et al.,
    "Masked label prediction" (2021).
    """
    source, destination = graph.edge_index
    edge_key = widen(key).index_select(0, source)  # [E, H, D]
    edge_value = widen(value).index_select(0, source)  # [E, H, D]
    if edge_x is not None:
        edge_key = edge_key + widen(edge_x)
        edge_value = edge_value + widen(edge_x)
    score = scale * (widen(query).index_select(0, destination) * edge_key).sum(-1)  # [E, H]
    if edge_bias is not None:
        score = score + widen(edge_bias)
    alpha = edge_softmax_reference(graph, score)  # [E, H]
    if dropout > 0:
        if seed is None:
            raise ValueError("dot_attention: dropout > 0 needs a seed")
        keep = dropout_keep_mask(seed, graph.num_edges, score.shape[1], dropout)  # [E, H]
        alpha = torch.where(keep, alpha / (1 - dropout), 0)
    message = alpha[:, :, None] * edge_value  # [E, H, D]
    return scatter_reduce_reference(message, destination, graph.num_dst, "sum").to(query.dtype)
