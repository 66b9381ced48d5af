"""What every layer accepts as its graph: a `Graph`, an `edge_index`, or a torch sparse matrix."""

import torch
from torch import Tensor

from gnnkern.graph import Graph


def as_graph(edge_index: Graph | Tensor, num_src: int, num_dst: int) -> Graph:
    """Return the `Graph` behind a layer's `edge_index` argument.

    An `edge_index` or a sparse matrix is sorted anew on every call: build the `Graph` once
    where the edges stay the same.

    Args:
        edge_index: A `Graph`; an integer tensor [2, E], row 0 source and row 1 destination; or a
            torch sparse matrix [num_dst, num_src], rows being destinations.
        num_src: Number of source nodes.
        num_dst: Number of destination nodes.
    """
    if isinstance(edge_index, Graph):
        return edge_index
    if not isinstance(edge_index, Tensor):
        raise TypeError(
            "edge_index must be a gnnkern.Graph, an integer tensor [2, E] or a torch sparse "
            f"matrix, got {type(edge_index).__name__}"
        )
    if edge_index.layout is not torch.strided:
        return Graph.from_torch_sparse(edge_index)
    return Graph.from_edge_index(edge_index, (num_src, num_dst))


def sparse_values(edge_index: Graph | Tensor) -> Tensor | None:
    """Return a torch sparse matrix's values, one per edge in its own order, and else None."""
    if isinstance(edge_index, Graph) or edge_index.layout is torch.strided:
        return None
    if edge_index.layout is torch.sparse_coo:
        return edge_index.coalesce().values()
    return edge_index.values()


def with_self_loops(graph: Graph) -> Graph:
    """Return the graph with one loop per node that is both source and destination.

    Those are the first min(num_src, num_dst) nodes, as in PyG. Only where the two counts agree is
    the result kept on the graph.
    """
    if graph.num_src == graph.num_dst:
        return graph.add_self_loops()  # type: ignore[no-any-return]
    others = graph.remove_self_loops().edge_index  # [2, E']
    nodes = torch.arange(min(graph.num_src, graph.num_dst), device=graph.device)
    edge_index = torch.cat([others, nodes.expand(2, -1)], dim=1)
    return Graph.from_edge_index(edge_index, (graph.num_src, graph.num_dst))
