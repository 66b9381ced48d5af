"""`Structure`: node types, and a `Graph` for every edge type between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gnnkern.graph import Graph
from gnnkern.integrations.dgl.errors import DGLError

__all__ = ["ALL", "EdgeType", "Structure"]

EdgeType = tuple[str, str, str]  # source type, relation, destination type

# What DGL calls "every node" and "every edge" where ids may be given.
ALL = "__ALL__"


class Structure:
    """The structure of a graph: counts of nodes by type, and one `Graph` per edge type.

    Names, defaults and orders are those of DGL's `DGLGraph`. Edge ids are the caller's order.

    Attributes:
        is_block: Whether nodes of one type are other nodes as sources than as destinations.
    """

    def __init__(
        self,
        relations: Mapping[EdgeType, Graph],
        num_src: Mapping[str, int],
        num_dst: Mapping[str, int],
        is_block: bool = False,
    ) -> None:
        self._relations = dict(relations)
        self._num_src = dict(num_src)
        self._num_dst = dict(num_dst)
        self.is_block = is_block

    # -- types -------------------------------------------------------------------------------------

    @property
    def ntypes(self) -> list[str]:
        """Names of the node types; of a block those of sources, then those of destinations."""
        if self.is_block:
            return [*self._num_src, *self._num_dst]
        return list(self._num_src)

    @property
    def srctypes(self) -> list[str]:
        """The types that edges leave: all types, unless none is left and entered."""
        return self._end_types(0)

    @property
    def dsttypes(self) -> list[str]:
        """The types that edges enter: all types, unless none is left and entered."""
        return self._end_types(2)

    def _end_types(self, end: int) -> list[str]:
        if self.is_block:
            return list(self._num_src if end == 0 else self._num_dst)
        if not self.is_unibipartite:
            return self.ntypes
        entered = {etype[2] for etype in self._relations}
        return [ntype for ntype in self.ntypes if (ntype in entered) == (end == 2)]

    @property
    def etypes(self) -> list[str]:
        """Names of the relations, in the order of `canonical_etypes`."""
        return [etype[1] for etype in self._relations]

    @property
    def canonical_etypes(self) -> list[EdgeType]:
        """(source type, relation, destination type) of every relation."""
        return list(self._relations)

    @property
    def is_homogeneous(self) -> bool:
        """Whether there is one node type and one edge type."""
        return len(self.ntypes) == 1 and len(self._relations) == 1

    @property
    def is_unibipartite(self) -> bool:
        """Whether no type is left by some edges and entered by others."""
        left = {etype[0] for etype in self._relations}
        return self.is_block or left.isdisjoint(etype[2] for etype in self._relations)

    def to_canonical_etype(self, etype: str | EdgeType | None = None) -> EdgeType:
        """The full name of an edge type; None: of the only one.

        Raises:
            DGLError: there is no such type, or several.
        """
        if etype is None:
            if len(self._relations) != 1:
                raise DGLError(
                    f"the edge type must be named, one of {self.canonical_etypes}, got None"
                )
            return next(iter(self._relations))
        if isinstance(etype, tuple):
            if etype in self._relations:
                return etype
            named = []
        else:
            named = [full for full in self._relations if full[1] == etype]
        if len(named) != 1:
            problem = "is ambiguous" if named else "does not exist"
            raise DGLError(
                f"edge type {etype!r} {problem}, expected one of {self.canonical_etypes}"
            )
        return named[0]

    def relation(self, etype: str | EdgeType | None = None) -> Graph:
        """The edges of one type as a `gnnkern.Graph`, for gnnkern's own ops."""
        return self._relations[self.to_canonical_etype(etype)]

    # -- counts ------------------------------------------------------------------------------------

    def _node_type(self, ntype: str | None, counts: Mapping[str, int]) -> str:
        if ntype is None and len(counts) == 1:
            return next(iter(counts))
        if ntype is None:
            raise DGLError(f"the node type must be named, one of {list(counts)}, got None")
        if ntype not in counts:
            raise DGLError(f"node type {ntype!r} does not exist, expected one of {list(counts)}")
        return ntype

    def _count(self, ntype: str | None, counts: Mapping[str, int]) -> int:
        return sum(counts.values()) if ntype is None else counts[self._node_type(ntype, counts)]

    def num_nodes(self, ntype: str | None = None) -> int:
        """Number of nodes of a type, or of all types; of a block at both ends."""
        if self.is_block:
            return sum(self._count(ntype, c) for c in (self._num_src, self._num_dst))
        return self._count(ntype, self._num_src)

    def num_src_nodes(self, ntype: str | None = None) -> int:
        """Number of nodes that edges may leave."""
        return self._count(ntype, {t: self._num_src[t] for t in self.srctypes})

    def num_dst_nodes(self, ntype: str | None = None) -> int:
        """Number of nodes that edges may enter."""
        return self._count(ntype, {t: self._num_dst[t] for t in self.dsttypes})

    def num_edges(self, etype: str | EdgeType | None = None) -> int:
        """Number of edges of a type, or of all types."""
        if etype is None:
            return sum(graph.num_edges for graph in self._relations.values())
        return self.relation(etype).num_edges

    number_of_nodes = num_nodes
    number_of_src_nodes = num_src_nodes
    number_of_dst_nodes = num_dst_nodes
    number_of_edges = num_edges

    @property
    def device(self) -> torch.device:
        """Where the edges lie."""
        for graph in self._relations.values():
            return graph.device
        return torch.device("cpu")

    @property
    def idtype(self) -> torch.dtype:
        """The dtype of ids that methods return: int64."""
        return torch.int64

    def in_degrees(self, v: Any = ALL, etype: str | EdgeType | None = None) -> Any:
        """Number of edges into each node [num_dst], or into those of `v`; an int for an int."""
        return _of_nodes(self.relation(etype).in_degree, v)

    def out_degrees(self, u: Any = ALL, etype: str | EdgeType | None = None) -> Any:
        """Number of edges out of each node [num_src], or out of those of `u`; an int for an int."""
        return _of_nodes(self.relation(etype).out_degree, u)

    # -- edges -------------------------------------------------------------------------------------

    def all_edges(
        self, form: str = "uv", order: str = "eid", etype: str | EdgeType | None = None
    ) -> Any:
        """The edges of a relation.

        Args:
            form: "uv" (sources [E], destinations [E]), "eid" (ids [E]) or "all" (the three).
            order: "eid" (the caller's order) or "srcdst" (by source, then by destination).
            etype: The relation; None: the only one.
        """
        if form not in ("uv", "eid", "all") or order not in ("eid", "srcdst"):
            raise DGLError(
                f"edges: form must be uv, eid or all and order eid or srcdst, got {form!r} and "
                f"{order!r}"
            )
        u, v = self.relation(etype).edge_index
        eid = torch.arange(u.shape[0], device=u.device)
        if order == "srcdst":
            eid = v.argsort(stable=True)
            eid = eid[u[eid].argsort(stable=True)]
            u, v = u[eid], v[eid]
        return {"uv": (u, v), "eid": eid, "all": (u, v, eid)}[form]

    def find_edges(self, eid: Any, etype: str | EdgeType | None = None) -> tuple[Tensor, Tensor]:
        """Sources and destinations of the edges with these ids."""
        u, v = self.relation(etype).edge_index[:, ids_on(self.device, eid)]
        return u, v

    # -- parts and places --------------------------------------------------------------------------

    def _between(self, etypes: Iterable[EdgeType]) -> dict[str, Any]:
        """The arguments of a graph of these relations alone."""
        etypes = list(etypes)
        left = dict.fromkeys(etype[0] for etype in etypes)
        entered = dict.fromkeys(etype[2] for etype in etypes)
        if not self.is_block:
            left = entered = left | entered
        return {
            "relations": {etype: self._relations[etype] for etype in etypes},
            "num_src": {ntype: self._num_src[ntype] for ntype in left},
            "num_dst": {ntype: self._num_dst[ntype] for ntype in entered},
            "is_block": self.is_block,
        }

    def __repr__(self) -> str:
        """The counts by type."""
        edges = {etype: graph.num_edges for etype, graph in self._relations.items()}
        if self.is_block:
            nodes = f"num_src_nodes={self._num_src}, num_dst_nodes={self._num_dst}"
        else:
            nodes = f"num_nodes={self._num_src}"
        return f"{type(self).__name__}({nodes}, num_edges={edges}, {self.device})"


def ids_on(device: torch.device, ids: int | Sequence[int] | Tensor) -> Tensor:  # [K] int64
    """Ids as DGL takes them: a number, a list or a tensor."""
    flat: Tensor = torch.atleast_1d(torch.as_tensor(ids, device=device))
    return flat.long()


def _of_nodes(degree: Tensor, nodes: Any) -> Any:
    if isinstance(nodes, int):
        return int(degree[nodes])
    return degree.long() if is_all(nodes) else degree.long()[ids_on(degree.device, nodes)]


def is_all(ids: Any) -> bool:
    """Whether ids are those of every node or edge."""
    return ids is None or (isinstance(ids, str) and ids == ALL)
