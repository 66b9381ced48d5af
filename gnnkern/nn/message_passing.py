"""The general message-passing layer: what a subclass sends, reduces and makes of it, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gnnkern.graph import Graph
from gnnkern.nn.inputs import as_graph, sparse_values
from gnnkern.nn.layer import Layer
from gnnkern.nn.multi_aggregation import Aggr, aggr_names, aggregate, make_aggregation
from gnnkern.nn.rows import Messages, Rows, Scattered, Segments
from gnnkern.ops.sddmm import sddmm

_FLOWS = ("source_to_target", "target_to_source")
_REQUIRED = inspect.Parameter.empty
_Names = tuple[tuple[str, Any], ...]


class MessagePassing(Layer):
    """`out[v] = update(aggregate over edges e = (u, v) of message(x[v], x[u], e))`.

    A subclass calls `propagate(edge_index, x=..., ...)` in its `forward` and defines `message`,
    `aggregate` or `update`, as with PyG's class of the same name. Their arguments are found by
    name among those of `propagate`:

    - `x_j` and `x_i` are rows of `x` at the source and at the destination of every edge, [E, ...].
      x may be a pair, for sources and destinations. Any name will do;
    - `edge_index`, `edge_index_i`, `edge_index_j`, `index`, `ptr`, `size`, `size_i`, `size_j` and
      `dim_size` are as in PyG; `graph` is the `Graph`;
    - everything else is as it was given. Of a sparse matrix, `edge_weight`, `edge_attr` and
      `edge_type` are its values, unless given.

    By default a message is x_j and nothing is made per edge. A subclass whose messages combine
    features of the source, of the destination and of the edge says so instead of making them:

        def message(self, graph, x, edge_weight):
            return Messages(graph, x, edge_weight)

    and its layer is one op, without a tensor of edges x width. A `message` that takes `x_j` gets
    it made, and what it returns is reduced by one op.

    Ops: one `spmm` for declared messages; for made ones a `sddmm` for each of x_i and x_j too.

    Args:
        aggr: "sum" (or "add"), "mean", "max", "min", "mul", "var", "std", "softmax", "lstm", an
            aggregation, a list of these, or None where the subclass defines `aggregate`.
        aggr_kwargs: Arguments of an aggregation that is given by name.
        flow: "source_to_target", or "target_to_source": every edge then goes the other way.
        node_dim: Where nodes are among the dimensions of features: 0, which is -2 of matrices.

    Source: Gilmer et al., "Neural message passing for quantum chemistry", 2017.
    """

    def __init__(
        self,
        aggr: Aggr | None = "sum",
        *,
        aggr_kwargs: dict[str, Any] | None = None,
        flow: str = "source_to_target",
        node_dim: int = -2,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if flow not in _FLOWS:
            raise ValueError(f"{name}: flow must be one of {', '.join(_FLOWS)}, got {flow!r}")
        if node_dim not in (0, -2):
            raise ValueError(f"{name}: node_dim must be 0 or -2, got {node_dim}")
        self.aggr: str | list[str] | None = None
        self.aggr_module: nn.Module | None = None
        if aggr is not None:
            self.aggr = aggr_names(aggr)
            self.aggr_module = make_aggregation(name, aggr, **(aggr_kwargs or {}))
        self.flow = flow
        self.node_dim = node_dim
        self._message_names = _names_of(self.message)
        self._aggregate_names = _names_of(self.aggregate, skip=1)
        self._update_names = _names_of(self.update, skip=1)
        self._edge_update_names = _names_of(self.edge_update)
        self._aggregates = type(self).aggregate is MessagePassing.aggregate
        self._copies = self._aggregates and type(self).message is MessagePassing.message

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call `propagate`; a subclass must define this."""
        raise NotImplementedError(f"{type(self).__name__}: a subclass must define forward")

    def propagate(
        self,
        edge_index: Graph | Tensor,
        size: tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Send messages along all edges and return what they become.

        Args:
            edge_index: A `Graph`, an integer tensor [2, E], or a torch sparse matrix
                [num_dst, num_src].
            size: Numbers of nodes in the first and second row of edge_index, where no features say
                so. By default those of `x` where only whole features are asked for.
            **kwargs: What `message`, `aggregate` and `update` ask for by name.
        """
        names = (*self._message_names, *self._aggregate_names, *self._update_names)
        found = _Arguments(self, edge_index, size, kwargs, names)
        if self._copies:
            messages: Any = Messages(found.graph, found.whole("x"))
        else:
            messages = self.message(**found.by_name(self._message_names))
        if self._aggregates:
            out = self.aggregate(messages, graph=found.graph)
        else:
            out = self.aggregate(messages, **found.by_name(self._aggregate_names))
        return self.update(out, **found.by_name(self._update_names))

    def edge_updater(
        self,
        edge_index: Graph | Tensor,
        size: tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Return what `edge_update` makes of every edge, its arguments found likewise."""
        found = _Arguments(self, edge_index, size, kwargs, self._edge_update_names)
        return self.edge_update(**found.by_name(self._edge_update_names))

    # PyG's signatures, which subclasses replace by their own.

    def message(self, x_j: Tensor) -> Any:
        """Return the messages: [E, ...], or `Messages` that are not made."""
        return x_j

    def aggregate(
        self,
        inputs: Tensor | Rows,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        graph: Graph | None = None,
    ) -> Tensor:
        """Return one row per node: what the messages into it reduce to.

        Args:
            inputs: What `message` returned.
            index: The destination of each message, [E].
            ptr: Where the messages into each node begin, for messages in their order.
            dim_size: Number of destinations.
            graph: The graph, which says all of this without sorting again.
        """
        if self.aggr_module is None:
            raise ValueError(f"{type(self).__name__}: aggr=None needs a subclass with aggregate")
        if isinstance(inputs, Rows):
            rows = inputs
        elif graph is not None:
            rows = Messages(graph, None, inputs)
        elif ptr is not None:
            rows = Segments(inputs, ptr)
        elif index is not None:
            rows = Scattered(inputs, index, dim_size)
        else:
            raise ValueError(f"{type(self).__name__}: aggregate needs graph, index or ptr")
        return aggregate(self.aggr_module, rows)

    def update(self, inputs: Tensor) -> Any:
        """Return what becomes of the nodes."""
        return inputs

    def edge_update(self) -> Any:
        """Return what becomes of the edges."""
        raise NotImplementedError(f"{type(self).__name__}: a subclass must define edge_update")

    def __repr__(self) -> str:
        """Return e.g. `MyConv(16, 32)`, where the layer has such attributes."""
        shown = ""
        if hasattr(self, "in_channels") and hasattr(self, "out_channels"):
            shown = f"{self.in_channels}, {self.out_channels}"
        elif hasattr(self, "channels"):
            shown = f"{self.channels}"
        return f"{type(self).__name__}({shown})"


def _names_of(function: Callable[..., Any], skip: int = 0) -> _Names:
    """Return the names of a function's arguments and their defaults."""
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    return tuple((p.name, p.default) for p in parameters if p.kind not in several)


class _Arguments:
    """The arguments of one call of `propagate`, found by name."""

    def __init__(
        self,
        layer: MessagePassing,
        edge_index: Graph | Tensor,
        size: tuple[int, int] | None,
        given: dict[str, Any],
        names: _Names,
    ) -> None:
        self.layer = type(layer).__name__
        self.node_dim = layer.node_dim
        self.given = given
        self.forward = layer.flow == _FLOWS[0]
        self.gathered: dict[str, Any] = {}
        if isinstance(edge_index, Graph):
            self.graph = edge_index if self.forward else edge_index.reverse
        else:
            num_src, num_dst = self._sizes(size, names)
            if not self.forward and edge_index.layout is not torch.strided:
                raise ValueError(f"{self.layer}: a sparse matrix needs flow={_FLOWS[0]!r}")
            edges = edge_index if self.forward else edge_index.flip(0)
            self.graph = as_graph(edges, num_src, num_dst)
        self.values = sparse_values(edge_index)

    def by_name(self, names: _Names) -> dict[str, Any]:
        """Return the arguments of a function."""
        return {name: self._find(name, default) for name, default in names}

    def whole(self, name: str) -> Tensor:
        """Return features of the sources, without a row per edge."""
        if name not in self.given:
            raise TypeError(f"{self.layer}: propagate needs the argument {name!r}")
        x: Tensor = self._ends(self.given[name])[0]
        self._check(name, x, self.graph.num_src)
        return x

    def _find(self, name: str, default: Any) -> Any:
        base, end = name[:-2], name[-2:]
        special = self._special(name)
        if special is not _REQUIRED:
            return special
        if end in ("_i", "_j") and base in self.given:
            if name not in self.gathered:
                self.gathered[name] = self._gather(base, end)
            return self.gathered[name]
        found = self.given.get(name, default)
        if (found is None or found is _REQUIRED) and self.values is not None:
            if name in ("edge_weight", "edge_type"):
                return self.values
            if name == "edge_attr":
                return self.values if self.values.dim() > 1 else None
        if found is _REQUIRED:
            raise TypeError(f"{self.layer}: propagate needs the argument {name!r}")
        return found

    def _special(self, name: str) -> Any:
        graph = self.graph
        if name == "graph":
            return graph
        if name == "edge_index":
            return graph.edge_index if self.forward else graph.edge_index.flip(0)
        if name in ("edge_index_i", "index"):
            return graph.edge_index[1]
        if name == "edge_index_j":
            return graph.edge_index[0]
        if name == "ptr":
            return None
        if name in ("size_i", "dim_size"):
            return graph.num_dst
        if name == "size_j":
            return graph.num_src
        if name == "size":
            size = [graph.num_src, graph.num_dst]
            return size if self.forward else size[::-1]
        return _REQUIRED

    def _ends(self, data: Any) -> tuple[Any, Any]:
        """Return what belongs to sources and to destinations."""
        if isinstance(data, tuple | list):
            if len(data) != 2:
                raise ValueError(f"{self.layer}: a pair of features is needed, got {len(data)}")
            first, second = data
            return (first, second) if self.forward else (second, first)
        return data, data

    def _gather(self, base: str, end: str) -> Any:
        source, destination = self._ends(self.given[base])
        data, rows = (
            (source, self.graph.num_src) if end == "_j" else (destination, self.graph.num_dst)
        )
        if not isinstance(data, Tensor):
            return data
        self._check(base, data, rows)
        if not data.is_floating_point():
            data = self.graph.at_sources(data) if end == "_j" else data
            return data.index_select(0, self.graph.edge_index[0 if end == "_j" else 1])
        wide = data if data.dim() > 1 else data.unsqueeze(1)
        if end == "_j":
            out = sddmm(self.graph, None, wide, op="copy_rhs")
        else:
            out = sddmm(self.graph, wide, None, op="copy_lhs")
        return out if data.dim() > 1 else out.squeeze(1)

    def _check(self, name: str, data: Tensor, rows: int) -> None:
        if self.node_dim == -2 and data.dim() > 2:
            raise ValueError(
                f"{self.layer}: {name} of shape {list(data.shape)} needs node_dim=0, with nodes in "
                "the first dimension"
            )
        if data.dim() == 0 or data.shape[0] != rows:
            raise ValueError(
                f"{self.layer}: {name} must have a row for each of {rows} nodes, got shape "
                f"{list(data.shape)}"
            )

    def _sizes(self, size: tuple[int, int] | None, names: _Names) -> tuple[int, int]:
        """Return num_src and num_dst: as given, or those of the features that are gathered."""
        if size is not None:
            return (size[0], size[1]) if self.forward else (size[1], size[0])
        bases = [(name[:-2], name[-2:]) for name, _ in names if name[-2:] in ("_i", "_j")]
        counts: dict[str, int] = {}
        for base, end in [*bases, ("x", "_i"), ("x", "_j")]:
            data = self.given.get(base)
            is_pair = isinstance(data, tuple | list)
            for part, at in zip(self._ends(data), ("_j", "_i"), strict=True):
                if isinstance(part, Tensor) and part.dim() and (is_pair or at == end):
                    counts.setdefault(at, part.shape[0])
        if not counts:
            raise ValueError(f"{self.layer}: propagate needs size, no features say it")
        either = next(iter(counts.values()))
        return counts.get("_j", either), counts.get("_i", either)
