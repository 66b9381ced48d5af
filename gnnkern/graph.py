"""`Graph`: the edges of a message-passing layer, validated, sorted and planned once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gnnkern import _native, _sorting
from gnnkern._native import Csr

if TYPE_CHECKING:
    import scipy.sparse

__all__ = ["Graph"]

_INT32_MAX = 2**31 - 1
_INDEX_DTYPES = (torch.int32, torch.int64)


class Graph:
    """Directed edges from `num_src` source nodes to `num_dst` destination nodes.

    Stored as a CSR matrix with one row per destination: `indices[indptr[v]:indptr[v + 1]]` are the
    sources of the edges into v, in the order in which the caller listed them. Self loops and
    repeated edges are ordinary edges.

    Edge tensors given to the ops are in the caller's edge order; `edge_id` maps each sorted edge to
    it. A graph is immutable; its reverse, its degrees and its normalisation are computed at their
    first use and kept. Building costs two passes over the edges (a stable parallel counting sort).

    Attributes:
        num_src: Number of source nodes.
        num_dst: Number of destination nodes.
        num_edges: Number of edges, E.
        indptr: [num_dst + 1] where each row begins.
        indices: [E] source of each sorted edge.
        edge_id: [E] caller's position of each sorted edge, or None where the two orders agree.

    All three are int32 where the counts fit, otherwise int64.
    """

    __slots__ = (
        "__weakref__",
        "_cache",
        "_max_degree",
        "_plan",
        "_reverse",
        "edge_id",
        "indices",
        "indptr",
        "num_dst",
        "num_edges",
        "num_src",
    )

    def __init__(
        self,
        indptr: Tensor,  # [num_dst + 1]
        indices: Tensor,  # [E]
        edge_id: Tensor | None,  # [E]
        num_src: int,
    ) -> None:
        """Wrap arrays that are valid already; use one of the `from_` constructors instead."""
        self.indptr = indptr
        self.indices = indices
        self.edge_id = edge_id
        self.num_src = num_src
        self.num_dst = indptr.shape[0] - 1
        self.num_edges = indices.shape[0]
        self._plan = _sorting.compact_plan(_sorting.make_plan(indptr, self.num_edges))
        self._max_degree: int = _sorting.max_degree(indptr, self._plan)
        self._reverse: Graph | None = None
        self._cache: dict[str, Any] = {}

    # -- constructors ------------------------------------------------------------------------------

    @classmethod
    def from_edge_index(
        cls, edge_index: Tensor, num_nodes: int | tuple[int, int] | None = None
    ) -> Graph:
        """Build from a list of edges.

        Args:
            edge_index: [2, E] int32 or int64; row 0 holds sources, row 1 destinations.
            num_nodes: The number of nodes, or (num_src, num_dst) of a bipartite graph. By default
                one more than the largest id.

        Raises:
            TypeError: edge_index is no integer tensor.
            ValueError: its shape is wrong, or an id is out of range; the first such edge is named.
        """
        who = "Graph.from_edge_index"
        _check_index(who, "edge_index", edge_index)
        if edge_index.dim() != 2 or edge_index.shape[0] != 2:
            raise ValueError(
                f"{who}: edge_index must have shape [2, E], got {list(edge_index.shape)}"
            )
        num_src, num_dst = _sizes(who, num_nodes, edge_index)
        src, dst = edge_index[0], edge_index[1]
        dtype = _index_dtype(num_src, num_dst, edge_index.shape[1])
        bad_edge, indptr, indices, edge_id = _sorting.sort_edges(dst, src, num_dst, num_src, dtype)
        if bad_edge >= 0:
            raise ValueError(
                f"{who}: edge {bad_edge} goes from {int(src[bad_edge])} to {int(dst[bad_edge])}, "
                f"expected ids in [0, num_src={num_src}) and [0, num_dst={num_dst})"
            )
        return cls(indptr, indices, edge_id, num_src)

    @classmethod
    def from_csr(cls, indptr: Tensor, indices: Tensor, *, num_src: int | None = None) -> Graph:
        """Build from a CSR matrix whose rows are destinations; its order is the edge order.

        Args:
            indptr: [num_dst + 1] int32 or int64, from 0 to E without decreasing.
            indices: [E] sources.
            num_src: Number of sources. By default num_dst, or more where an index asks for it.

        Raises:
            TypeError: a tensor is not of integers, or the two have different devices.
            ValueError: indptr is not valid, or an index is out of range; the first is named.
        """
        who = "Graph.from_csr"
        for name, tensor in (("indptr", indptr), ("indices", indices)):
            _check_index(who, name, tensor)
            if tensor.dim() != 1:
                raise ValueError(f"{who}: {name} must have one dimension, got {tensor.dim()}")
        if indptr.device != indices.device:
            raise ValueError(
                f"{who}: indptr and indices must be on one device, got {indptr.device} and "
                f"{indices.device}"
            )
        if indptr.shape[0] == 0:
            raise ValueError(f"{who}: indptr must hold num_dst + 1 elements, got 0")
        num_dst = indptr.shape[0] - 1
        _sorting.check_indptr(who, indptr, indices.shape[0])
        if num_src is None:
            largest = int(indices.max()) + 1 if indices.numel() else 0
            num_src = max(num_dst, largest)
        bad = (indices < 0) | (indices >= num_src)
        if bool(bad.any()):
            edge = int(bad.nonzero()[0])
            raise ValueError(
                f"{who}: edge {edge} comes from {int(indices[edge])}, expected an id in "
                f"[0, num_src={num_src})"
            )
        dtype = _index_dtype(num_src, num_dst, indices.shape[0])
        return cls(indptr.to(dtype).contiguous(), indices.to(dtype).contiguous(), None, num_src)

    @classmethod
    def from_torch_sparse(cls, matrix: Tensor) -> Graph:
        """Build from a sparse matrix [num_dst, num_src] (COO, CSR or CSC layout), values ignored.

        The edge order is that of `matrix.values()` (of the coalesced matrix for COO), so these
        values are a weight of the graph.
        """
        who = "Graph.from_torch_sparse"
        if not isinstance(matrix, Tensor):
            raise TypeError(f"{who}: expected a sparse tensor, got {type(matrix).__name__}")
        if matrix.dim() != 2:
            raise ValueError(f"{who}: expected a matrix, got {matrix.dim()} dimensions")
        num_dst, num_src = matrix.shape
        if matrix.layout == torch.sparse_coo:
            rows, cols = matrix.coalesce().indices()
            return cls.from_edge_index(torch.stack((cols, rows)), (num_src, num_dst))
        if matrix.layout == torch.sparse_csr:
            return cls.from_csr(matrix.crow_indices(), matrix.col_indices(), num_src=num_src)
        if matrix.layout == torch.sparse_csc:
            by_source = cls.from_csr(matrix.ccol_indices(), matrix.row_indices(), num_src=num_dst)
            return by_source.reverse
        raise TypeError(f"{who}: expected layout COO, CSR or CSC, got {matrix.layout}")

    @classmethod
    def from_scipy(cls, matrix: scipy.sparse.sparray | scipy.sparse.spmatrix) -> Graph:
        """Build from a scipy sparse matrix [num_dst, num_src], values ignored.

        The edge order is that of `matrix.data` for COO, CSR and CSC, otherwise of its CSR form.
        """
        who = "Graph.from_scipy"
        if not hasattr(matrix, "tocsr"):
            raise TypeError(f"{who}: expected a scipy sparse matrix, got {type(matrix).__name__}")
        num_dst, num_src = matrix.shape
        form = getattr(matrix, "format", "")
        if form == "coo":
            edge_index = torch.stack([torch.as_tensor(ids) for ids in (matrix.col, matrix.row)])
            return cls.from_edge_index(edge_index, (num_src, num_dst))
        compressed = matrix if form in ("csr", "csc") else matrix.tocsr()
        indptr, indices = torch.as_tensor(compressed.indptr), torch.as_tensor(compressed.indices)
        if form == "csc":
            return cls.from_csr(indptr, indices, num_src=num_dst).reverse
        return cls.from_csr(indptr, indices, num_src=num_src)

    @classmethod
    def from_dgl(cls, graph: Any, etype: Any = None) -> Graph:
        """Build from a relation of a `dgl.DGLGraph`, or of one of `gnnkern.integrations.dgl`.

        Args:
            graph: The graph; its edge ids are the edge order.
            etype: The relation; None: the only one.
        """
        if not hasattr(graph, "canonical_etypes"):
            raise TypeError(f"Graph.from_dgl: expected a DGLGraph, got {type(graph).__name__}")
        one = graph if etype is None else graph[etype]
        edge_index = torch.stack(one.edges(order="eid"))
        return cls.from_edge_index(edge_index, (one.num_src_nodes(), one.num_dst_nodes()))

    # -- what it holds -----------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the arrays live."""
        return self.indptr.device

    @property
    def index_dtype(self) -> torch.dtype:
        """int32 where the counts fit, otherwise int64."""
        return self.indptr.dtype

    @property
    def max_degree(self) -> int:
        """The largest number of edges into one node."""
        return self._max_degree

    @property
    def csr(self) -> Csr:
        """The arrays and the row-chunk plan, as the kernels take them."""
        return Csr(self.indptr, self.indices, self.edge_id, self._plan)

    @property
    def reverse(self) -> Graph:
        """The graph with every edge turned round; edge tensors serve both."""
        if self._reverse is None:
            indptr, indices, edge_id = _sorting.reverse_csr(
                self.indptr, self.indices, self.edge_id, self.num_src
            )
            self._reverse = Graph(indptr, indices, edge_id, self.num_dst)
            self._reverse._reverse = self
        return self._reverse

    def reverse_csr(self) -> Csr:
        """The reverse as the kernels take it.

        While torch.compile traces, a reverse that was not prepared becomes part of the compiled
        function, which then sorts at every call.
        """
        if self._reverse is None and torch.compiler.is_compiling():
            return Csr(
                *torch.ops.gnnkern.reverse_csr(
                    self.indptr, self.indices, self.edge_id, self.num_src
                )
            )
        return self.reverse.csr

    @property
    def in_degree(self) -> Tensor:
        """[num_dst] number of edges into each destination."""
        return self.indptr[1:] - self.indptr[:-1]

    @property
    def out_degree(self) -> Tensor:
        """[num_src] number of edges out of each source."""
        return self.reverse.in_degree

    @property
    def edge_index(self) -> Tensor:
        """[2, E] int64: sources and destinations in the caller's edge order."""
        cached: Tensor | None = self._cache.get("edge_index")
        if cached is None:
            cached = self._cache["edge_index"] = self._new_edge_index()
        return cached

    def _new_edge_index(self) -> Tensor:
        """The same, which nobody keeps."""
        nodes = torch.arange(self.num_dst, device=self.device)
        by_row = torch.stack((self.indices.long(), self._at_rows(nodes)))
        return self._in_edge_order(by_row)

    def _at_rows(self, x: Tensor) -> Tensor:  # [num_dst] -> [E]
        """A number per destination, once for each sorted edge into it."""
        return torch.repeat_interleave(x, self.in_degree.long(), output_size=self.num_edges)

    def _in_edge_order(self, by_row: Tensor) -> Tensor:  # [..., E]
        """What belongs to sorted edges, in the caller's edge order."""
        if self.edge_id is None:
            return by_row
        out = torch.empty_like(by_row)
        out[..., self.edge_id.long()] = by_row
        return out

    @property
    def by_edge(self) -> Graph:
        """The graph in which every edge is a source of its own: edge tensors stand for features."""
        cached: Graph | None = self._cache.get("by_edge")
        if cached is None:
            edges = self.edge_id
            if edges is None:
                edges = torch.arange(self.num_edges, dtype=self.index_dtype, device=self.device)
            cached = self._cache["by_edge"] = Graph(self.indptr, edges, None, self.num_edges)
        return cached

    def prepare(self, backward: bool = True) -> Graph:
        """Compute now what a forward, and with `backward` a gradient, will ask for."""
        if backward:
            _ = self.reverse
        return self

    # -- what a graph whose nodes lie elsewhere does in its own way --------------------------------

    def at_sources(self, x: Tensor) -> Tensor:
        """The rows that `edge_index[0]` counts, of a tensor [num_src, ...]: here x itself."""
        return x

    def run_op(
        self,
        op: Callable[..., Any],
        arguments: dict[str, Any],
        places: dict[str, str],
        result: str,
    ) -> Any:
        """Run an op of `gnnkern.ops` on this graph (see gnnkern/ops/_placement.py)."""
        return op(self, **arguments)

    @property
    def is_whole(self) -> bool:
        """Whether all edges of its nodes are here, in both directions."""
        return True

    def into_rows(self, indptr: Tensor, indices: Tensor, edge_id: Tensor | None) -> Graph:
        """The graph of the same edges into other rows: [R + 1], [E], [E] or None, all valid."""
        return Graph(indptr, indices, edge_id, self.num_src)

    def _with_edges(self, edge_index: Tensor) -> Graph:
        """A graph of the same nodes with other edges, counted as in `edge_index`."""
        return Graph.from_edge_index(edge_index, (self.num_src, self.num_dst))

    # ----------------------------------------------------------------------------------------------

    def to(self, device: torch.device | str) -> Graph:
        """The same graph on another device; itself where it is there already."""
        device = torch.device(device)
        if device.type == self.device.type and device.index in (None, self.device.index):
            return self
        edge_id = None if self.edge_id is None else self.edge_id.to(device)
        moved = Graph(self.indptr.to(device), self.indices.to(device), edge_id, self.num_src)
        if self._reverse is not None:
            rev = self._reverse
            rev_edge_id = None if rev.edge_id is None else rev.edge_id.to(device)
            moved._reverse = Graph(
                rev.indptr.to(device), rev.indices.to(device), rev_edge_id, rev.num_src
            )
            moved._reverse._reverse = moved
        return moved

    def __repr__(self) -> str:
        """The counts, the mean and largest in-degree, where it lives."""
        mean = self.num_edges / self.num_dst if self.num_dst else 0.0
        ready = ", reverse ready" if self._reverse is not None else ""
        return (
            f"Graph(num_src={self.num_src:,}, num_dst={self.num_dst:,}, "
            f"num_edges={self.num_edges:,}, in_degree mean {mean:.1f} max {self.max_degree:,}, "
            f"{str(self.index_dtype).removeprefix('torch.')}, {self.device}{ready})"
        )

    # -- derived graphs and weights ----------------------------------------------------------------

    def remove_self_loops(self, edge_attr: Tensor | None = None) -> Any:
        """The graph without edges from a node to itself, other edges in their order.

        Args:
            edge_attr: [E, ...] optional edge tensor.

        Returns:
            The graph, or (graph, edge_attr [E', ...]) where one was given. The graph is cached.
        """
        graph, kept = self._without_loops()
        return graph if edge_attr is None else (graph, edge_attr[kept])

    def _without_loops(self) -> tuple[Graph, Tensor]:
        cached = self._cache.get("without_loops")
        if cached is None:
            kept = self._not_loops(self.edge_index)
            graph = self._with_edges(self.edge_index[:, kept])
            cached = self._cache["without_loops"] = (graph, kept)
        return cached

    def _not_loops(self, edge_index: Tensor) -> Tensor:  # [2, E] -> [E']
        """The positions of edges between different nodes."""
        kept: Tensor = (edge_index[0] != edge_index[1]).nonzero().squeeze(1)
        return kept

    def add_self_loops(
        self, edge_attr: Tensor | None = None, fill_value: float | Tensor = 1.0
    ) -> Any:
        """The graph with exactly one edge from every node to itself.

        Edges between different nodes come first, in their order, then one loop per node. A loop
        that was there keeps its value (the last one of several).

        Args:
            edge_attr: [E, ...] optional edge tensor.
            fill_value: Value of new loops, a number or a tensor that broadcasts to
                [num_nodes, ...].

        Returns:
            The graph, or (graph, edge_attr [E', ...]) where one was given. The graph is cached.

        Raises:
            ValueError: the graph is bipartite (num_src differs from num_dst).
        """
        if self.num_src != self.num_dst:
            raise ValueError(
                f"Graph.add_self_loops: needs num_src == num_dst, got {self.num_src} and "
                f"{self.num_dst}"
            )
        graph = self._cache.get("with_loops")
        if graph is None:
            # Not kept: with its int64 it would outweigh the graph.
            edge_index = self._cache.get("edge_index")
            edge_index = self._new_edge_index() if edge_index is None else edge_index
            nodes = torch.arange(self.num_dst, device=self.device).expand(2, -1)
            edge_index = torch.cat((edge_index[:, self._not_loops(edge_index)], nodes), 1)
            graph = self._cache["with_loops"] = self._with_edges(edge_index)
        if edge_attr is None:
            return graph
        if edge_attr.shape[:1] != (self.num_edges,):
            raise ValueError(
                f"Graph.add_self_loops: edge_attr must have shape [E={self.num_edges}, ...], got "
                f"{list(edge_attr.shape)}"
            )
        _, kept = self._without_loops()
        loops = edge_attr.new_empty((self.num_dst, *edge_attr.shape[1:]))
        loops = loops.copy_(torch.as_tensor(fill_value).to(loops).expand_as(loops))
        src, dst = self.edge_index
        looped = (src == dst).nonzero().squeeze(1)
        if looped.numel():
            # The last loop of each node, found without depending on the order of writes.
            last = torch.full((self.num_dst,), -1, dtype=torch.int64, device=self.device)
            last = last.scatter_reduce(0, src[looped], looped, "amax")
            nodes = (last >= 0).nonzero().squeeze(1)
            loops = loops.index_copy(0, nodes, edge_attr[last[nodes]])
        return graph, torch.cat((edge_attr[kept], loops))

    def gcn_weights(
        self, edge_weight: Tensor | None = None, *, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Weights [E] of the symmetric normalisation of graph convolutions.

        Edge (u, v) of weight w (1 by default) receives w / sqrt(d(u) d(v)), where d is the sum of
        the weights into a node, and 0 where a degree is 0. Self loops are not added. Halves
        are summed in float32. Differentiable in `edge_weight`; cached per dtype where that is None.

        Source: Kipf and Welling, "Semi-supervised classification with graph convolutional
        networks", 2017.

        Raises:
            ValueError: the graph is bipartite, or edge_weight is not [E].
        """
        if self.num_src != self.num_dst:
            raise ValueError(
                f"Graph.gcn_weights: needs num_src == num_dst, got {self.num_src} and "
                f"{self.num_dst}"
            )
        if edge_weight is not None:
            if edge_weight.shape != (self.num_edges,):
                raise ValueError(
                    f"Graph.gcn_weights: edge_weight must have shape [E={self.num_edges}], got "
                    f"{list(edge_weight.shape)}"
                )
            return self._normalised(edge_weight)
        key = f"gcn_weights {dtype}"
        cached: Tensor | None = self._cache.get(key)
        if cached is None:
            cached = self._cache[key] = self._normalised_alike(dtype)
        return cached

    def _normalised_alike(self, dtype: torch.dtype) -> Tensor:
        """The weights where every edge weighs 1: of the degrees, without an edge list."""
        degree = self.in_degree.to(_native.accumulate_dtype(dtype))
        scale = _inverse_root(degree)
        by_row = self.at_sources(scale)[self.indices.long()] * self._at_rows(scale)
        return self._in_edge_order(by_row.to(dtype))

    def _normalised(self, weight: Tensor) -> Tensor:
        src, dst = self.edge_index
        # Halves cannot count a hub's edges: degrees are summed wide and the result rounded once.
        wide = weight.to(_native.accumulate_dtype(weight.dtype))
        degree = wide.new_zeros(self.num_dst).index_add(0, dst, wide)
        scale = _inverse_root(degree)
        return (self.at_sources(scale)[src] * wide * scale[dst]).to(weight.dtype)


def _inverse_root(degree: Tensor) -> Tensor:
    """1 / sqrt(degree), 0 of a degree of 0."""
    return degree.pow(-0.5).masked_fill(degree == 0, 0.0)


def _check_index(who: str, name: str, tensor: object) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{who}: {name} must be a tensor, got {type(tensor).__name__}")
    if tensor.dtype not in _INDEX_DTYPES:
        raise TypeError(f"{who}: {name} must be int32 or int64, got {tensor.dtype}")
    if tensor.layout != torch.strided:
        raise TypeError(f"{who}: {name} must be a dense tensor, got layout {tensor.layout}")
    if tensor.device.type == "meta":
        raise ValueError(f"{who}: {name} must hold data, got a meta tensor")


def _sizes(who: str, num_nodes: object, edge_index: Tensor) -> tuple[int, int]:
    if num_nodes is None:
        count = int(edge_index.max()) + 1 if edge_index.numel() else 0
        return max(count, 0), max(count, 0)
    sizes = num_nodes if isinstance(num_nodes, tuple | list) else (num_nodes, num_nodes)
    if len(sizes) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) for n in sizes):
        raise TypeError(
            f"{who}: num_nodes must be an int, (num_src, num_dst) or None, got {num_nodes!r}"
        )
    if min(sizes) < 0:
        raise ValueError(f"{who}: num_nodes must not be negative, got {num_nodes!r}")
    return sizes[0], sizes[1]


def _index_dtype(num_src: int, num_dst: int, num_edges: int) -> torch.dtype:
    return torch.int32 if max(num_src, num_dst, num_edges) < _INT32_MAX else torch.int64
