"""`GraphData`: a graph with the features, labels and splits that came with it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from gnnkern.graph import Graph

UNLABELLED = -1


@dataclass(frozen=True, eq=False, repr=False)
class GraphData:
    """A graph and what is known about its nodes; everything is checked once, on construction.

    Edges are directed, row 0 the source and row 1 the destination; an undirected graph stores both
    directions. In a bipartite graph `num_nodes` counts the sources and `num_dst` the destinations:
    `x` then belongs to the sources, `y` and the masks to the destinations.

    Args:
        name: what to call the graph in tables and messages.
        edge_index: int64 `[2, E]`.
        num_nodes: number of nodes N (of sources, in a bipartite graph).
        x: features, float32 `[N, F]`, finite.
        y: classes, int64 `[num_dst]`, -1 where the label is unknown.
        train_mask: bool `[S, num_dst]`, one row per split; labelled nodes only.
        val_mask: like `train_mask`.
        test_mask: like `train_mask`.
        edge_weight: float32 or float64 `[E]`, finite, in the order of `edge_index`.
        num_dst: number of destinations; None means the sources are the destinations.
        node_ids: int64 `[N]`, the id each node had in its file; None where ids were kept.

    Raises:
        TypeError: a tensor has the wrong dtype.
        ValueError: a wrong shape, an id or label out of range, a value that is not finite, or a
            split that holds an unlabelled node; the message names the first offending element.

    Cost: the checks read every tensor once.
    """

    name: str
    edge_index: Tensor  # [2, E]
    num_nodes: int
    x: Tensor | None = None  # [N, F]
    y: Tensor | None = None  # [num_dst]
    train_mask: Tensor | None = None  # [S, num_dst]
    val_mask: Tensor | None = None  # [S, num_dst]
    test_mask: Tensor | None = None  # [S, num_dst]
    edge_weight: Tensor | None = None  # [E]
    num_dst: int | None = None
    node_ids: Tensor | None = None  # [N]

    def __post_init__(self) -> None:
        """Check every field, and fill in `num_dst`."""
        _check_size(self.name, "num_nodes", self.num_nodes)
        # Frozen fields are set through object; this is the one field that has a derived default.
        if self.num_dst is None:
            object.__setattr__(self, "num_dst", self.num_nodes)
        num_dst = self._num_dst
        _check_size(self.name, "num_dst", num_dst)
        _check_edges(self.name, self.edge_index, self.num_nodes, num_dst)
        if self.edge_weight is not None:
            _check_weight(self.name, self.edge_weight, self.num_edges)
        if self.x is not None:
            _check_features(self.name, self.x, self.num_nodes)
        if self.y is not None:
            _check_labels(self.name, self.y, num_dst)
        _check_splits(self.name, self._masks, self.y, num_dst)
        if self.node_ids is not None:
            _check_tensor(self.name, "node_ids", self.node_ids, (torch.int64,))
            _check_shape(self.name, "node_ids", self.node_ids, (self.num_nodes,), "[num_nodes]")

    @property
    def _num_dst(self) -> int:
        assert self.num_dst is not None
        return self.num_dst

    @property
    def _masks(self) -> dict[str, Tensor]:
        masks = {"train": self.train_mask, "val": self.val_mask, "test": self.test_mask}
        return {f"{part}_mask": mask for part, mask in masks.items() if mask is not None}

    @property
    def num_edges(self) -> int:
        """Number of directed edges E."""
        return int(self.edge_index.shape[1])

    @property
    def num_features(self) -> int:
        """Width F of `x`; 0 without features."""
        return 0 if self.x is None else int(self.x.shape[1])

    @property
    def num_classes(self) -> int:
        """Largest label + 1; 0 without labels."""
        if self.y is None or self.y.numel() == 0:
            return 0
        return int(self.y.max()) + 1

    @property
    def num_splits(self) -> int:
        """Number of splits S; 0 without masks."""
        return next((int(mask.shape[0]) for mask in self._masks.values()), 0)

    @property
    def is_bipartite(self) -> bool:
        """Whether sources and destinations are counted apart."""
        return self.num_nodes != self._num_dst

    def graph(self) -> Graph:
        """Return the edges as a `gnnkern.Graph`; built on the first call, then kept.

        Cost: one counting sort of the edges, once.
        """
        return self._graph

    @cached_property
    def _graph(self) -> Graph:
        from gnnkern.graph import Graph

        return Graph.from_edge_index(self.edge_index, (self.num_nodes, self._num_dst))

    def __repr__(self) -> str:
        """Sizes in one line, as `GraphData(cora: 2708 nodes, 10556 edges, ...)`."""
        if self.is_bipartite:
            parts = [f"{self.num_nodes} sources", f"{self._num_dst} destinations"]
        else:
            parts = [f"{self.num_nodes} nodes"]
        parts.append(
            f"{self.num_edges} {'edges' if self.edge_weight is None else 'weighted edges'}"
        )
        if self.x is not None:
            parts.append(f"{self.num_features} features")
        if self.y is not None:
            parts.append(f"{self.num_classes} classes")
        if self.num_splits:
            # The sizes of the first split stand for all.
            sizes = [f"{part[:-5]} {int(mask[0].sum())}" for part, mask in self._masks.items()]
            splits = "1 split" if self.num_splits == 1 else f"{self.num_splits} splits"
            parts.append(f"{splits} of {' / '.join(sizes)}")
        return f"GraphData({self.name}: {', '.join(parts)})"


def _check_size(name: str, field: str, size: int) -> None:
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"GraphData {name}: {field} must be an int, got {type(size).__name__}")
    if size < 0:
        raise ValueError(f"GraphData {name}: {field} must be at least 0, got {size}")


def _check_tensor(name: str, field: str, value: Tensor, dtypes: tuple[torch.dtype, ...]) -> None:
    expected = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
    if not isinstance(value, Tensor):
        got = type(value).__name__
        raise TypeError(f"GraphData {name}: {field} must be a {expected} tensor, got {got}")
    if value.dtype not in dtypes:
        got = str(value.dtype).removeprefix("torch.")
        raise TypeError(f"GraphData {name}: {field} must be {expected}, got {got}")


def _check_shape(
    name: str, field: str, value: Tensor, shape: tuple[int, ...], meaning: str
) -> None:
    if tuple(value.shape) != shape:
        raise ValueError(
            f"GraphData {name}: {field} must have shape {meaning} = {list(shape)}, "
            f"got {list(value.shape)}"
        )


def _first(bad: Tensor) -> tuple[int, ...]:
    """Position of the first true element."""
    return tuple(int(i) for i in torch.nonzero(bad)[0])


def _check_edges(name: str, edge_index: Tensor, num_src: int, num_dst: int) -> None:
    _check_tensor(name, "edge_index", edge_index, (torch.int64,))
    if edge_index.ndim != 2 or edge_index.shape[0] != 2:
        got = list(edge_index.shape)
        raise ValueError(f"GraphData {name}: edge_index must have shape [2, E], got {got}")
    if edge_index.shape[1] == 0:
        return
    for end, ids, count in (
        ("source", edge_index[0], num_src),
        ("destination", edge_index[1], num_dst),
    ):
        low, high = torch.aminmax(ids)
        if int(low) < 0 or int(high) >= count:
            (edge,) = _first((ids < 0) | (ids >= count))
            raise ValueError(
                f"GraphData {name}: edge {edge} has {end} {int(ids[edge])}, "
                f"expected an id in [0, {count})"
            )


def _check_weight(name: str, weight: Tensor, num_edges: int) -> None:
    _check_tensor(name, "edge_weight", weight, (torch.float32, torch.float64))
    _check_shape(name, "edge_weight", weight, (num_edges,), "[E]")
    bad = ~torch.isfinite(weight)
    if bool(bad.any()):
        (edge,) = _first(bad)
        raise ValueError(
            f"GraphData {name}: edge {edge} has weight {float(weight[edge])}, "
            "expected a finite number"
        )


def _check_features(name: str, x: Tensor, num_nodes: int) -> None:
    _check_tensor(name, "x", x, (torch.float32,))
    if x.ndim != 2 or x.shape[0] != num_nodes:
        raise ValueError(
            f"GraphData {name}: x must have shape [num_nodes={num_nodes}, F], got {list(x.shape)}"
        )
    # The sum is finite only if every element is, and it needs no mask of the size of x.
    if not bool(torch.isfinite(x.sum(dtype=torch.float64))):
        node, column = _first(~torch.isfinite(x))
        raise ValueError(
            f"GraphData {name}: x[{node}, {column}] is {float(x[node, column])}, "
            "expected a finite number"
        )


def _check_labels(name: str, y: Tensor, num_dst: int) -> None:
    _check_tensor(name, "y", y, (torch.int64,))
    _check_shape(name, "y", y, (num_dst,), "[num_dst]")
    bad = y < UNLABELLED
    if bool(bad.any()):
        (node,) = _first(bad)
        raise ValueError(
            f"GraphData {name}: node {node} has label {int(y[node])}, "
            "expected a class from 0, or -1 for unlabelled"
        )


def _check_splits(name: str, masks: dict[str, Tensor], y: Tensor | None, num_dst: int) -> None:
    num_splits: int | None = None
    for field, mask in masks.items():
        _check_tensor(name, field, mask, (torch.bool,))
        if mask.ndim != 2 or mask.shape[1] != num_dst:
            raise ValueError(
                f"GraphData {name}: {field} must have shape [splits, num_dst={num_dst}], "
                f"got {list(mask.shape)}"
            )
        if num_splits is None:
            num_splits = int(mask.shape[0])
        elif mask.shape[0] != num_splits:
            raise ValueError(
                f"GraphData {name}: {field} has {mask.shape[0]} splits, "
                f"expected {num_splits} as in {next(iter(masks))}"
            )
        if y is None:
            continue
        unlabelled = mask & (y == UNLABELLED)  # [S, num_dst]
        if bool(unlabelled.any()):
            split, node = _first(unlabelled)
            raise ValueError(
                f"GraphData {name}: {field} split {split} holds node {node}, which has no label"
            )
