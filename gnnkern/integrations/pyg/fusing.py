"""Reductions of lazy messages by one op on the graph: the level "fuse" of `patch_pyg`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnnkern.graph import Graph
from gnnkern.integrations.pyg import (
    attention,
    maps,  # noqa: F401 - adds to what stays lazy
    principal,
    relations,
    report,
    several,
    staying,
    sums,
)
from gnnkern.integrations.pyg.expressions import Cat, Expression, Gather, Pair, Sum, same_index
from gnnkern.integrations.pyg.graph_cache import GraphCache
from gnnkern.integrations.pyg.lazy import LazyMessage
from gnnkern.integrations.pyg.ops import REDUCES, Ops, plain_index, without_autocast
from gnnkern.integrations.pyg.scope import in_force
from gnnkern.integrations.pyg.stepping_aside import (
    observed,
    reason_against,
    reason_against_index,
)
from gnnkern.ops.sddmm import sddmm
from gnnkern.ops.spmm import spmm

__all__ = ["FusedOps", "Unfused", "apply", "split_ends"]

_OTHER = {"max": "min", "min": "max", "sum": "sum", "mean": "mean"}


class Unfused(Exception):
    """Why a message has to be made."""


class FusedOps(Ops):
    """The patched functions, to which messages may come unmade."""

    def scatter(
        self,
        src: Tensor,
        index: Tensor,
        dim: int = 0,
        dim_size: int | None = None,
        reduce: str = "sum",
    ) -> Tensor:
        """`torch_geometric.utils.scatter`."""
        if not isinstance(src, LazyMessage):
            return super().scatter(src, index, dim, dim_size, reduce)
        try:
            out = self._fused(src, plain_index(index), dim, dim_size, reduce)
        except Unfused as why:
            report.left("fused aggregation", str(why))
            return super().scatter(src.value(), index, dim, dim_size, reduce)
        except ValueError as error:
            report.left("fused aggregation", "refused: " + str(error).split(",")[0])
            return super().scatter(src.value(), index, dim, dim_size, reduce)
        return out

    def _fused(
        self, src: LazyMessage, index: Tensor, dim: int, dim_size: int | None, reduce: str
    ) -> Tensor:
        expression = src.current()
        why = observed() or reason_against_index(index)
        word = REDUCES.get(reduce, "")
        if expression is None:
            why = "the message was made already"
        elif word not in _OTHER:
            why = f"reduce={reduce!r}"
        elif dim % src.dim() != 0 or index.shape[0] != src.shape[0]:
            why = "another dimension than that of the edges"
        elif any(type(leaf) not in (Tensor, torch.nn.Parameter) for leaf in expression.leaves):
            why = "tensor subclasses"
        if why is not None:
            raise Unfused(why)
        assert expression is not None
        if dim_size is None:
            dim_size = int(index.max()) + 1 if index.numel() else 0
        with without_autocast(expression.leaves[0]):
            out = self._reduce(expression, index, dim_size, word)
        report.accelerated(f"fused {_name(expression)} {word}")
        return out

    def graph(self, index: Tensor, gather: Gather, size: int) -> Graph:
        """The graph of what is gathered into the groups of `index`."""
        width = torch.Size(gather.x.shape[1:]).numel()
        graph = self.cache.graph(index, gather.index, size, gather.x.shape[0], width)
        if graph is None:
            raise Unfused("a graph met for the first time, and narrow messages")
        return graph

    def _reduce(
        self, expression: Expression | Tensor, index: Tensor, size: int, reduce: str
    ) -> Tensor:
        if isinstance(expression, Tensor):
            return self._scatter(expression, index, 0, size, reduce)
        if isinstance(expression, Cat):
            parts = [self._reduce(part, index, size, reduce) for part in expression.parts]
            return torch.cat(parts, -1)
        if isinstance(expression, Gather):
            if same_index(expression.index, index):
                return self._reduce_own(expression, index, size, reduce)
            return _spmm(self.graph(index, expression, size), expression.x, None, "mul", reduce)
        own, other, op = split_ends(expression, index)
        if own is not None:
            return self._reduce_ends(own, other, op, index, size, reduce)
        assert isinstance(other, Pair)
        lhs, rhs, op = other.lhs, other.rhs, other.op
        gather, edge = (lhs, rhs) if isinstance(lhs, Gather) else (rhs, lhs)
        assert isinstance(gather, Gather) and isinstance(edge, Tensor)
        graph = self.graph(index, gather, size)
        if op == "sub" and not isinstance(lhs, Gather):
            # edge - x = -(x - edge)
            return -_spmm(graph, gather.x, edge, "sub", _OTHER[reduce])
        return _spmm(graph, gather.x, edge, op, reduce)

    def _degree(self, index: Tensor, size: int, like: Tensor) -> Tensor:
        """[size, 1, ...] how many edges each node has."""
        (count,) = self.cache.remember(
            ("degree", size), (index,), lambda: (torch.bincount(index, minlength=size),)
        )
        if count.shape[0] != size:
            raise ValueError(f"index must be below {size}")
        return count.view(-1, *[1] * (like.dim() - 1))  # type: ignore[no-any-return]

    def _reduce_own(self, own: Gather, index: Tensor, size: int, reduce: str) -> Tensor:
        """What lies at the node itself, as often as it has edges."""
        if own.x.shape[0] != size:
            raise Unfused("features of another number of nodes")
        degree = self._degree(index, size, own.x)
        if reduce == "sum":
            return own.x * degree.to(own.x.dtype)
        return torch.where(degree > 0, own.x, 0)

    def _reduce_ends(
        self,
        own: Gather,
        other: Expression | Tensor,
        op: str,
        index: Tensor,
        size: int,
        reduce: str,
    ) -> Tensor:
        """`own op other`, where what lies at the node is the same for all of its edges."""
        if own.x.shape[0] != size:
            raise Unfused("features of another number of nodes")
        if op == "mul":
            if reduce not in ("sum", "mean"):
                raise Unfused(f"{op} of both ends under {reduce}")
            return own.x * self._reduce(other, index, size, reduce)
        # A difference is largest where what is taken away is smallest.
        inner = _OTHER[reduce] if op == "rsub" else reduce
        rest = self._reduce(other, index, size, inner)
        return self.joined(own, rest, op, index, size, reduce)

    def joined(
        self, own: Gather, rest: Tensor, op: str, index: Tensor, size: int, reduce: str
    ) -> Tensor:
        """The reduction of sums or differences of `own`, of the reduction of the others."""
        at_node = self._reduce_own(own, index, size, reduce)
        if op == "add":
            return at_node + rest
        return at_node - rest if op == "rsub" else rest - at_node

    def dot(self, lhs: Gather, rhs: Gather) -> Tensor | None:
        """The dot product of both ends of every edge; None where it has to be made otherwise."""
        if observed() is not None:
            return None
        try:
            graph = self.graph(lhs.index, rhs, lhs.x.shape[0])
            with without_autocast(lhs.x):
                out = sddmm(graph, lhs.x, rhs.x, op="dot")
        except (Unfused, ValueError):
            return None
        report.accelerated("fused dot of both ends")
        return out

    # -- functions that take made messages ---------------------------------------------------------

    def segment(self, src: Tensor, ptr: Tensor, reduce: str = "sum") -> Tensor:
        """`torch_geometric.utils.segment`."""
        return super().segment(_made(src), ptr, reduce)

    def softmax(
        self,
        src: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        num_nodes: int | None = None,
        dim: int = 0,
    ) -> Tensor:
        """`torch_geometric.utils.softmax`."""
        return super().softmax(_made(src), index, ptr, num_nodes, dim)


def _made(src: Tensor) -> Tensor:
    return src.value() if isinstance(src, LazyMessage) else src


def _name(expression: Expression) -> str:
    if isinstance(expression, Gather):
        return "copy"
    if isinstance(expression, Pair):
        return expression.op
    return "add" if isinstance(expression, Sum) else "cat"


def split_ends(
    expression: Pair | Sum, index: Tensor
) -> tuple[Gather | None, Expression | Tensor, str]:
    """What lies at the node itself, all else, and how they go together.

    "add", "mul": own op other; "sub": other - own; "rsub": own - other. Without a part that lies at
    the node, the expression is all else.
    """
    if isinstance(expression, Sum):
        for own, other in ((expression.lhs, expression.rhs), (expression.rhs, expression.lhs)):
            if same_index(own.index, index) and not same_index(other.index, index):
                return own, Pair("add", other, expression.edge), "add"
        raise Unfused("two ends of which none, or both, are the node")
    lhs, rhs, op = expression.lhs, expression.rhs, expression.op
    is_own = [isinstance(side, Gather) and same_index(side.index, index) for side in (lhs, rhs)]
    if is_own[0] == is_own[1]:
        if isinstance(lhs, Gather) and isinstance(rhs, Gather):
            raise Unfused("two ends of which none, or both, are the node")
        return None, expression, op
    at_node, rest = (lhs, rhs) if is_own[0] else (rhs, lhs)
    assert isinstance(at_node, Gather)
    if op == "div":
        raise Unfused("a quotient of what lies at the node")
    return at_node, rest, "rsub" if op == "sub" and is_own[0] else op


def _spmm(graph: Graph, x: Tensor, edge: Tensor | None, op: str, reduce: str) -> Tensor:
    if x.dim() == 1:
        x, edge = x.unsqueeze(-1), None if edge is None else edge.unsqueeze(-1)
        return spmm(graph, x, edge, op=op, reduce=reduce).squeeze(-1)
    return spmm(graph, x, edge, op=op, reduce=reduce)


def apply(ops: FusedOps) -> Callable[[], None]:
    """Make the gathers of `MessagePassing` lazy, and fuse attention; what is returned undoes it."""
    from torch_geometric.nn.conv.message_passing import MessagePassing

    original = MessagePassing._index_select_safe

    def gather(self: Any, src: Tensor, index: Tensor) -> Tensor:
        if not in_force():
            untouched: Tensor = original(self, src, index)
            return untouched
        taken = plain_index(index)
        why = observed() or reason_against(src) or reason_against_index(taken)
        if why is None and src.dim() > 0 and self.node_dim % src.dim() != 0:
            why = "nodes in another dimension than the first"
        elif why is None and (src.dim() == 0 or taken.numel() == 0 or taken.is_inference()):
            why = "no edges"
        elif why is None and (self.explain or _has_hooks(self)):
            why = "hooks on messages, or an explanation"
        if why is None and taken.is_cpu and not _in_range(ops.cache, taken, src.shape[0]):
            why = "nodes that do not exist"
        if why is not None:
            report.left("gather", why)
            out: Tensor = original(self, src, index)
            return out

        def select(x: Tensor, index: Tensor) -> Tensor:
            try:
                return x.index_select(0, index)
            except (IndexError, RuntimeError):
                # With PyG's words.
                original(self, src, index)
                raise

        return LazyMessage.of(Gather(src, taken, select))

    MessagePassing._index_select_safe = gather
    staying.on_both_ends["dot"] = ops.dot
    undo_layers = [several.apply(ops)]
    for module in (attention, principal, relations, sums):
        undo_layers += module.apply(ops.cache)

    def undo() -> None:
        for undo_layer in undo_layers:
            undo_layer()
        MessagePassing._index_select_safe = original
        staying.on_both_ends.clear()

    return undo


def _in_range(cache: GraphCache, index: Tensor, num_nodes: int) -> bool:
    """Whether every node exists; found out once, and here, where PyG says so."""

    def bounds() -> tuple[int, int]:
        least, largest = torch.aminmax(index)
        return int(least), int(largest)

    least, largest = cache.remember("bounds", (index,), bounds)
    return least >= 0 and largest < num_nodes  # type: ignore[no-any-return]


def _has_hooks(layer: Any) -> bool:
    return bool(
        layer._message_forward_pre_hooks
        or layer._message_forward_hooks
        or layer._aggregate_forward_pre_hooks
        or layer._aggregate_forward_hooks
        or layer._edge_update_forward_hooks
    )
