"""`FeatureGraph`: relations whose nodes and edges have features, alone or as a batch of graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from gnnkern.graph import Graph
from gnnkern.integrations.dgl.errors import DGLError
from gnnkern.integrations.dgl.frames import Frame, FramesOfTypes, SpaceView
from gnnkern.integrations.dgl.structure import EdgeType, Structure, ids_on

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["FeatureGraph", "Frames"]


class Frames(NamedTuple):
    """The features of a graph; outside of blocks a type's source and destination frame are one."""

    src: dict[str, Frame]
    dst: dict[str, Frame]
    edge: dict[EdgeType, Frame]

    def mapped(self, change: Callable[[Frame], Frame]) -> Frames:
        """Every frame changed once."""
        src = {ntype: change(frame) for ntype, frame in self.src.items()}
        dst = {
            ntype: src[ntype] if frame is self.src.get(ntype) else change(frame)
            for ntype, frame in self.dst.items()
        }
        return Frames(src, dst, {etype: change(frame) for etype, frame in self.edge.items()})


class FeatureGraph(Structure):
    """A structure with features, and the sizes of the graphs that it is a batch of.

    `ndata`, `srcdata`, `dstdata` and `edata` are dicts of features by field; where there are
    several types, of dicts by type. `nodes[ntype].data` and `edges[etype].data` are those of one.
    """

    def __init__(
        self,
        relations: Mapping[EdgeType, Graph],
        num_src: Mapping[str, int],
        num_dst: Mapping[str, int],
        is_block: bool = False,
        frames: Frames | None = None,
    ) -> None:
        super().__init__(relations, num_src, num_dst, is_block)
        if frames is None:
            src = {ntype: Frame(n, f"{ntype!r} nodes") for ntype, n in num_src.items()}
            dst = src
            if is_block:
                dst = {ntype: Frame(n, f"{ntype!r} nodes") for ntype, n in num_dst.items()}
            edge = {etype: Frame(g.num_edges, f"{etype!r} edges") for etype, g in relations.items()}
            frames = Frames(src, dst, edge)
        self._frames = frames
        self._batch_nodes: dict[str, Tensor] | None = None
        self._batch_edges: dict[EdgeType, Tensor] | None = None

    # -- features ----------------------------------------------------------------------------------

    def _of_ends(self, frames: Mapping[str, Frame], ntypes: Sequence[str]) -> Any:
        if len(ntypes) == 1:
            return frames[ntypes[0]]
        shown = {ntype: frames[ntype] for ntype in ntypes}
        return FramesOfTypes(shown, lambda ntype: self._node_type(ntype, _sizes(shown)))

    @property
    def srcdata(self) -> Any:
        """Features of the nodes that edges leave."""
        return self._of_ends(self._frames.src, self.srctypes)

    @property
    def dstdata(self) -> Any:
        """Features of the nodes that edges enter."""
        return self._of_ends(self._frames.dst, self.dsttypes)

    @property
    def ndata(self) -> Any:
        """Features of all nodes; of a block those of the sources."""
        return self.srcdata if self.is_block else self._of_ends(self._frames.src, self.ntypes)

    @property
    def edata(self) -> Any:
        """Features of the edges."""
        if len(self._relations) == 1:
            return self._frames.edge[self.to_canonical_etype()]
        return FramesOfTypes(self._frames.edge, self.to_canonical_etype)

    def _nodes_view(self, end: int) -> SpaceView[str]:
        frames = self._frames.src if end == 0 else self._frames.dst

        def named(ntype: Any) -> str:
            return self._node_type(ntype, _sizes(frames))

        def ids(ntype: str | None = None) -> Tensor:
            kinds = self.srctypes if end == 0 else self.dsttypes
            kind = kinds[0] if ntype is None and len(kinds) == 1 else named(ntype)
            return torch.arange(frames[kind].num_rows, device=self.device)

        return SpaceView(frames, named, ids)

    @property
    def nodes(self) -> SpaceView[str]:
        """`nodes[ntype].data` are the features of a type, `nodes(ntype)` its ids."""
        return self._nodes_view(0)

    @property
    def srcnodes(self) -> SpaceView[str]:
        """As `nodes`, of sources."""
        return self._nodes_view(0)

    @property
    def dstnodes(self) -> SpaceView[str]:
        """As `nodes`, of destinations."""
        return self._nodes_view(2)

    @property
    def edges(self) -> SpaceView[EdgeType]:
        """`edges[etype].data` are the features of a relation, `edges()` its ends (`all_edges`)."""
        return SpaceView(self._frames.edge, self.to_canonical_etype, self.all_edges)

    @contextmanager
    def local_scope(self) -> Iterator[None]:
        """Fields that are set inside are forgotten at the end; the tensors are not copied."""
        kept = self._frames
        self._frames = kept.mapped(Frame.copied)
        try:
            yield
        finally:
            self._frames = kept

    def local_var(self) -> Self:
        """The same graph with frames of its own, which hold the same tensors."""
        return self._with(self._frames.mapped(Frame.copied))

    def _with(self, frames: Frames, relations: Mapping[EdgeType, Graph] | None = None) -> Self:
        made = type(self)(
            relations or self._relations, self._num_src, self._num_dst, self.is_block, frames
        )
        made._batch_nodes, made._batch_edges = self._batch_nodes, self._batch_edges
        return made

    def to(self, device: torch.device | str) -> Self:
        """A copy with edges and features on a device."""
        relations = {etype: graph.to(device) for etype, graph in self._relations.items()}
        frames = self._frames.mapped(lambda frame: frame.mapped(lambda x: x.to(device)))
        made = self._with(frames, relations)
        if made._batch_nodes is not None and made._batch_edges is not None:
            made._batch_nodes = {k: n.to(device) for k, n in made._batch_nodes.items()}
            made._batch_edges = {k: n.to(device) for k, n in made._batch_edges.items()}
        return made

    def __getitem__(self, etype: str | EdgeType) -> Self:
        """The graph of one relation, which shares its features."""
        return self.edge_type_subgraph([etype])

    def edge_type_subgraph(self, etypes: Iterable[str | EdgeType]) -> Self:
        """The graph of some relations and their node types, which shares their features."""
        parts = self._between(map(self.to_canonical_etype, etypes))
        kept = self._frames
        frames = Frames(
            {ntype: kept.src[ntype] for ntype in parts["num_src"]},
            {ntype: kept.dst[ntype] for ntype in parts["num_dst"]},
            {etype: kept.edge[etype] for etype in parts["relations"]},
        )
        return type(self)(**parts, frames=frames)

    # -- batches of graphs -------------------------------------------------------------------------

    @property
    def batch_size(self) -> int:
        """Number of graphs that were batched; 1 for a graph that was not."""
        if self._batch_nodes is None:
            return 1
        return len(next(iter(self._batch_nodes.values())))

    def batch_num_nodes(self, ntype: str | None = None) -> Tensor:
        """[batch_size] how many nodes of a type each graph has."""
        kind = self._node_type(ntype, self._num_src)
        if self._batch_nodes is None:
            return torch.tensor([self._num_src[kind]], device=self.device)
        return self._batch_nodes[kind]

    def batch_num_edges(self, etype: str | EdgeType | None = None) -> Tensor:
        """[batch_size] how many edges of a type each graph has."""
        kind = self.to_canonical_etype(etype)
        if self._batch_edges is None:
            return torch.tensor([self.num_edges(kind)], device=self.device)
        return self._batch_edges[kind]

    def set_batch_num_nodes(self, counts: Tensor | Mapping[str, Tensor]) -> None:
        """Say how many nodes each graph of a batch has, of the one type or by type."""
        by_type = counts if isinstance(counts, Mapping) else {self._only(self.ntypes): counts}
        self._batch_nodes = {ntype: ids_on(self.device, n) for ntype, n in by_type.items()}

    def set_batch_num_edges(self, counts: Tensor | Mapping[Any, Tensor]) -> None:
        """Say how many edges each graph of a batch has, of the one relation or by relation."""
        by_type = counts if isinstance(counts, Mapping) else {self.to_canonical_etype(): counts}
        self._batch_edges = {
            self.to_canonical_etype(etype): ids_on(self.device, n) for etype, n in by_type.items()
        }

    @staticmethod
    def _only(ntypes: Sequence[str]) -> str:
        if len(ntypes) != 1:
            raise DGLError(f"expected a dict by node type, of {ntypes}")
        return ntypes[0]


def _sizes(frames: Mapping[str, Frame]) -> dict[str, int]:
    """How many rows each type has."""
    return {ntype: frame.num_rows for ntype, frame in frames.items()}
