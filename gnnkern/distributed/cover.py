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
from gnnkern.distributed.plan import HaloPlan
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
        plan, device = graph.exact.plan, graph.device
        graph.exact.before_first(device)
        num_rows, parts = graph.num_src, plan.hierarchy.size
        indices = graph.indices.long().cpu()
        row_of = torch.repeat_interleave(torch.arange(graph.num_dst), graph.in_degree.long().cpu())
        # -- what this rank wants: ghosts in the cover, and sums
        at = (indices >= num_rows).nonzero().squeeze(1)  # places of cut edges
        ghost, row = indices[at] - num_rows, row_of[at]
        owner = _ranks_of(plan.recv_splits)  # [g]
        pair, of_pair = torch.unique(owner[ghost] * graph.num_dst + row, return_inverse=True)
        kept, in_sums = minimum_vertex_cover(ghost, of_pair, plan.num_ghosts, len(pair))
        summed = ~kept[ghost]  # cut edges that sums serve
        sum_owner = torch.div(pair[in_sums], max(graph.num_dst, 1), rounding_mode="floor")  # [m]
        sum_row = pair[in_sums] - sum_owner * graph.num_dst
        # -- what it tells the owners, and is told itself
        to_tell = at[summed][torch.sort(owner[ghost[summed]], stable=True).indices]
        told_splits = torch.bincount(owner[ghost[summed]], minlength=parts)
        first_ghost = torch.tensor([0, *plan.recv_splits]).cumsum(0)[:-1]
        told_ghost = indices[to_tell] - num_rows
        told = torch.stack([told_ghost - first_ghost[owner[told_ghost]], row_of[to_tell]], dim=1)
        swap = _Swap(graph)
        wanted = swap(kept.to(torch.uint8), plan.recv_splits, plan.send_splits).bool()  # [s]
        heard_splits = swap(told_splits, [1] * parts, [1] * parts).tolist()
        heard = swap(told, told_splits.tolist(), heard_splits)  # [h, 2]
        asker = _ranks_of(heard_splits)
        # -- what it computes and sends for others
        first_sent = torch.tensor([0, *plan.send_splits]).cumsum(0)[:-1]
        send_rows = plan.send_rows.cpu()
        source = send_rows[first_sent[asker] + heard[:, 0]]
        # Rows of a rank are told apart by as many numbers as any rank has rows.
        most = int(heard[:, 1].max()) + 1 if len(heard) else 1
        asked, sum_of = torch.unique(asker * most + heard[:, 1], return_inverse=True)  # [k], [h]
        asked_by = torch.div(asked, most, rounding_mode="floor")
        self._sums = Graph.from_edge_index(
            torch.stack([source, sum_of]), (num_rows, len(asked))
        ).to(device)
        rows, place = torch.unique(send_rows[wanted], return_inverse=True)
        self._rows = rows.to(device)
        sent_to = torch.cat([_ranks_of(plan.send_splits)[wanted], asked_by])
        send_order = torch.sort(sent_to, stable=True).indices
        of_table = torch.cat([place, len(rows) + torch.arange(len(asked))])
        # The sum of row r has the id -1 - r.
        sent_ids = torch.cat([plan.sent[wanted], -1 - (asked - asked_by * most)])
        # -- what it receives
        kept_at = kept.nonzero().squeeze(1)
        received_from = torch.cat([owner[kept_at], sum_owner])
        recv_order = torch.sort(received_from, stable=True).indices
        column = torch.empty_like(recv_order)
        column[recv_order] = num_rows + torch.arange(len(recv_order))
        covered = HaloPlan(
            plan.rank,
            plan.hierarchy,
            plan.fingerprint,
            len(rows) + len(asked),
            of_table[send_order],
            torch.bincount(sent_to, minlength=parts).tolist(),
            torch.cat([plan.ghosts[kept_at], -1 - sum_row])[recv_order],
            torch.bincount(received_from, minlength=parts).tolist(),
            sent_ids[send_order],
        )
        self.exchange = HaloExchange(covered, graph.exact.group, graph.traffic)
        # -- the weights' way to the sums
        edge_id = None if graph.edge_id is None else graph.edge_id.long().cpu()
        weights = replace(
            covered,
            num_rows=graph.num_edges,
            send_rows=to_tell if edge_id is None else edge_id[to_tell],
            send_splits=told_splits.tolist(),
            ghosts=heard[:, 1],
            recv_splits=heard_splits,
            sent=told[:, 1],
        )
        self._weights = HaloExchange(weights, graph.exact.group, graph.traffic)
        # -- the rows that wait for it
        first, last = graph.interior_rows
        stays = (row_of < first) | (row_of >= last)
        stays[at[summed]] = False
        stays_at = stays.nonzero().squeeze(1)
        columns = torch.arange(num_rows + plan.num_ghosts)
        columns[num_rows + kept_at] = column[: len(kept_at)]
        ends = torch.cat([row_of[stays_at], sum_row])
        sources = torch.cat([columns[indices[stays_at]], column[len(kept_at) :]])
        ends = torch.where(ends < first, ends, ends - (last - first))
        sizes = (num_rows + len(received_from), graph.num_dst - (last - first))
        self._boundary = Graph.from_edge_index(torch.stack([sources, ends]), sizes).to(device)
        self._stays = (stays_at if edge_id is None else edge_id[stays_at]).to(device)
        self._num_sums = len(sum_row)
        # By row of the graph: what its sum changes by, if every row that arrives changes by one.
        by_rows = at[~summed] if edge_id is None else edge_id[at[~summed]]
        self._cut = (by_rows.to(device), row[~summed].to(device))
        self._num_dst = graph.num_dst
        self._sum_row = sum_row.to(device)
        self._degree = torch.cat([graph.in_degree[:first], graph.in_degree[last:]])
        self._known = _Remembered()
        counts = torch.tensor([len(sent_to), plan.num_sent, len(heard)], device=device)
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
            ones = weight.new_ones(self._num_sums, *weight.shape[1:])
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
        edges, rows = self._cut
        mass = size.new_zeros(self._num_dst).index_add(0, rows, size[edges])
        return mass.index_add(0, self._sum_row, size.new_ones(self._num_sums))


class _Swap:
    """Rows of a tensor for every rank against theirs, where a group is there."""

    def __init__(self, graph: PartitionedGraph) -> None:
        self._exchange, self._device = graph.exact, graph.device

    def __call__(self, rows: Tensor, sent: list[int], received: list[int]) -> Tensor:
        if self._exchange.is_alone:
            return rows
        rows = rows.contiguous().to(self._device)
        out = rows.new_empty(sum(received), *rows.shape[1:])
        dist.all_to_all_single(out, rows, received, sent, group=self._exchange.group)
        return out.cpu()


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
