"""What partitioners read of a graph: blocks of its edges, and its simple undirected neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from gnnkern import _native
from gnnkern.graph import Graph

__all__ = [
    "Adjacency",
    "edge_blocks",
    "is_symmetric",
    "row_positions",
    "simple_adjacency",
    "subgraph",
]

# Edges per block: what is made of one is tens of megabytes.
_BLOCK_EDGES = 1 << 22


def edge_blocks(graph: Graph, block: int = _BLOCK_EDGES) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield sources and destinations, both int64 [e], of blocks of whole rows in CSR order.

    A block holds about `block` edges, or one row where that has more.
    """
    indptr = graph.indptr.long()
    row = 0
    while row < graph.num_dst:
        begin = int(indptr[row])
        last = int(torch.searchsorted(indptr, begin + block, right=True)) - 1
        last = min(max(last, row + 1), graph.num_dst)
        end = int(indptr[last])
        if end > begin:
            rows = torch.arange(row, last, device=indptr.device)
            degree = indptr[row + 1 : last + 1] - indptr[row:last]
            dst = torch.repeat_interleave(rows, degree, output_size=end - begin)
            yield graph.indices[begin:end].long(), dst
        row = last


def row_positions(indptr: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Where the edges of some rows stand in a CSR matrix: indptr int64 [n + 1], positions [e]."""
    begin = indptr.long()[rows]
    degree = indptr.long()[rows + 1] - begin
    of_rows = torch.nn.functional.pad(degree.cumsum(0), (1, 0))
    shift = torch.repeat_interleave(begin - of_rows[:-1], degree)
    return of_rows, torch.arange(len(shift)) + shift


def is_symmetric(graph: Graph) -> bool:
    """Whether every edge has its opposite, as often; by sums of 64-bit hashes, self loops aside."""
    if _native.native is not None and graph.device.type == "cpu":
        code = _native.INDEX_CODES[graph.index_dtype]
        indptr, indices = graph.indptr.data_ptr(), graph.indices.data_ptr()
        return bool(_native.native.is_symmetric(code, indptr, indices, graph.num_dst))
    keys = torch.sort(graph.edge_index[0] * graph.num_dst + graph.edge_index[1]).values
    back = torch.sort(graph.edge_index[1] * graph.num_dst + graph.edge_index[0]).values
    return torch.equal(keys, back)


class Adjacency(NamedTuple):
    """A simple undirected graph: no self loops, every neighbour once, both directions stored."""

    indptr: Tensor  # int64 [N + 1]
    indices: Tensor  # int64 [M]
    # How many edges of the graph, in both directions together, each stands for.
    multiplicity: Tensor  # int64 [M]


def simple_adjacency(graph: Graph) -> Adjacency:
    """The undirected neighbours of every node.

    Cost: a sort of 2 E 64-bit keys; at its peak about 48 bytes per edge.
    """
    num_nodes = graph.num_dst
    src, dst = graph.edge_index
    kept = src != dst
    src, dst = src[kept], dst[kept]
    keys = torch.cat([dst * num_nodes + src, src * num_nodes + dst])
    keys, multiplicity = torch.unique(keys, return_counts=True)
    row = torch.div(keys, max(num_nodes, 1), rounding_mode="floor")
    degree = torch.bincount(row, minlength=num_nodes)
    indptr = torch.nn.functional.pad(degree.cumsum(0), (1, 0))
    return Adjacency(indptr, keys - row * num_nodes, multiplicity)


def subgraph(graph: Graph, nodes: Tensor) -> Graph:  # nodes int64 [n], ascending
    """The edges between some nodes, which are numbered anew in their order."""
    number = torch.full((graph.num_dst,), -1, dtype=torch.int64, device=graph.device)
    number[nodes] = torch.arange(len(nodes), device=graph.device)
    kept = []
    for src, dst in edge_blocks(graph):
        pair = torch.stack([number[src], number[dst]])
        kept.append(pair[:, (pair >= 0).all(0)])
    empty = torch.empty(2, 0, dtype=torch.int64, device=graph.device)
    return Graph.from_edge_index(torch.cat([empty, *kept], dim=1), len(nodes))
