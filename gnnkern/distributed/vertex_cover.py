"""Minimum vertex covers: for each pair of parts the fewest rows that serve the edges between."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from gnnkern.distributed.adjacency import edge_blocks, row_positions
from gnnkern.distributed.partition import Partition
from gnnkern.distributed.quality import by_level
from gnnkern.graph import Graph

__all__ = ["minimum_vertex_cover", "with_covered_rows"]


def minimum_vertex_cover(
    left: Tensor,  # int64 [E]
    right: Tensor,  # int64 [E]
    num_left: int,
    num_right: int,
) -> tuple[Tensor, Tensor]:  # bool [num_left], bool [num_right]
    """A smallest set of vertices of a bipartite graph that has an end of every edge.

    Edges may repeat. Graphs without a common vertex may be given as one: the cover of their union
    is the union of their covers.

    Cost: a sort of the edges, a maximum matching by Hopcroft and Karp, O(E sqrt(V)), and a walk
    over the edges from the left vertices that it leaves out.

    Raises:
        ImportError: scipy is missing.

    Source: Koenig's theorem (1931): with Z the vertices on alternating paths from unmatched left
    vertices, the left vertices outside Z and the right ones in Z are a cover as large as the
    matching, and no cover is smaller.
    """
    in_left = torch.zeros(num_left, dtype=torch.bool)
    in_right = torch.zeros(num_right, dtype=torch.bool)
    if len(left) == 0:
        return in_left, in_right
    keys = torch.unique(left * num_right + right)
    row = torch.div(keys, num_right, rounding_mode="floor")
    degree = torch.bincount(row, minlength=num_left)
    indptr = torch.nn.functional.pad(degree.cumsum(0), (1, 0))
    indices = keys - row * num_right
    partner = _matching(indptr, indices, num_right)  # [num_left], -1 where unmatched
    matched = (partner >= 0).nonzero().squeeze(1)
    partner_of_right = torch.full((num_right,), -1)
    partner_of_right[partner[matched]] = matched
    outside = partner >= 0
    reached = (~outside).nonzero().squeeze(1)
    while len(reached):
        seen = torch.unique(indices[row_positions(indptr, reached)[1]])
        seen = seen[~in_right[seen]]
        in_right[seen] = True
        # Every right vertex so reached is matched, or the matching could be larger.
        reached = partner_of_right[seen]
        outside[reached] = False
    return outside, in_right


def _matching(indptr: Tensor, indices: Tensor, num_right: int) -> Tensor:
    """The right vertex that each left one is matched to in a maximum matching; -1: none."""
    try:
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import maximum_bipartite_matching
    except ImportError as error:
        raise ImportError(
            f"a vertex cover needs scipy: pip install gnnkern[partition] ({error})"
        ) from error
    if max(len(indices), num_right, len(indptr)) >= 2**31:
        raise ValueError(
            f"vertex cover: fewer than 2^31 cut edges can be matched, got {len(indices)}"
        )
    ones = torch.ones(len(indices), dtype=torch.uint8)
    arrays = (ones.numpy(), indices.int().numpy(), indptr.int().numpy())
    matrix = csr_array(arrays, shape=(len(indptr) - 1, num_right))
    return torch.from_numpy(maximum_bipartite_matching(matrix, perm_type="column")).long()


def with_covered_rows(graph: Graph, partition: Partition) -> Partition:
    """The same partition, whose report says how many rows a cover exchanges (`Quality.cover`).

    Cost: memory of 16 bytes per cut edge, several times over, and the covers of all pairs of parts.
    """
    part, parts = partition.part, partition.num_parts
    sources, sums = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.int64)]
    for src, dst in edge_blocks(graph.to("cpu")):
        outside = part[src] != part[dst]
        src, dst = src[outside], dst[outside]
        # A source and the part that needs it; a destination and the part that has sources of it.
        sources.append(src * parts + part[dst])
        sums.append(dst * parts + part[src])
    source, left = torch.unique(torch.cat(sources), return_inverse=True)
    of_sum, right = torch.unique(torch.cat(sums), return_inverse=True)
    in_left, in_right = minimum_vertex_cover(left, right, len(source), len(of_sum))
    kept = torch.cat([source[in_left], of_sum[in_right]])
    level = torch.tensor([partition.hierarchy.levels_from(rank) for rank in range(parts)])
    ends = part[torch.div(kept, parts, rounding_mode="floor")], kept % parts
    rows = by_level(level[ends])
    return replace(partition, quality=replace(partition.quality, cover=rows))
