"""A call of `gat_attention`, for its tests with and without dropout."""

import torch

import gnnkern
from gnnkern.reference.gat_attention import gat_attention_reference

from .cases import Call, normal


def gat_call(g, heads=3, width=5, edge_score=False, dtype=torch.float32, slope=0.2):
    tensors = [normal(g.num_src, heads, width), normal(g.num_src, heads), normal(g.num_dst, heads)]
    if edge_score:
        tensors.append(normal(g.num_edges, heads))

    def op(x, score_src, score_dst, edge_score=None, *, backend):
        return gnnkern.gat_attention(
            g,
            x,
            score_src,
            score_dst,
            edge_score=edge_score,
            negative_slope=slope,
            backend=backend,
        )

    def reference(x, score_src, score_dst, edge_score=None):
        return gat_attention_reference(g, x, score_src, score_dst, edge_score, slope, 0.0, None)

    return Call(op, reference, tuple(tensors)).to(dtype)
