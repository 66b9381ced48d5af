"""pyg-lib's neighbour samplers under their names, of one kind of nodes or of several.

`torch_geometric.loader.NeighborLoader` calls them through `torch.ops.pyg`, which `define` fills.
All work on the CPU and draw from torch's generator: `torch.manual_seed` repeats a sample. Which
edges are drawn has pyg-lib's distribution, and not its random numbers.

What is not here (random walks, subgraphs of given nodes, samples of distributed graphs) is missing
by name, as in a release of pyg-lib that lacks it.

Source: Hamilton et al., "Inductive representation learning on large graphs", 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gnnkern.compat._sampling import Relation, Sample, sample
from gnnkern.compat._script import define_all

__all__ = ["hetero_neighbor_sample", "neighbor_sample"]

_Kinds = tuple[str, str, str]
_STRATEGIES = ("uniform", "last")


def neighbor_sample(
    rowptr: Tensor,  # [N + 1]
    col: Tensor,  # [E]
    seed: Tensor,  # [S]
    num_neighbors: Sequence[int],
    node_time: Tensor | None = None,  # [N]
    edge_time: Tensor | None = None,  # [E]
    seed_time: Tensor | None = None,  # [S]
    edge_weight: Tensor | None = None,  # [E]
    csc: bool = False,
    replace: bool = False,
    directed: bool = True,
    disjoint: bool = False,
    temporal_strategy: str = "uniform",
    return_edge_id: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, list[int], list[int]]:
    """Sample up to `num_neighbors[i]` edges at every node that hop i reached, seeds first.

    Args:
        rowptr: Where the edges of each node begin.
        col: The other end of each edge.
        seed: Nodes to begin with, which come first in the result, in this order.
        num_neighbors: Edges of each node for every hop; -1: all.
        node_time: Times of nodes: those later than their seed are not found.
        edge_time: Times of edges: those later than their seed are not drawn.
        seed_time: Times of the seeds, by default those of the nodes.
        edge_weight: Probabilities of the edges of a node, in proportion; of 0: never.
        csc: Whether `rowptr` and `col` list the edges into each node: rows of the result are then
            their sources.
        replace: Whether an edge may be drawn again.
        directed: Must be true: the edges that were drawn alone.
        disjoint: Whether every seed has a sample of its own; times need it.
        temporal_strategy: "uniform", or "last": the latest of a node's edges, which are then sorted
            by time.
        return_edge_id: Whether positions of edges are returned.

    Returns:
        (row, col, node, edge, nodes of every hop, edges of every hop): ends of the sampled edges as
        positions in `node`, hop after hop; the nodes sampled, or pairs (seed, node) of a disjoint
        sample; positions of the edges in `col`. The two lists begin with the number of seeds, and
        with the first hop.

    Cost: reads the edges that are drawn; with times or weights all edges of the nodes expanded.
    Sorts what is found.

    Raises:
        ValueError: a seed does not exist, a size does not fit, or an option is none of these.
    """
    _check_options("neighbor_sample", directed, temporal_strategy)
    relation = Relation("", "", rowptr, col, list(num_neighbors), edge_time, edge_weight)
    found = sample(
        "neighbor_sample",
        [""],
        {"": relation},
        {"": seed},
        replace=replace,
        disjoint=disjoint,
        node_time=None if node_time is None else {"": node_time},
        seed_time=None if seed_time is None else {"": seed_time},
        latest=temporal_strategy == "last",
    )
    rows, cols, node, edge = _as_pyg_lib(found, csc, rowptr.dtype)
    edges = edge[""] if return_edge_id else None
    return rows[""], cols[""], node[""], edges, found.nodes_per_hop[""], found.edges_per_hop[""]


def hetero_neighbor_sample(
    rowptr_dict: Mapping[_Kinds, Tensor],
    col_dict: Mapping[_Kinds, Tensor],
    seed_dict: Mapping[str, Tensor],
    num_neighbors_dict: Mapping[_Kinds, Sequence[int]],
    node_time_dict: Mapping[str, Tensor] | None = None,
    edge_time_dict: Mapping[_Kinds, Tensor] | None = None,
    seed_time_dict: Mapping[str, Tensor] | None = None,
    edge_weight_dict: Mapping[_Kinds, Tensor] | None = None,
    csc: bool = False,
    replace: bool = False,
    directed: bool = True,
    disjoint: bool = False,
    temporal_strategy: str = "uniform",
    return_edge_id: bool = True,
) -> tuple[
    dict[_Kinds, Tensor],
    dict[_Kinds, Tensor],
    dict[str, Tensor],
    dict[_Kinds, Tensor] | None,
    dict[str, list[int]],
    dict[_Kinds, list[int]],
]:
    """`neighbor_sample` of graphs with several kinds of nodes and edges.

    Args and results are those of `neighbor_sample`, in dictionaries by kind: a name of nodes, or
    (source, relation, destination) of edges.
    """
    kinds = list(rowptr_dict)
    node_types = list(dict.fromkeys(name for kind in kinds for name in (kind[0], kind[2])))

    def named(given: Mapping[_Kinds, object] | None) -> dict[str, object] | None:
        return None if given is None else {"__".join(kind): v for kind, v in given.items()}

    out = _hetero_neighbor_sample(
        node_types,
        kinds,
        named(rowptr_dict),  # type: ignore[arg-type]
        named(col_dict),  # type: ignore[arg-type]
        dict(seed_dict),
        named(num_neighbors_dict),  # type: ignore[arg-type]
        None if node_time_dict is None else dict(node_time_dict),
        named(edge_time_dict),  # type: ignore[arg-type]
        None if seed_time_dict is None else dict(seed_time_dict),
        named(edge_weight_dict),  # type: ignore[arg-type]
        csc,
        replace,
        directed,
        disjoint,
        temporal_strategy,
        return_edge_id,
    )
    row, col, node, edge, nodes, edges = out

    def by_kind(given: Mapping[str, object]) -> dict[_Kinds, object]:
        return {kind: given["__".join(kind)] for kind in kinds}

    edge_ids = None if edge is None else by_kind(edge)
    return by_kind(row), by_kind(col), node, edge_ids, nodes, by_kind(edges)  # type: ignore[return-value]


def _hetero_neighbor_sample(
    node_types: list[str],
    edge_types: list[_Kinds],
    rowptr_dict: dict[str, Tensor],
    col_dict: dict[str, Tensor],
    seed_dict: dict[str, Tensor],
    num_neighbors_dict: dict[str, list[int]],
    node_time_dict: dict[str, Tensor] | None = None,
    edge_time_dict: dict[str, Tensor] | None = None,
    seed_time_dict: dict[str, Tensor] | None = None,
    edge_weight_dict: dict[str, Tensor] | None = None,
    csc: bool = False,
    replace: bool = False,
    directed: bool = True,
    disjoint: bool = False,
    temporal_strategy: str = "uniform",
    return_edge_id: bool = True,
) -> tuple[
    dict[str, Tensor],
    dict[str, Tensor],
    dict[str, Tensor],
    dict[str, Tensor] | None,
    dict[str, list[int]],
    dict[str, list[int]],
]:
    """As `torch.ops.pyg` has it: kinds of edges are names joined by two underscores."""
    _check_options("hetero_neighbor_sample", directed, temporal_strategy)
    relations = {}
    for kind in edge_types:
        name = "__".join(kind)
        relations[name] = Relation(
            kind[2] if csc else kind[0],
            kind[0] if csc else kind[2],
            rowptr_dict[name],
            col_dict[name],
            list(num_neighbors_dict.get(name, [])),
            None if edge_time_dict is None else edge_time_dict.get(name),
            None if edge_weight_dict is None else edge_weight_dict.get(name),
        )
    found = sample(
        "hetero_neighbor_sample",
        node_types,
        relations,
        seed_dict,
        replace=replace,
        disjoint=disjoint,
        node_time=node_time_dict,
        seed_time=seed_time_dict,
        latest=temporal_strategy == "last",
    )
    dtype = next((rowptr.dtype for rowptr in rowptr_dict.values()), torch.int64)
    rows, cols, node, edge = _as_pyg_lib(found, csc, dtype)
    edges = edge if return_edge_id else None
    return rows, cols, node, edges, found.nodes_per_hop, found.edges_per_hop


def _check_options(who: str, directed: bool, temporal_strategy: str) -> None:
    if not directed:
        raise ValueError(
            f"{who}: directed must be True, got False: induced subgraphs are torch_sparse's"
        )
    if temporal_strategy not in _STRATEGIES:
        raise ValueError(
            f"{who}: temporal_strategy must be one of {', '.join(_STRATEGIES)}, got "
            f"{temporal_strategy!r}"
        )


def _as_pyg_lib(
    found: Sample, csc: bool, dtype: torch.dtype
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Rows, columns, nodes and edges of a sample, in the dtype of the graph."""
    rows, cols = (found.found, found.expanded) if csc else (found.expanded, found.found)
    nodes = {
        kind: torch.stack((found.tree[kind], node), 1) if kind in found.tree else node
        for kind, node in found.node.items()
    }
    in_dtype = [
        {name: value.to(dtype) for name, value in each.items()}
        for each in (rows, cols, nodes, found.edge)
    ]
    return in_dtype[0], in_dtype[1], in_dtype[2], in_dtype[3]


_TENSORS, _LISTS = "Dict(str, Tensor)", "Dict(str, int[])"
_OPTIONS = (
    "bool csc=False, bool replace=False, bool directed=True, bool disjoint=False,"
    " str temporal_strategy='uniform', bool return_edge_id=True"
)
_OPERATORS: dict[str, tuple[str, Callable[..., Any]]] = {
    "neighbor_sample": (
        "(Tensor rowptr, Tensor col, Tensor seed, int[] num_neighbors, Tensor? node_time=None,"
        " Tensor? edge_time=None, Tensor? seed_time=None, Tensor? edge_weight=None,"
        f" {_OPTIONS}) -> (Tensor, Tensor, Tensor, Tensor?, int[], int[])",
        neighbor_sample,
    ),
    "hetero_neighbor_sample": (
        f"(str[] node_types, (str, str, str)[] edge_types, {_TENSORS} rowptr_dict,"
        f" {_TENSORS} col_dict, {_TENSORS} seed_dict, {_LISTS} num_neighbors_dict,"
        f" {_TENSORS}? node_time_dict=None, {_TENSORS}? edge_time_dict=None,"
        f" {_TENSORS}? seed_time_dict=None, {_TENSORS}? edge_weight_dict=None, {_OPTIONS})"
        f" -> ({_TENSORS}, {_TENSORS}, {_TENSORS}, {_TENSORS}?, {_LISTS}, {_LISTS})",
        _hetero_neighbor_sample,
    ),
}


def define() -> torch.library.Library:
    """Define `torch.ops.pyg.neighbor_sample` and its sibling; they last as long as the result."""
    library = torch.library.Library("pyg", "FRAGMENT")
    define_all(library, _OPERATORS)
    return library
