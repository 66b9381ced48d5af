"""torch_sparse's samplers that PyG calls through `torch.ops`, which give induced subgraphs too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from torch import Tensor

from gnnkern.compat._sampling import Relation, induce, sample

__all__ = ["OPERATORS"]

_Dict = dict[str, Tensor]


def neighbor_sample(
    colptr: Tensor,
    row: Tensor,
    input_node: Tensor,
    num_neighbors: list[int],
    replace: bool,
    directed: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(node, row, col, edge) of a sample; not directed: all edges between its nodes."""
    relation = Relation("", "", colptr, row, num_neighbors)
    out = _sample([""], {"": relation}, {"": input_node}, replace, directed)
    return out[0][""], out[1][""], out[2][""], out[3][""]


def hetero_neighbor_sample(
    node_types: list[str],
    edge_types: list[tuple[str, str, str]],
    colptr_dict: _Dict,
    row_dict: _Dict,
    input_node_dict: _Dict,
    num_neighbors_dict: dict[str, list[int]],
    num_hops: int,
    replace: bool,
    directed: bool,
) -> tuple[_Dict, _Dict, _Dict, _Dict]:
    """The same of several kinds of nodes and edges, in dictionaries."""
    relations = {}
    for src, name, dst in edge_types:
        key = f"{src}__{name}__{dst}"
        fan_out = num_neighbors_dict[key][:num_hops]
        relations[key] = Relation(dst, src, colptr_dict[key], row_dict[key], fan_out)
    return _sample(node_types, relations, input_node_dict, replace, directed)


def _sample(
    node_types: list[str],
    relations: dict[str, Relation],
    seeds: _Dict,
    replace: bool,
    directed: bool,
) -> tuple[_Dict, _Dict, _Dict, _Dict]:
    found = sample("neighbor_sample", node_types, relations, seeds, replace=replace)
    if directed:
        return found.node, found.found, found.expanded, found.edge
    edges = {name: induce(relation, found.node) for name, relation in relations.items()}
    rows, cols, ids = ({name: each[i] for name, each in edges.items()} for i in range(3))
    return found.node, rows, cols, ids


def hgt_sample(
    colptr_dict: _Dict,
    row_dict: _Dict,
    input_node_dict: _Dict,
    num_samples_dict: dict[str, list[int]],
    num_hops: int,
) -> NoReturn:
    """Raise NotImplementedError: samples by type, in proportion to degrees, are not here."""
    raise NotImplementedError(
        "torch_sparse.hgt_sample: gnnkern's stand-in does not sample for HGTLoader; "
        "NeighborLoader samples heterogeneous graphs, or install torch_sparse"
    )


_TENSORS, _LISTS = "Dict(str, Tensor)", "Dict(str, int[])"
_SAMPLE = f"({_TENSORS}, {_TENSORS}, {_TENSORS}, {_TENSORS})"
OPERATORS: dict[str, tuple[str, Callable[..., Any]]] = {
    "neighbor_sample": (
        "(Tensor colptr, Tensor row, Tensor input_node, int[] num_neighbors, bool replace,"
        " bool directed) -> (Tensor, Tensor, Tensor, Tensor)",
        neighbor_sample,
    ),
    "hetero_neighbor_sample": (
        f"(str[] node_types, (str, str, str)[] edge_types, {_TENSORS} colptr_dict,"
        f" {_TENSORS} row_dict, {_TENSORS} input_node_dict, {_LISTS} num_neighbors_dict,"
        f" int num_hops, bool replace, bool directed) -> {_SAMPLE}",
        hetero_neighbor_sample,
    ),
    "hgt_sample": (
        f"({_TENSORS} colptr_dict, {_TENSORS} row_dict, {_TENSORS} input_node_dict,"
        f" {_LISTS} num_samples_dict, int num_hops) -> {_SAMPLE}",
        hgt_sample,
    ),
}
