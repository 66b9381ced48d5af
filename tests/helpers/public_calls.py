"""Every public op as a function of one tensor, with all else bound: what a training step calls."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

import gnnkern
from gnnkern import Graph

HEADS, WIDTH = 4, 16


class PublicCall(NamedTuple):
    """A function, and the shape of the tensor that it takes."""

    shape: tuple[int, ...]
    run: Callable[[Tensor], Tensor]


def public_calls(
    g: Graph, backend: str, dtype: torch.dtype = torch.float32
) -> dict[str, PublicCall]:
    """Return the calls of every op on a square graph, on its device, with operands of a dtype."""
    generator = torch.Generator().manual_seed(3)

    def fixed(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(g.device, dtype)

    num_nodes, num_edges = g.num_dst, g.num_edges
    nodes, per_head = (num_nodes, HEADS, WIDTH), (num_nodes, HEADS)
    edges = (num_edges, WIDTH)
    weight, bias = fixed(num_edges, HEADS), fixed(num_edges, HEADS)
    rows, other = fixed(*nodes), fixed(*nodes)
    scores, att = (fixed(*per_head), fixed(*per_head)), fixed(HEADS, WIDTH)
    indptr, index = g.indptr.long(), g.edge_index[1]
    # Rows of four types, by their number.
    types = torch.arange(num_nodes, device=g.device) * 4 // max(num_nodes, 1)
    bounds = torch.searchsorted(types, torch.arange(5, device=g.device))
    matrices = fixed(4, WIDTH, WIDTH)
    on = {"backend": backend}
    calls = {
        "spmm_sum": (nodes, lambda x: gnnkern.spmm(g, x, weight, **on)),
        "spmm_max": (nodes, lambda x: gnnkern.spmm(g, x, reduce="max", **on)),
        "sddmm": (nodes, lambda x: gnnkern.sddmm(g, x, other, **on)),
        "edge_softmax": ((num_edges, HEADS), lambda x: gnnkern.edge_softmax(g, x, **on)),
        "gat_attention": (nodes, lambda x: gnnkern.gat_attention(g, x, *scores, **on)),
        "gatv2_attention": (nodes, lambda x: gnnkern.gatv2_attention(g, x, rows, att, **on)),
        "dot_attention": (
            nodes,
            lambda x: gnnkern.dot_attention(g, rows, x, other, edge_bias=bias, **on),
        ),
        "multi_reduce": (
            (num_nodes, WIDTH),
            lambda x: gnnkern.multi_reduce(g, x, reduces=("mean", "max", "std"), **on),
        ),
        "segment_reduce": (edges, lambda x: gnnkern.segment_reduce(x, indptr, reduce="mean", **on)),
        "segment_gather": (
            (num_nodes, WIDTH),
            lambda x: gnnkern.segment_gather(x, indptr, output_size=num_edges, **on),
        ),
        "segment_softmax": (edges, lambda x: gnnkern.segment_softmax(x, indptr, **on)),
        "segment_logsumexp": (edges, lambda x: gnnkern.segment_logsumexp(x, indptr, **on)),
        "scatter_reduce": (
            edges,
            lambda x: gnnkern.scatter_reduce(x, index, num_segments=num_nodes, reduce="sum", **on),
        ),
        "scatter_logsumexp": (
            edges,
            lambda x: gnnkern.scatter_logsumexp(x, index, num_segments=num_nodes, **on),
        ),
        "scatter_std": (
            edges,
            lambda x: gnnkern.scatter_std(x, index, num_segments=num_nodes, **on),
        ),
        "segment_matmul": (
            (num_nodes, WIDTH),
            lambda x: gnnkern.segment_matmul(x, bounds, matrices, **on),
        ),
        "gather_matmul": (
            (num_nodes, WIDTH),
            lambda x: gnnkern.gather_matmul(x, matrices, types, **on),
        ),
    }
    return {name: PublicCall(*call) for name, call in calls.items()}


# By name, for parametrization, before there is a graph.
NAMES = (
    "spmm_sum",
    "spmm_max",
    "sddmm",
    "edge_softmax",
    "gat_attention",
    "gatv2_attention",
    "dot_attention",
    "multi_reduce",
    "segment_reduce",
    "segment_gather",
    "segment_softmax",
    "segment_logsumexp",
    "scatter_reduce",
    "scatter_logsumexp",
    "scatter_std",
    "segment_matmul",
    "gather_matmul",
)
