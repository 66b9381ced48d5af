"""`PartitionedGraph`: one rank's rows of a graph, on which ops and layers run as on a `Graph`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from gnnkern._native import Csr
from gnnkern.distributed.anchor import anchored
from gnnkern.distributed.cover import Cover, Covering
from gnnkern.distributed.cut import Edges, LocalPart, cut, narrow
from gnnkern.distributed.exchange import Exchange, HaloExchange, Traffic
from gnnkern.distributed.partition import Partition
from gnnkern.distributed.plan import HaloPlan
from gnnkern.distributed.waiting import all_reduce
from gnnkern.distributed.wire import Wire
from gnnkern.graph import Graph

__all__ = ["PartitionedGraph"]

_REJECTED = (
    "PartitionedGraph: {what} has columns of other ranks; call an op of gnnkern, which exchanges "
    "them, or use at_sources(x)"
)


class PartitionedGraph(Graph):
    """The edges into the nodes that this rank owns; sources that others own are its ghosts.

    Ops of `gnnkern` and layers of `gnnkern.nn` take it where they take a `Graph`, on every rank at
    once: features are those of the owned nodes, [n, ...], and so are results. An op that reads
    sources sends the rows that others need, computes the rows without a ghost while they travel,
    and then the others; the gradient goes the same way back. What is exchanged is what the op is
    given: behind a linear map that makes rows narrower, the narrow rows.

    Every row is computed once, on one rank, from its neighbours in the order of the whole graph:
    the values are bit for bit those of one process, but behind dense maps, which a BLAS may round
    differently for other numbers of rows. Gradients of rows that several ranks read are summed in
    another order than in one process.

    `num_src` and `num_dst` are n; edge tensors [E_local] are in the order of `local_edges` of the
    whole graph. Ids in `edge_index` are local: from n on they are ghosts. In-degrees, self loops
    and normalisations are those of the whole graph.

    Attributes:
        exact: Brings the ghosts' rows.
        exchange: What ops ask for ghosts: `exact`, or what stands in for it (`with_exchange`).
        owned: int64 [n] global ids of the rows. Features are `x[owned]`.
        local_edges: [E_local] position of each edge in the whole graph's order; None for a
            graph derived from another (with self loops, or without).
        interior_rows: The range of rows without a ghost.
    """

    __slots__ = (
        "_boundary",
        "_covering",
        "_interior",
        "exact",
        "exchange",
        "interior_rows",
        "local_edges",
        "owned",
    )

    def __init__(
        self,
        indptr: Tensor,  # [n + 1]
        indices: Tensor,  # [E_local], ghosts from n on
        edge_id: Tensor | None,  # [E_local]
        owned: Tensor,  # [n]
        interior_rows: tuple[int, int],
        exchange: HaloExchange,
        local_edges: Tensor | None,  # [E_local]
    ) -> None:
        """Wrap arrays that are valid already; use one of the `from_` constructors instead."""
        num_owned, num_rows = len(owned), len(indptr) - 1
        self.indptr = indptr
        self.indices = indices
        self.edge_id = edge_id
        self.num_src, self.num_dst = num_owned, num_rows
        self.num_edges = len(indices)
        self.owned = owned
        self.exact = exchange
        self.exchange: Exchange = exchange
        self.interior_rows = interior_rows
        self.local_edges = local_edges
        begin, end = self._interior_edges()
        first, last = interior_rows
        self._interior = Graph(
            indptr[first : last + 1] - begin, indices[begin:end], None, num_owned
        )
        outer = torch.cat([indptr[: first + 1], indptr[last + 1 :] - (end - begin)])
        self._boundary = Graph(
            outer,
            indices[end:] if begin == 0 else torch.cat([indices[:begin], indices[end:]]),
            None,
            num_owned + exchange.plan.num_ghosts,
        )
        self._plan = torch.empty(0, dtype=torch.int64)
        self._max_degree = max(self._interior.max_degree, self._boundary.max_degree)
        self._reverse = None
        self._covering: Covering | None = None
        self._cache: dict[str, Any] = {}

    # -- constructors ------------------------------------------------------------------------------

    @classmethod
    def from_part(
        cls,
        part: LocalPart,
        group: dist.ProcessGroup | None = None,
        *,
        cover: bool = False,
        traffic: Traffic | None = None,
    ) -> PartitionedGraph:
        """Build from what a rank holds of a partition: `cut(...)`, or `load_part` of a folder.

        Args:
            part: The rank's part.
            group: The process group whose ranks hold the other parts; by default all ranks.
            cover: Whether sums and means exchange a minimum vertex cover of the cut edges, rows
                or sums over them, in place of all rows (`Cover`); needs scipy. Sums are then added
                in another order than in one process. Other ops exchange rows all the same.
            traffic: Where to count what is sent; by default a count of its own.
        """
        traffic = Traffic() if traffic is None else traffic
        graph = cls._of_edges(part, part.forward, group, traffic, cover)
        if part.backward is not None:
            graph._reverse = cls._of_edges(part, part.backward, group, traffic, cover)
            graph._reverse._reverse = graph
        return graph

    @classmethod
    def from_graph(
        cls,
        graph: Graph,
        partition: Partition,
        group: dist.ProcessGroup | None = None,
        *,
        reverse: bool = False,
        cover: bool = False,
        traffic: Traffic | None = None,
    ) -> PartitionedGraph:
        """Cut this rank's part out of the whole graph, which every rank has.

        Args:
            graph: The whole graph.
            partition: The same on every rank.
            group: As in `from_part`.
            reverse: Whether `.reverse` will be asked for.
            cover: As in `from_part`.
            traffic: As in `from_part`.
        """
        there = dist.is_available() and dist.is_initialized()
        rank = dist.get_rank(group) if there else 0
        if rank >= partition.num_parts:
            raise ValueError(
                f"PartitionedGraph.from_graph: this is rank {rank}, but the partition has "
                f"{partition.num_parts} parts"
            )
        (part,) = cut(graph, partition, reverse=reverse, ranks=range(rank, rank + 1))
        return cls.from_part(part, group, cover=cover, traffic=traffic)

    @classmethod
    def _of_edges(
        cls,
        part: LocalPart,
        edges: Edges,
        group: dist.ProcessGroup | None,
        traffic: Traffic,
        cover: bool,
    ) -> PartitionedGraph:
        columns = len(part.owned) + len(edges.ghosts)
        most = max(columns, len(edges.indices))
        graph = cls(
            narrow(edges.indptr, most),
            narrow(edges.indices, most),
            None,
            part.owned,
            edges.interior,
            HaloExchange(HaloPlan.of(part, edges), group, traffic),
            edges.edge_id,
        )
        if cover:
            graph._covering = Covering()
        return graph

    # -- what it holds -----------------------------------------------------------------------------

    @property
    def num_ghosts(self) -> int:
        """Rows that an exchange brings."""
        return self.exact.plan.num_ghosts

    @property
    def num_nodes(self) -> int:
        """Owned nodes, n."""
        return self.num_dst

    @property
    def traffic(self) -> Traffic:
        """What this rank has sent."""
        return self.exact.traffic

    @property
    def csr(self) -> Csr:
        """TypeError: kernels take ordinary graphs, which `run_op` makes."""
        raise TypeError(_REJECTED.format(what="csr"))

    def reverse_csr(self) -> Csr:
        """TypeError, likewise."""
        raise TypeError(_REJECTED.format(what="reverse_csr"))

    @property
    def reverse(self) -> Graph:
        """The out-edges of the owned nodes: another set of edges, with ghosts of its own.

        Its edge tensors are in the order of its own `local_edges`.

        Raises:
            ValueError: the part was cut without its out-edges, or this graph is a derived one.
        """
        if self._reverse is None:
            raise ValueError(
                "PartitionedGraph: the out-edges are not here; cut the part with reverse=True, and "
                "ask the graph that it was made of"
            )
        return self._reverse

    @property
    def cover(self) -> Cover | None:
        """What sums and means exchange, where a cover was asked for; all ranks ask at once."""
        return None if self._covering is None else self._covering.of(self)

    def cover_of(self, op: Callable[..., Any], arguments: dict[str, Any]) -> Cover | None:
        """The cover, where there is one and it serves a call; all ranks ask at once."""
        return None if self._covering is None else self._covering.serving(self, op, arguments)

    def with_exchange(self, exchange: Exchange) -> PartitionedGraph:
        """The same edges, whose ops ask something else for the ghosts' rows; nothing is copied.

        Degrees and normalisations are exact all the same.
        """
        view = PartitionedGraph.__new__(PartitionedGraph)
        for name in (*Graph.__slots__, *PartitionedGraph.__slots__):
            if name != "__weakref__":
                setattr(view, name, getattr(self, name))
        view.exchange = exchange
        view._cache = {}
        return view

    def with_wire(self, wire: Wire | str | None) -> PartitionedGraph:
        """The same edges, whose ops round rows to a type on their way between ranks (`Wire`).

        Every exchange rounds anew: `Schedule` and `propagate`, which know their call sites, take a
        wire type of their own, and add what was left out to the next rows.
        """
        return self.with_exchange(self.exact.with_wire(wire))

    def prepare(self, backward: bool = True) -> Graph:
        """Compute now what a forward, and with `backward` a gradient, will ask for."""
        self._interior.prepare(backward)
        self._boundary.prepare(backward)
        return self

    def to(self, device: torch.device | str) -> Graph:
        """The same graph on another device; itself where it is there already."""
        device = torch.device(device)
        if device.type == self.device.type and device.index in (None, self.device.index):
            return self
        exchange = HaloExchange(self.exact.plan.to(device), self.exact.group, self.traffic)
        moved = self._like(
            self.indptr.to(device),
            self.indices.to(device),
            None if self.edge_id is None else self.edge_id.to(device),
            exchange,
            self.local_edges,
        )
        if isinstance(self.exchange, HaloExchange) and self.exchange.wire is not None:
            return moved.with_wire(self.exchange.wire)
        return moved

    def __repr__(self) -> str:
        """Whose rows, how many, and how many come from others."""
        plan = self.exact.plan
        return (
            f"PartitionedGraph(rank {plan.rank} of {plan.hierarchy.size}, {self.num_dst:,} nodes, "
            f"{self.num_edges:,} edges, {self.num_ghosts:,} ghosts, {plan.num_sent:,} rows sent, "
            f"{self.interior_rows[1] - self.interior_rows[0]:,} interior rows, {self.device})"
        )

    # -- running ops -------------------------------------------------------------------------------

    def at_sources(self, x: Tensor) -> Tensor:  # [n, ...] -> [n + g, ...]
        """The owned rows and behind them the ghosts', as `edge_index[0]` counts; an exchange."""
        return torch.cat([x, self.exact(x)])

    def run_op(
        self,
        op: Callable[..., Any],
        arguments: dict[str, Any],
        places: dict[str, str],
        result: str,
    ) -> Any:
        """Run an op: exchange what lies at sources, the rows without a ghost meanwhile."""
        self._check(op.__name__, arguments, places)
        here = {
            name: place for name, place in places.items() if isinstance(arguments.get(name), Tensor)
        }
        sources = [name for name, place in here.items() if place == "src"]
        cover = self.cover_of(op, arguments)
        pending = None
        if cover is not None:
            pending = cover.start(self, arguments)
        elif sources:
            pending = self.exchange.start([arguments[name] for name in sources])
        first, last = self.interior_rows
        inner = outer = None
        self.traffic.note("interior")
        if last > first or self.num_dst == 0:
            inside = {name: self._inside(arguments[name], place) for name, place in here.items()}
            inner = op(self._interior, **(arguments | inside))
        ghosts = dict(zip(sources, [] if pending is None else pending.finish(), strict=True))
        self.traffic.note("boundary")
        if last - first < self.num_dst and cover is not None:
            outer = cover.boundary(arguments, ghosts["x"])
        elif last - first < self.num_dst:
            outside = {name: self._outside(arguments[name], place) for name, place in here.items()}
            for name in sources:
                outside[name] = torch.cat([arguments[name], ghosts[name]])
            outer = op(self._boundary, **(arguments | outside))
            # Rows with their ghosts' behind them: not to be there together with the result.
            del outside
        out = self._join(inner, outer, result)
        wanted = any(x.requires_grad for x in ghosts.values())
        if wanted and not (isinstance(outer, Tensor) and outer.requires_grad):
            out = anchored(out, ghosts.values())
        return out

    def _check(self, op: str, arguments: dict[str, Any], places: dict[str, str]) -> None:
        """Raise before anything is sent."""
        counts = {"src": self.num_src, "dst": self.num_dst, "edge": self.num_edges}
        for name, place in places.items():
            x = arguments.get(name)
            if isinstance(x, Tensor) and (x.dim() == 0 or x.shape[0] != counts[place]):
                label = "E" if place == "edge" else f"num_{place}"
                raise ValueError(
                    f"{op}: {name} must have shape [{label}={counts[place]}, ...] on rank "
                    f"{self.exact.plan.rank}, got {list(x.shape)}"
                )

    def _interior_edges(self) -> tuple[int, int]:
        if self.num_dst == 0:
            return 0, 0
        first, last = self.interior_rows
        return int(self.indptr[first]), int(self.indptr[last])

    def _inside(self, x: Tensor, place: str) -> Tensor:
        """What of a tensor the interior rows read."""
        if place == "src":
            return x
        first, last = self.interior_rows if place == "dst" else self._interior_edges()
        if place == "edge":
            x = self._by_row(x)
        return x[first:last]

    def _outside(self, x: Tensor, place: str) -> Tensor:
        """What of a tensor the other rows read; at sources it is not asked."""
        if place == "src":
            return x
        first, last = self.interior_rows if place == "dst" else self._interior_edges()
        if place == "edge":
            x = self._by_row(x)
        return x[last:] if first == 0 else torch.cat([x[:first], x[last:]])

    def _by_row(self, x: Tensor) -> Tensor:  # [E_local, ...] -> [E_local, ...]
        """An edge tensor in the order of the rows; the last one, such as a weight, is kept."""
        if self.edge_id is None:
            return x
        known = self._cache.get("by_row")
        if known is not None and known[0]() is x and known[1] == x._version:
            sorted_x: Tensor = known[2]
            return sorted_x
        out = x.index_select(0, self.edge_id)
        # What autograd or an inference mode made is not there for the next call.
        if not (x.requires_grad or x.is_inference()):
            self._cache["by_row"] = (weakref.ref(x), x._version, out)
        return out

    def _join(self, inner: Any, outer: Any, result: str) -> Any:
        """Results of the interior and of the other rows, in order."""
        if inner is not None and outer is not None:
            first = self.interior_rows[0] if result == "dst" else self._interior_edges()[0]
            out = torch.cat([outer[:first], inner, outer[first:]])
        else:
            out = inner if outer is None else outer
        if result == "edge" and self.edge_id is not None:
            out = out.index_select(0, self._caller_order())
        return out

    def _caller_order(self) -> Tensor:
        cached: Tensor | None = self._cache.get("caller_order")
        if cached is None:
            assert self.edge_id is not None
            cached = torch.empty_like(self.edge_id)
            places = torch.arange(self.num_edges, dtype=cached.dtype, device=cached.device)
            cached[self.edge_id.long()] = places
            self._cache["caller_order"] = cached
        return cached

    # -- derived graphs ----------------------------------------------------------------------------

    @property
    def is_whole(self) -> bool:
        """False: the owned nodes' edges out of them are others' rows."""
        return False

    def into_rows(self, indptr: Tensor, indices: Tensor, edge_id: Tensor | None) -> Graph:
        """The graph of the same edges into other rows; all of them wait for the ghosts."""
        return PartitionedGraph(
            indptr, indices, edge_id, self.owned, (0, 0), self.exact, None
        ).with_exchange(self.exchange)

    def _with_edges(self, edge_index: Tensor) -> Graph:
        sizes = (self.num_src + self.num_ghosts, self.num_dst)
        plain = Graph.from_edge_index(edge_index, sizes)
        derived = self._like(plain.indptr, plain.indices, plain.edge_id, self.exact, None)
        return derived if self.exchange is self.exact else derived.with_exchange(self.exchange)

    def _like(
        self,
        indptr: Tensor,
        indices: Tensor,
        edge_id: Tensor | None,
        exchange: HaloExchange,
        local_edges: Tensor | None,
    ) -> PartitionedGraph:
        graph = PartitionedGraph(
            indptr, indices, edge_id, self.owned, self.interior_rows, exchange, local_edges
        )
        if self._covering is not None:
            graph._covering = Covering()
        return graph

    # -- between ranks -----------------------------------------------------------------------------

    def collect(self, x: Tensor, num_nodes: int) -> Tensor:  # [n, ...] -> [num_nodes, ...]
        """The rows of all ranks in the order of global ids, on every rank; no gradient.

        Cost: a sum over ranks of the whole tensor. For evaluation and tests.
        """
        out = x.new_zeros((num_nodes, *x.shape[1:]))
        out[self.owned.to(x.device)] = x.detach()
        return self.sum_over_ranks(out)

    def sum_over_ranks(self, x: Tensor) -> Tensor:
        """Replace a tensor by its sum over all ranks, such as the gradient of a weight."""
        if not self.exact.is_alone:
            all_reduce(x, self.exact.group)
        return x

    def largest_over_ranks(self, numbers: Sequence[float]) -> list[float]:
        """The largest of each number over all ranks."""
        largest = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        if not self.exact.is_alone:
            all_reduce(largest, self.exact.group, dist.ReduceOp.MAX)
        return largest.tolist()
