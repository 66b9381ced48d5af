"""`Cover`: linear ops are sent rows of other ranks, or sums that these make: the fewest of both."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from gnnkern.distributed.exchange import Arriving, HaloExchange
from gnnkern.distributed.vertex_cover import minimum_vertex_cover
from gnnkern.graph import Graph
from gnnkern.ops._linear import divide_rows
from gnnkern.ops.spmm import spmm

if TYPE_CHECKING:
    from gnnkern.distributed.graph import PartitionedGraph

__all__ = ["SPMM", "Cover", "Covering"]

# The op as `run_op` is given it.
SPMM: Callable[..., Any] = spmm.__wrapped__  # type: ignore[attr-defined]


class Covering:
    """A graph's cover, made when it is first asked for, by all ranks at once; views share it."""

    def __init__(self) -> None:
        self._cover: Cover | None = None

    def of(self, graph: PartitionedGraph) -> Cover:
        """The cover of a graph, always the same one."""
        if self._cover is None:
            self._cover = Cover(graph)
        return self._cover

    def serving(
        self, graph: PartitionedGraph, op: Callable[..., Any], arguments: dict[str, Any]
    ) -> Cover | None:
        """The cover, where it serves a call of an op: one that is linear in the source rows."""
        x, weight = arguments.get("x"), arguments.get("weight")
        if (
            op is not SPMM
            or arguments.get("reduce", "sum") not in ("sum", "mean")
            or arguments.get("op", "mul") not in ("mul", "div")
            or not isinstance(x, Tensor)
            or not x.is_floating_point()
            or not _keeps_shape(x, weight)
        ):
            return None
        cover = self.of(graph)
        if weight is None or not (weight.requires_grad and torch.is_grad_enabled()):
            return cover
        # Weights that change travel at every call, which a window or a schedule is to spare.
        if not isinstance(graph.exchange, HaloExchange):
            return None
        spared = (cover.plain_rows - cover.rows) * x[:1].numel()
        return cover if spared > cover.edges * weight[:1].numel() else None


def _keeps_shape(x: Tensor, weight: Tensor | None) -> bool:
    """Whether a message has the shape of the row that it is made of."""
    if weight is None or weight.dim() == 1:
        return x.dim() >= 2
    if weight.dim() == 2 and x.dim() == 3:
        return weight.shape[1] == x.shape[1]
    pairs = zip(weight.shape[1:], x.shape[1:], strict=False)
    return weight.dim() == x.dim() and all(a in (b, 1) for a, b in pairs)


class Cover:
    """Which cut edges are served by their sources' rows, and which by sums over them.

    For each pair of parts the cut edges are a bipartite graph, and a minimum vertex cover of it is
    the fewest rows that serve them all: a source in the cover is sent as it is; a destination in
    the cover is sent the sum over its sources of that part that are not. Sums are computed where
    the sources are, with the edges' weights, which travel there: once, where they do not change.

    Making one is collective. The receiver of rows finds the covers, from its own edges, and tells
    the owners: one exchange of 16 bytes for each edge that a sum serves, and of one byte per ghost.

    Attributes:
        exchange: Of a table of rows and sums, in place of the graph's exchange of rows.
        rows: Rows that all ranks send with it.
        plain_rows: Rows that all ranks send without it.
        edges: Edges of all ranks that sums serve.
    """

    def __init__(self, graph: PartitionedGraph) -> None:
        graph.exact.before_first(graph.device)
        wishes = _Wishes(graph)
        duties = _Duties(graph, wishes)
        self._sums, self._rows = duties.sums.to(graph.device), duties.rows.to(graph.device)
        exact, plan = graph.exact, graph.exact.plan
        covered = replace(
            plan,
            num_rows=len(duties.rows) + duties.sums.num_dst,
            send_rows=duties.send_rows,
            send_splits=duties.send_splits,
            sent=duties.sent,
            ghosts=wishes.ids,
            recv_splits=wishes.splits,
        )
        # The weights of the edges that sums serve, from the sums' receivers to where these are.
        weights = replace(
            plan,
            num_rows=graph.num_edges,
            send_rows=_caller_places(graph, wishes.summed_edges),
            send_splits=wishes.edge_splits,
            sent=wishes.edge_rows,
            ghosts=duties.edge_rows,
            recv_splits=duties.edge_splits,
        )
        self.exchange = HaloExchange(covered, exact.group, graph.traffic)
        self._weights = HaloExchange(weights, exact.group, graph.traffic)
        self._boundary, stays = wishes.boundary(graph)
        self._boundary = self._boundary.to(graph.device)
        self._stays = _caller_places(graph, stays).to(graph.device)
        first, last = graph.interior_rows
        self._degree = torch.cat([graph.in_degree[:first], graph.in_degree[last:]])
        # Edges whose sources are sent as they are, their rows, and the rows that are sent sums.
        of_rows = (_caller_places(graph, wishes.kept_edges), wishes.kept_edge_rows)
        self._cut = [x.to(graph.device) for x in (*of_rows, wishes.sum_rows)]
        self._num_dst = graph.num_dst
        self._known = _Remembered()
        counts = torch.tensor(
            [len(duties.sent), plan.num_sent, len(duties.edge_rows)], device=graph.device
        )
        self.rows, self.plain_rows, self.edges = graph.sum_over_ranks(counts).tolist()

    def __repr__(self) -> str:
        """Rows of all ranks with it and without, and the edges that sums serve."""
        return (
            f"Cover({self.rows:,} rows in place of {self.plain_rows:,}, sums over "
            f"{self.edges:,} edges)"
        )

    def start(self, graph: PartitionedGraph, arguments: dict[str, Any]) -> Arriving:
        """Send rows and sums of a call that the cover serves."""
        x, weight = arguments["x"], arguments.get("weight")
        given = [x] if weight is None else [x, weight]
        name = arguments.get("op", "mul")
        table = self._known.get(name, given, lambda: self._table(arguments))
        return graph.exchange.start([table], carrier=self.exchange)

    def _table(self, arguments: dict[str, Any]) -> Tensor:  # [f + k, ...]
        x: Tensor = arguments["x"]
        weight: Tensor | None = arguments.get("weight")
        if weight is not None:
            given = weight
            weight = self._known.get("weight", [given], lambda: self._weights(given))
        sums = SPMM(self._sums, **(arguments | {"weight": weight, "reduce": "sum"}))
        return torch.cat([x.index_select(0, self._rows), sums])

    def boundary(self, arguments: dict[str, Any], ghosts: Tensor) -> Tensor:
        """The rows that wait for an exchange, of what it brought, [g', ...]."""
        weight = arguments.get("weight")
        if weight is not None:
            ones = weight.new_ones(len(self._cut[2]), *weight.shape[1:])
            weight = torch.cat([weight.index_select(0, self._stays), ones])
        given = {"x": torch.cat([arguments["x"], ghosts]), "weight": weight, "reduce": "sum"}
        total: Tensor = SPMM(self._boundary, **(arguments | given))
        if arguments.get("reduce", "sum") == "sum":
            return total
        return divide_rows(total, self._degree.clamp(min=1))

    def mass(self, size: Tensor) -> Tensor:  # [E_local] -> [num_dst]
        """What each row's sum changes by, if every row that arrives changes by one.

        Args:
            size: Absolute weights of the graph's edges.
        """
        edges, rows, sum_rows = self._cut
        mass = size.new_zeros(self._num_dst).index_add(0, rows, size[edges])
        return mass.index_add(0, sum_rows, size.new_ones(len(sum_rows)))


class _Wishes:
    """What a rank is to be sent, which it finds from its own edges; all on the CPU.

    Attributes:
        kept: bool [g] ghosts that are sent as they are.
        kept_edges: [e] places in the CSR arrays of the cut edges that these serve.
        kept_edge_rows: [e] their rows.
        summed_edges: [h] places of the cut edges that sums serve, by the sources' owner.
        edge_sources: [h] the edge's ghost, counted among those of its owner.
        edge_rows: [h] its row.
        edge_splits: [P] of these edges.
        sum_rows: [m] the row of each sum, by owner.
        ids: [g'] of what is received, by owner, rows before sums; the sum of row r is -1 - r.
        splits: [P] of what is received.
    """

    def __init__(self, graph: PartitionedGraph) -> None:
        plan, parts = graph.exact.plan, graph.exact.plan.hierarchy.size
        self._indices = graph.indices.long().cpu()
        rows = torch.arange(graph.num_dst)
        self._row_of = torch.repeat_interleave(rows, graph.in_degree.long().cpu())
        cut = (self._indices >= graph.num_src).nonzero().squeeze(1)
        ghost, row = self._indices[cut] - graph.num_src, self._row_of[cut]
        owner = _ranks_of(plan.recv_splits)  # [g]
        pairs, pair = torch.unique(owner[ghost] * graph.num_dst + row, return_inverse=True)
        self.kept, in_sums = minimum_vertex_cover(ghost, pair, plan.num_ghosts, len(pairs))
        by_row = self.kept[ghost]
        self.kept_edges, self.kept_edge_rows = cut[by_row], row[by_row]
        cut, ghost, row = cut[~by_row], ghost[~by_row], row[~by_row]
        order = torch.sort(owner[ghost], stable=True).indices
        self.summed_edges, self.edge_rows = cut[order], row[order]
        self.edge_splits = torch.bincount(owner[ghost], minlength=parts).tolist()
        before = torch.tensor([0, *plan.recv_splits]).cumsum(0)
        self.edge_sources = ghost[order] - before[owner[ghost[order]]]
        sum_owner = torch.div(pairs[in_sums], max(graph.num_dst, 1), rounding_mode="floor")
        self.sum_rows = pairs[in_sums] - sum_owner * graph.num_dst
        ids = torch.cat([plan.ghosts[self.kept], -1 - self.sum_rows])
        order, self.splits = _by_rank(torch.cat([owner[self.kept], sum_owner]), parts)
        self.ids = ids[order]
        self._place = torch.empty_like(order)  # [g'] among what is received
        self._place[order] = torch.arange(len(order))

    def boundary(self, graph: PartitionedGraph) -> tuple[Graph, Tensor]:
        """The rows that wait, over [owned | received], and the places of their own edges.

        The edges are those of `graph` that stay, then one from each sum.
        """
        first, last = graph.interior_rows
        stays = (self._row_of < first) | (self._row_of >= last)
        stays[self.summed_edges] = False
        places = stays.nonzero().squeeze(1)
        columns = torch.arange(graph.num_src + len(self.kept))
        arrived, sums = self._place.tensor_split([len(self._place) - len(self.sum_rows)])
        columns[graph.num_src :][self.kept] = graph.num_src + arrived
        sources = torch.cat([columns[self._indices[places]], graph.num_src + sums])
        rows = torch.cat([self._row_of[places], self.sum_rows])
        rows = torch.where(rows < first, rows, rows - (last - first))
        sizes = (graph.num_src + len(self._place), graph.num_dst - (last - first))
        return Graph.from_edge_index(torch.stack([sources, rows]), sizes), places


class _Duties:
    """What a rank is to send, which the receivers tell it; all on the CPU.

    Attributes:
        sums: The sums, over the owned rows: its edges are those of all receivers, in their order.
        rows: [f] owned rows that somebody is sent as they are.
        send_rows: [s'] of the table [rows | sums], by receiver.
        send_splits: [P] of these.
        sent: [s'] ids, as the receivers have them.
        edge_rows: [h] the receiver's row of each edge of `sums`.
        edge_splits: [P] of these edges.
    """

    def __init__(self, graph: PartitionedGraph, wishes: _Wishes) -> None:
        plan, parts = graph.exact.plan, graph.exact.plan.hierarchy.size
        kept = wishes.kept.to(torch.uint8)
        kept = _swapped(graph, kept, plan.recv_splits, plan.send_splits).bool()  # [s]
        splits = torch.tensor(wishes.edge_splits)
        self.edge_splits = _swapped(graph, splits, [1] * parts, [1] * parts).tolist()
        told = torch.stack([wishes.edge_sources, wishes.edge_rows], dim=1)
        told = _swapped(graph, told, wishes.edge_splits, self.edge_splits)
        self.edge_rows = told[:, 1]
        receiver = _ranks_of(self.edge_splits)
        before = torch.tensor([0, *plan.send_splits]).cumsum(0)
        send_rows = plan.send_rows.cpu()
        source = send_rows[before[receiver] + told[:, 0]]
        # Above every row of any receiver.
        most = 1 + int(torch.nn.functional.pad(self.edge_rows, (1, 0)).max())
        sums, of_edge = torch.unique(receiver * most + self.edge_rows, return_inverse=True)
        sum_receiver = torch.div(sums, most, rounding_mode="floor")
        sizes = (graph.num_src, len(sums))
        self.sums = Graph.from_edge_index(torch.stack([source, of_edge]), sizes)
        self.rows, place = torch.unique(send_rows[kept], return_inverse=True)
        sent_to = torch.cat([_ranks_of(plan.send_splits)[kept], sum_receiver])
        order, self.send_splits = _by_rank(sent_to, parts)
        places = torch.cat([place, len(self.rows) + torch.arange(len(sums))])
        self.send_rows = places[order]
        ids = torch.cat([plan.sent[kept], -1 - (sums - sum_receiver * most)])
        self.sent = ids[order]


def _swapped(graph: PartitionedGraph, rows: Tensor, sent: list[int], received: list[int]) -> Tensor:
    """Rows for every rank against theirs for this one."""
    if graph.exact.is_alone:
        return rows
    rows = rows.contiguous().to(graph.device)
    out = rows.new_empty(sum(received), *rows.shape[1:])
    dist.all_to_all_single(out, rows, received, sent, group=graph.exact.group)
    return out.cpu()


def _by_rank(rank: Tensor, parts: int) -> tuple[Tensor, list[int]]:
    """The order by rank of things of each, and how many each has."""
    splits: list[int] = torch.bincount(rank, minlength=parts).tolist()
    return torch.sort(rank, stable=True).indices, splits


def _caller_places(graph: PartitionedGraph, places: Tensor) -> Tensor:
    """Where edges at some places of the CSR arrays stand in the caller's order."""
    return places if graph.edge_id is None else graph.edge_id.long().cpu()[places]


class _Remembered:
    """What was made of tensors, while these live and nobody writes to them; without gradients."""

    def __init__(self) -> None:
        self._made: dict[tuple[Any, ...], tuple[list[weakref.ref[Tensor]], list[int], Tensor]] = {}

    def get(self, name: str, tensors: Sequence[Tensor], make: Callable[[], Tensor]) -> Tensor:
        """What `make` makes of the tensors, or made of them before under this name."""
        if any(x.requires_grad or x.is_inference() for x in tensors):
            return make()
        key = (name, *(id(x) for x in tensors))
        versions = [x._version for x in tensors]
        if key in self._made:
            refs, of_versions, made = self._made[key]
            if of_versions == versions and all(
                ref() is x for ref, x in zip(refs, tensors, strict=True)
            ):
                return made
        made = make()

        def forget(_: object) -> None:
            self._made.pop(key, None)

        self._made[key] = ([weakref.ref(x, forget) for x in tensors], versions, made)
        return made


def _ranks_of(splits: Sequence[int]) -> Tensor:
    """The rank of every row of some splits."""
    return torch.repeat_interleave(torch.arange(len(splits)), torch.tensor(splits))
