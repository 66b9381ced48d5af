"""PyG's `scatter`, `segment`, `softmax`, `spmm`, `index_sort` and `EdgeIndex` products.

Each function has PyG's arguments, gives PyG's results, and leaves to PyG what it does not take:
values that are not floating, tensor subclasses, transforms, tracing. PyG raises its own errors,
because a call that the kernels refuse is made again by PyG.

Numerics: halves are summed in float32, and results repeat bit for bit. The gradient of a maximum or
minimum is shared by equal elements, as in PyG; a softmax over minus infinities alone is 0. All have
every derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnnkern.compat._along import Rows, reduce_along, rows_along
from gnnkern.compat.pyg_lib.ops import index_sort as sort_integers
from gnnkern.compat.torch_scatter.segment_csr import segment_csr
from gnnkern.graph import Graph
from gnnkern.integrations.pyg import report
from gnnkern.integrations.pyg.graph_cache import GraphCache
from gnnkern.integrations.pyg.stepping_aside import (
    observed,
    reason_against,
    reason_against_index,
)
from gnnkern.ops._operator import needs_gradient
from gnnkern.ops.scatter_logsumexp import scatter_logsumexp
from gnnkern.ops.scatter_reduce import scatter_reduce
from gnnkern.ops.segment_logsumexp import segment_logsumexp
from gnnkern.ops.segment_reduce import segment_reduce
from gnnkern.ops.spmm import spmm as product

__all__ = ["REDUCES", "Ops", "plain_index", "without_autocast"]

REDUCES = {
    "sum": "sum",
    "add": "sum",
    "mean": "mean",
    "mul": "mul",
    "min": "min",
    "max": "max",
    "amin": "min",
    "amax": "max",
}


class Ops:
    """The functions, with what they leave to PyG.

    Args:
        originals: PyG's functions by name.
        cache: Where graphs are kept.
    """

    def __init__(self, originals: dict[str, Callable[..., Any]], cache: GraphCache) -> None:
        self.originals = originals
        self.cache = cache

    def _left(self, name: str, why: str, *args: Any) -> Tensor:
        report.left(name, why)
        out: Tensor = self.originals[name](*args)
        return out

    # -- scatter -----------------------------------------------------------------------------------

    def scatter(
        self,
        src: Tensor,
        index: Tensor,
        dim: int = 0,
        dim_size: int | None = None,
        reduce: str = "sum",
    ) -> Tensor:
        """`torch_geometric.utils.scatter`."""
        args = (src, index, dim, dim_size, reduce)
        why = observed() or reason_against(src)
        index = plain_index(index)
        why = why or reason_against_index(index)
        word = REDUCES.get(reduce, "")
        if why is None and not word:
            why = f"reduce={reduce!r}"
        elif why is None and word == "mul" and needs_gradient(src):
            why = "a product that is differentiated"
        elif why is None and not (-src.dim() <= dim < src.dim()):
            why = "dim out of range"
        if why is not None:
            return self._left("scatter", why, *args)
        dim %= src.dim()
        if index.shape[0] != src.shape[dim]:
            return self._left("scatter", "an index of another length", *args)
        if dim_size is None:
            dim_size = int(index.max()) + 1 if index.numel() else 0
        try:
            out = self._scatter(src, index, dim, dim_size, word)
        except ValueError as error:
            return self._left("scatter", _short(error), *args)
        report.accelerated(f"scatter {word}")
        return out

    def _scatter(self, src: Tensor, index: Tensor, dim: int, size: int, reduce: str) -> Tensor:
        if reduce in ("sum", "mean") and src.dim() > 1 and dim == 0:
            width = src.shape[1:].numel()
            graph = self.cache.graph(index, None, size, 1, width)
            if graph is not None:
                with without_autocast(src):
                    return product(graph, None, src, reduce=reduce)
        if reduce in ("sum", "mean", "mul"):
            return reduce_along(src, index, dim, size, reduce)
        rows = rows_along(src, index, dim, size)
        assert rows is not None
        if not needs_gradient(src):
            out = scatter_reduce(rows.of(src), index, num_segments=size, reduce=reduce)
            return rows.back(out)
        extreme: Tensor = _SharedExtreme.apply(src, rows, reduce)
        return extreme

    # -- segment -----------------------------------------------------------------------------------

    def segment(self, src: Tensor, ptr: Tensor, reduce: str = "sum") -> Tensor:
        """`torch_geometric.utils.segment`."""
        ptr = plain_index(ptr)
        why = observed() or reason_against(src)
        if why is None and with_torch_scatter():
            # Whose conventions PyG's are then.
            report.accelerated(f"segment {reduce}")
            return segment_csr(src, ptr, reduce=reduce)
        why = why or reason_against_index(ptr)
        if why is None and reduce not in ("sum", "mean", "min", "max"):
            why = f"reduce={reduce!r}"
        elif why is None and reduce in ("min", "max") and needs_gradient(src):
            why = "an extreme that is differentiated"
        if why is not None or src.dim() == 0:
            return self._left("segment", why or "no dimension", src, ptr, reduce)
        try:
            out = segment_reduce(src, ptr, reduce=reduce)
        except ValueError as error:
            return self._left("segment", _short(error), src, ptr, reduce)
        report.accelerated(f"segment {reduce}")
        # PyG takes an infinity for the mark of an empty segment.
        return torch.where(out.isinf(), 0, out) if reduce in ("min", "max") else out

    # -- softmax -----------------------------------------------------------------------------------

    def softmax(
        self,
        src: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        num_nodes: int | None = None,
        dim: int = 0,
    ) -> Tensor:
        """`torch_geometric.utils.softmax`."""
        args = (src, index, ptr, num_nodes, dim)
        why = observed() or reason_against(src)
        index, ptr = plain_index(index), plain_index(ptr)
        by_ptr = ptr is not None and (ptr.dim() == 1 or index is None)
        why = why or reason_against_index(ptr if by_ptr else index)
        if why is None and not (-src.dim() <= dim < src.dim()):
            why = "dim out of range"
        elif why is None and by_ptr and dim % src.dim() != 0 and not with_torch_scatter():
            # Which PyG refuses then.
            why = "boundaries along another dimension than the first"
        if why is not None:
            return self._left("softmax", why, *args)
        dim %= src.dim()
        rows = src.movedim(dim, 0)
        try:
            with without_autocast(src):
                if by_ptr:
                    assert ptr is not None
                    total = segment_logsumexp(rows, ptr)
                    count = ptr.diff()
                    spread = total.repeat_interleave(count, 0, output_size=rows.shape[0])
                else:
                    assert index is not None
                    size = num_nodes
                    if size is None:
                        size = int(index.max()) + 1 if index.numel() else 0
                    total = scatter_logsumexp(rows, index, num_segments=size)
                    groups = Rows(index, size, 0, size, None)
                    spread = groups.spread(total, rows)
        except ValueError as error:
            return self._left("softmax", _short(error), *args)
        report.accelerated("softmax")
        # A group of minus infinities has nothing to subtract.
        spread = spread.masked_fill(spread == -torch.inf, 0.0)
        return (rows - spread).exp().movedim(0, dim).contiguous()

    # -- products ----------------------------------------------------------------------------------

    def spmm(self, src: Any, other: Tensor, reduce: str = "sum") -> Tensor:
        """`torch_geometric.utils.spmm`, of torch's sparse CSR matrices."""
        word = "sum" if reduce == "add" else reduce
        why = observed() or reason_against(other)
        if why is None and (not isinstance(src, Tensor) or src.layout != torch.sparse_csr):
            why = "no CSR matrix"
        elif why is None and word not in ("sum", "mean", "min", "max"):
            why = f"reduce={reduce!r}"
        elif why is None and (src.requires_grad or src.dim() != 2 or other.dim() != 2):
            why = "values that are differentiated, or a batch"
        elif why is None and (src.dtype != other.dtype or src.device != other.device):
            why = "operands of different dtypes or devices"
        elif why is None and word in ("min", "max") and needs_gradient(other):
            why = "an extreme that is differentiated"
        if why is not None:
            return self._left("spmm", why, src, other, reduce)
        try:
            graph = Graph.from_csr(src.crow_indices(), src.col_indices(), num_src=src.shape[1])
            with without_autocast(other):
                out = product(graph, other, src.values(), reduce=word)
        except ValueError as error:
            return self._left("spmm", _short(error), src, other, reduce)
        report.accelerated(f"spmm {word}")
        return out

    def edge_index_product(
        self,
        input: Any,
        other: Tensor,
        value: Tensor | None = None,
        reduce: str = "sum",
        transpose: bool = False,
    ) -> Tensor:
        """`EdgeIndex.matmul` with a dense matrix."""
        args = (input, other, value, reduce, transpose)
        name, word = "edge_index_product", "sum" if reduce == "add" else reduce
        tensors = (other,) if value is None else (other, value)
        why = observed() or reason_against(*tensors)
        is_sorted = input.is_sorted_by_col if transpose else input.is_sorted_by_row
        if why is None and (word not in ("sum", "mean", "min", "max") or not is_sorted):
            why = "arguments that PyG refuses"
        elif why is None and (other.dim() != 2 or (value is not None and value.dim() != 1)):
            why = "a batch"
        elif why is None and word in ("min", "max") and needs_gradient(*tensors):
            why = "an extreme that is differentiated"
        elif why is None and value is not None and value.dtype != other.dtype:
            why = "operands of different dtypes"
        if why is not None:
            return self._left(name, why, *args)
        edges, (rows, cols) = input._data, input.get_sparse_size()
        dst, src, size = (
            (edges[1], edges[0], (cols, rows))
            if transpose
            else (
                edges[0],
                edges[1],
                (rows, cols),
            )
        )
        try:
            graph = self.cache.graph(dst, src, *size, width=other.shape[1])
            if graph is None:
                graph = Graph.from_edge_index(torch.stack((src, dst)), size[::-1])
            with without_autocast(other):
                out = product(graph, other, value, reduce=word)
        except ValueError as error:
            return self._left(name, _short(error), *args)
        report.accelerated(f"EdgeIndex product {word}")
        return out

    # -- sorting -----------------------------------------------------------------------------------

    def index_sort(self, inputs: Tensor, max_value: int | None = None, stable: bool = False) -> Any:
        """`torch_geometric.utils.index_sort`."""
        why = observed() or reason_against_index(inputs)
        if why is not None:
            return self._left("index_sort", why, inputs, max_value, stable)
        report.accelerated("index_sort")
        return sort_integers(inputs, max_value)


def plain_index(index: Any) -> Any:
    """An index of PyG's own type as the tensor that it holds."""
    as_tensor = getattr(index, "as_tensor", None)
    return index if as_tensor is None else as_tensor()


def with_torch_scatter() -> bool:
    """Whether PyG reduces segments by torch_scatter, real or a stand-in."""
    import torch_geometric.typing

    return bool(torch_geometric.typing.WITH_TORCH_SCATTER)


def without_autocast(like: Tensor) -> torch.autocast:
    """PyG's reductions keep their dtype under autocast."""
    return torch.autocast(like.device.type, enabled=False)


def _short(error: ValueError) -> str:
    return "refused: " + str(error).split(",")[0]


class _SharedExtreme(torch.autograd.Function):
    """The largest or smallest of each group, whose gradient its equal elements share."""

    @staticmethod
    def forward(ctx: Any, src: Tensor, rows: Rows, reduce: str) -> Tensor:
        groups, count = rows.index, rows.num_groups
        out = rows.back(scatter_reduce(rows.of(src), groups, num_segments=count, reduce=reduce))
        ctx.save_for_backward(src, out)
        ctx.rows = rows
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        src, out = ctx.saved_tensors
        rows: Rows = ctx.rows
        wins = (src == rows.spread(out.detach(), src)).to(grad.dtype)
        number = reduce_along(wins, rows.index, rows.dim, rows.count, "sum")
        # As in torch: where the result is 0, the zeros that it was written over have a share.
        number = number + (out == 0)
        return wins * rows.spread(grad / number, src), None, None
