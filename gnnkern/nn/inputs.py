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


def as_ends(
    layer: str,
    x: Tensor | tuple[Tensor, Tensor | None],
    edge_index: Graph | Tensor,
    size: tuple[int, int] | None = None,
) -> tuple[Graph, Tensor, Tensor | None]:
    """Return the graph, the features of its sources and those of its destinations.

    Args:
        layer: Who asks, for the error.
        x: Features of the nodes, or a pair for sources and destinations; the second may be None.
        edge_index: What `as_graph` takes.
        size: (num_src, num_dst), where x does not tell.
    """
    x_src, x_dst = (x, x) if isinstance(x, Tensor) else x
    num_dst = x_src.shape[0] if x_dst is None else x_dst.shape[0]
    graph = as_graph(edge_index, *(size or (x_src.shape[0], num_dst)))
    if x_dst is not None and x_dst.shape[0] != graph.num_dst:
        raise ValueError(
            f"{layer}: x of the destinations must have shape [num_dst={graph.num_dst}, F], got "
            f"{list(x_dst.shape)}"
        )
    return graph, x_src, x_dst


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
