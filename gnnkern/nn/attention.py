"""What the attention layers share: options, edges with their self loops, heads put together."""

import torch
from torch import Tensor

from gnnkern.graph import Graph
from gnnkern.nn.inputs import with_self_loops
from gnnkern.ops.segment_reduce import segment_reduce

_FILL = {"mean": "mean", "add": "sum", "sum": "sum", "max": "max", "min": "min", "mul": "mul"}


def check_options(
    layer: str, heads: int, edge_dim: int | None, fill_value: float | Tensor | str
) -> None:
    """ValueError where an option of an attention layer cannot be."""
    if heads < 1:
        raise ValueError(f"{layer}: heads must be >= 1, got {heads}")
    if edge_dim is not None and edge_dim < 1:
        raise ValueError(f"{layer}: edge_dim must be None or >= 1, got {edge_dim}")
    if isinstance(fill_value, str) and fill_value not in _FILL:
        raise ValueError(
            f"{layer}: fill_value must be a number, a tensor or one of {', '.join(_FILL)}, "
            f"got {fill_value!r}"
        )


def edges_to_attend(
    layer: str,
    graph: Graph,
    edge_attr: Tensor | None,  # [E, edge_dim], or [E] where edge_dim is 1
    edge_dim: int | None,
    add_self_loops: bool,
    fill_value: float | Tensor | str,
) -> tuple[Graph, Tensor | None]:  # the graph, [E', edge_dim]
    """Return the graph to attend over and the features of its edges.

    Args:
        layer: Who asks, for the error.
        graph: The graph as given.
        edge_attr: Edge features, in the caller's edge order, or None.
        edge_dim: What their width has to be.
        add_self_loops: Whether to replace the self loops by one per node.
        fill_value: What a self loop has as edge features.
    """
    if edge_attr is None:
        return (with_self_loops(graph) if add_self_loops else graph), None
    if edge_attr.dim() == 1:
        edge_attr = edge_attr[:, None]
    if edge_attr.shape != (graph.num_edges, edge_dim):
        raise ValueError(
            f"{layer}: edge_attr must have shape [num_edges={graph.num_edges}, "
            f"edge_dim={edge_dim}], got {list(edge_attr.shape)}"
        )
    if add_self_loops:
        plain, edge_attr = graph.remove_self_loops(edge_attr)
        edge_attr = torch.cat([edge_attr, _loop_attr(plain, edge_attr, fill_value)])
        graph = with_self_loops(graph)
    return graph, edge_attr


def _loop_attr(
    graph: Graph, edge_attr: Tensor, fill_value: float | Tensor | str
) -> Tensor:  # [loops, edge_dim]
    loops = min(graph.num_src, graph.num_dst)
    if isinstance(fill_value, str):
        if graph.edge_id is not None:
            edge_attr = edge_attr.index_select(0, graph.edge_id)
        return segment_reduce(edge_attr, graph.indptr, reduce=_FILL[fill_value])[:loops]
    fill = torch.as_tensor(fill_value, dtype=edge_attr.dtype, device=edge_attr.device)
    return fill.expand(loops, edge_attr.shape[1])


def join_heads(
    out: Tensor,  # [N, H, D]
    concat: bool,
    residual: Tensor | None,
    bias: Tensor | None,
) -> Tensor:  # [N, H * D], or [N, D]
    """Return the heads side by side or their mean, plus residual and bias."""
    out = out.flatten(1) if concat else out.mean(dim=1)
    if residual is not None:
        out = out + residual
    return out if bias is None else out + bias
