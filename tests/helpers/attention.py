"""Calls of the attention ops, for their tests with and without dropout."""

import torch

import gnnkern
from gnnkern.reference.dot_attention import dot_attention_reference
from gnnkern.reference.gat_attention import gat_attention_reference
from gnnkern.reference.gatv2_attention import gatv2_attention_reference

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


def dot_call(g, heads=3, width=5, edges="", dtype=torch.float32, scale=None):
    """Return a call of `dot_attention`; `edges` names the edge tensors that it takes."""
    tensors = [
        normal(g.num_dst, heads, width),
        normal(g.num_src, heads, width),
        normal(g.num_src, heads, width),
    ]
    shapes = {"edge_bias": (heads,), "edge_x": (heads, width)}
    names = [name for name in shapes if name in edges]
    tensors += [normal(g.num_edges, *shapes[name]) for name in names]

    def op(query, key, value, *rest, backend):
        options = dict(zip(names, rest, strict=True))
        return gnnkern.dot_attention(g, query, key, value, **options, scale=scale, backend=backend)

    def reference(query, key, value, *rest):
        options = dict(zip(names, rest, strict=True))
        factor = max(width, 1) ** -0.5 if scale is None else scale
        return dot_attention_reference(
            g,
            query,
            key,
            value,
            options.get("edge_bias"),
            options.get("edge_x"),
            factor,
            0.0,
            None,
        )

    return Call(op, reference, tuple(tensors)).to(dtype)


def gatv2_call(g, heads=3, width=5, edge_x=False, dtype=torch.float32, slope=0.2):
    tensors = [
        normal(g.num_src, heads, width),
        normal(g.num_dst, heads, width),
        normal(heads, width) / max(width, 1) ** 0.5,
    ]
    if edge_x:
        tensors.append(normal(g.num_edges, heads, width))

    def op(x_src, x_dst, att, edge_x=None, *, backend):
        return gnnkern.gatv2_attention(
            g, x_src, x_dst, att, edge_x=edge_x, negative_slope=slope, backend=backend
        )

    def reference(x_src, x_dst, att, edge_x=None):
        return gatv2_attention_reference(g, x_src, x_dst, att, edge_x, slope, 0.0, None)

    return Call(op, reference, tuple(tensors)).to(dtype)
