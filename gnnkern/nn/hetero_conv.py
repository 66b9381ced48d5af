"""A layer of several relations: one layer for each, their results combined per node type."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gnnkern.nn.layer import Layer

EdgeType = tuple[str, str, str]

_COMBINE = ("sum", "mean", "min", "max", "cat", None)


class _ByEdgeType(nn.ModuleDict):
    """Modules under PyG's names for triples, such as `<user___rates___item>`."""

    def __getitem__(self, key: Any) -> nn.Module:
        return super().__getitem__(_key(key) if isinstance(key, tuple) else key)


def _key(edge_type: EdgeType) -> str:
    return f"<{'___'.join(edge_type)}>".replace(".", "#")


class HeteroConv(Layer):
    """Every relation's layer on its own nodes and edges; results per destination type are combined.

    Constructor, `forward` and `state_dict` (`convs.<src___relation___dst>.*`) are those of PyG's
    class of the same name.

    Ops: those of the layers.

    Args:
        convs: A layer for each (source type, relation, destination type).
        aggr: How the results for one node type are combined: "sum", "mean", "min", "max", "cat"
            (side by side) or None (stacked in the second dimension).

    Source: Schlichtkrull et al., "Modeling relational data with graph convolutional networks",
    2018.
    """

    def __init__(self, convs: Mapping[EdgeType, nn.Module], aggr: str | None = "sum") -> None:
        super().__init__()
        if aggr not in _COMBINE:
            raise ValueError(f"HeteroConv: aggr must be one of {_COMBINE}, got {aggr!r}")
        for edge_type, conv in convs.items():
            if not isinstance(edge_type, tuple) or len(edge_type) != 3:
                raise TypeError(
                    "HeteroConv: convs must have (source type, relation, destination type) as "
                    f"keys, got {edge_type!r}"
                )
            if edge_type[0] != edge_type[-1] and getattr(conv, "add_self_loops", False):
                raise ValueError(
                    f"HeteroConv: {conv} for {edge_type} must have add_self_loops=False, since its "
                    "ends are of different types"
                )
        sources = {edge_type[0] for edge_type in convs}
        left = sorted(sources - {edge_type[-1] for edge_type in convs})
        if left:
            warnings.warn(
                f"HeteroConv: node types {left} are no relation's destination and get no result",
                stacklevel=2,
            )
        self.edge_types = list(convs)
        self.convs = _ByEdgeType({_key(edge_type): conv for edge_type, conv in convs.items()})
        self.aggr = aggr

    def forward(
        self, *args_dict: Mapping[Any, Any], **kwargs_dict: Mapping[Any, Any]
    ) -> dict[str, Tensor]:
        """Return the combined results of each node type that is a destination.

        Args:
            *args_dict: For each argument of the layers, its values: by node type (such as
                features; a layer between two types gets the pair) or by edge type (such as a
                `Graph` or an edge_index). A relation without any of the latter is left out.
            **kwargs_dict: Likewise by name: `edge_attr_dict` has the layers' `edge_attr`.
        """
        for name in kwargs_dict:
            if not name.endswith("_dict"):
                raise ValueError(f"HeteroConv: keyword arguments must end with _dict, got {name!r}")
        named = {name.removesuffix("_dict"): values for name, values in kwargs_dict.items()}
        results: dict[str, list[Tensor]] = {}
        for edge_type in self.edge_types:
            if not any(edge_type in values for values in (*args_dict, *named.values())):
                continue
            args = [_of(edge_type, values) for values in args_dict if _has(edge_type, values)]
            kwargs = {
                name: _of(edge_type, values)
                for name, values in named.items()
                if _has(edge_type, values)
            }
            out = self.convs[edge_type](*args, **kwargs)
            results.setdefault(edge_type[-1], []).append(out)
        return {node_type: self._combine(outs) for node_type, outs in results.items()}

    def _combine(self, outs: list[Tensor]) -> Tensor:
        if self.aggr is None:
            return torch.stack(outs, dim=1)
        if len(outs) == 1:
            return outs[0]
        if self.aggr == "cat":
            return torch.cat(outs, dim=-1)
        stacked = torch.stack(outs)
        if self.aggr in ("sum", "mean"):
            return stacked.sum(0) if self.aggr == "sum" else stacked.mean(0)
        return (stacked.max(0) if self.aggr == "max" else stacked.min(0)).values

    def __repr__(self) -> str:
        """Return e.g. `HeteroConv(num_relations=3)`."""
        return f"HeteroConv(num_relations={len(self.convs)})"


def _has(edge_type: EdgeType, values: Mapping[Any, Any]) -> bool:
    return any(key in values for key in (edge_type, edge_type[0], edge_type[-1]))


def _of(edge_type: EdgeType, values: Mapping[Any, Any]) -> Any:
    """Return the value of an edge type, of its node type, or the pair of its two node types."""
    src, _, dst = edge_type
    if edge_type in values:
        return values[edge_type]
    return values[src] if src == dst else (values.get(src), values.get(dst))
