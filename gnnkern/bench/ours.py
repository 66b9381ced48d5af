"""gnnkern's own runners: every backend in an op's table of implementations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import gnnkern
from gnnkern.backends import Implementation, Query
from gnnkern.bench.problems import NEGATIVE_SLOPE, Problem
from gnnkern.bench.problems_messages import message_op
from gnnkern.bench.problems_multi import PNA
from gnnkern.bench.problems_typed import type_boundaries
from gnnkern.bench.runners import Runner, index_of, module_runner
from gnnkern.nn import GATConv, GATv2Conv, TransformerConv
from gnnkern.ops import implementations

# Tensors [E, F] alive in the plain torch of a reference, at most: forward, and with gradients.
REFERENCE_EDGE_ROWS = (7.5, 13.0)


# What a layer calls, and ops that have peers of their own for some of their forms.
PUBLIC = {
    "gat_layer": "gat_attention",
    "gatv2_layer": "gatv2_attention",
    "transformer_layer": "dot_attention",
    "spmm_messages": "spmm",
    "sddmm_rows": "sddmm",
}


def table(op: str) -> tuple[Implementation, ...]:
    """The table of implementations of an op; a layer has that of the op it calls."""
    return implementations()[PUBLIC.get(op, op)]


def best_backend(op: str, dtype: torch.dtype = torch.float32, device_type: str = "cpu") -> str:
    """The backend that a call without `backend=` takes here."""
    query = Query(device_type, dtype)
    return next(i.backend for i in table(op) if not i.unsupported(query))


def reasons_against(
    op: str, backend: str, dtype: torch.dtype = torch.float32, device_type: str = "cpu"
) -> list[str]:
    """Why a backend cannot run here; empty: it can."""
    query = Query(device_type, dtype)
    missing = [f"{op} has no backend {backend!r}"]
    return next((i.unsupported(query) for i in table(op) if i.backend == backend), missing)


def build(problem: Problem, backend: str) -> Runner:
    """Bind gnnkern to a problem."""
    if problem.op == "gat_layer":
        return _gat_layer(problem, GATConv, backend)
    if problem.op == "gatv2_layer":
        return _gat_layer(problem, GATv2Conv, backend)
    if problem.op == "transformer_layer":
        return _transformer_layer(problem, backend)
    return Runner(_CALLS[problem.op](problem, backend), problem.inputs, backend=backend)


def _gat_layer(problem: Problem, conv: type[GATConv] | type[GATv2Conv], backend: str) -> Runner:
    depth = problem.width // problem.heads
    layer = conv(problem.width, depth, heads=problem.heads, negative_slope=NEGATIVE_SLOPE)
    graph = problem.graph.graph
    # Kept on the graph: the layer finds it there, with its reverse.
    graph.add_self_loops().prepare()
    return _layer(problem, layer, graph, backend)


def _transformer_layer(problem: Problem, backend: str) -> Runner:
    layer = TransformerConv(problem.width, problem.width // problem.heads, heads=problem.heads)
    return _layer(problem, layer, problem.graph.graph, backend)


def _layer(problem: Problem, layer: torch.nn.Module, graph: gnnkern.Graph, backend: str) -> Runner:
    runner = module_runner(problem, layer, graph, backend=backend)

    def call(x: Tensor) -> Tensor:
        with gnnkern.use_backend(backend):
            return runner.call(x)

    return Runner(call, runner.inputs, runner.parameters, backend=backend)


def _spmm(problem: Problem, backend: str) -> Callable[..., Tensor]:
    graph, reduce = problem.graph.graph, problem.reduce
    return lambda x, weight=None: gnnkern.spmm(graph, x, weight, reduce=reduce, backend=backend)


def _sddmm(problem: Problem, backend: str) -> Callable[..., Tensor]:
    graph = problem.graph.graph
    return lambda x_dst, x_src: gnnkern.sddmm(graph, x_dst, x_src, op="dot", backend=backend)


def _edge_softmax(problem: Problem, backend: str) -> Callable[..., Tensor]:
    graph = problem.graph.graph
    return lambda score: gnnkern.edge_softmax(graph, score, backend=backend)


def _gat_attention(problem: Problem, backend: str) -> Callable[..., Tensor]:
    graph = problem.graph.graph
    options: dict[str, Any] = {"negative_slope": NEGATIVE_SLOPE, "backend": backend}
    return lambda *tensors: gnnkern.gat_attention(graph, *tensors, **options)


def _gatv2_attention(problem: Problem, backend: str) -> Callable[..., Tensor]:
    graph = problem.graph.graph
    options: dict[str, Any] = {"negative_slope": NEGATIVE_SLOPE, "backend": backend}
    return lambda *tensors: gnnkern.gatv2_attention(graph, *tensors, **options)


def _dot_attention(problem: Problem, backend: str) -> Callable[..., Tensor]:
    graph = problem.graph.graph
    return lambda *tensors: gnnkern.dot_attention(graph, *tensors, backend=backend)


def _segment_reduce(problem: Problem, backend: str) -> Callable[..., Tensor]:
    indptr, reduce = problem.graph.indptr, problem.reduce
    return lambda x: gnnkern.segment_reduce(x, indptr, reduce=reduce, backend=backend)


def _segment_gather(problem: Problem, backend: str) -> Callable[..., Tensor]:
    indptr, size = problem.graph.indptr, problem.graph.num_edges
    return lambda x: gnnkern.segment_gather(x, indptr, output_size=size, backend=backend)


def _segment_softmax(problem: Problem, backend: str) -> Callable[..., Tensor]:
    indptr = problem.graph.indptr
    return lambda x: gnnkern.segment_softmax(x, indptr, backend=backend)


def _scatter_reduce(problem: Problem, backend: str) -> Callable[..., Tensor]:
    index, size, reduce = problem.index, problem.graph.num_nodes, problem.reduce
    assert index is not None
    return lambda x: gnnkern.scatter_reduce(
        x, index, num_segments=size, reduce=reduce, backend=backend
    )


def _multi_reduce(problem: Problem, backend: str) -> Callable[..., Tensor]:
    graph = problem.graph.graph
    return lambda x: gnnkern.multi_reduce(graph, x, reduces=PNA, backend=backend)


def _spmm_messages(problem: Problem, backend: str) -> Callable[..., Tensor]:
    graph = problem.graph.graph
    op = message_op(problem)
    options: dict[str, Any] = {"reduce": problem.reduce, "backend": backend}
    if op is None:
        return lambda weight: gnnkern.spmm(graph, None, weight, **options)
    return lambda x, weight: gnnkern.spmm(graph, x, weight, op=op, **options)


def _sddmm_rows(problem: Problem, backend: str) -> Callable[..., Tensor]:
    graph, op = problem.graph.graph, problem.reduce
    return lambda x_dst, x_src: gnnkern.sddmm(graph, x_dst, x_src, op=op, backend=backend)


def _segment_matmul(problem: Problem, backend: str) -> Callable[..., Tensor]:
    indptr = type_boundaries(problem)
    return lambda x, weight: gnnkern.segment_matmul(x, indptr, weight, backend=backend)


def _gather_matmul(problem: Problem, backend: str) -> Callable[..., Tensor]:
    types = index_of(problem)
    return lambda x, weight: gnnkern.gather_matmul(x, weight, types, backend=backend)


def _segment_logsumexp(problem: Problem, backend: str) -> Callable[..., Tensor]:
    indptr = problem.graph.indptr
    return lambda x: gnnkern.segment_logsumexp(x, indptr, backend=backend)


def _scatter_logsumexp(problem: Problem, backend: str) -> Callable[..., Tensor]:
    index, size = index_of(problem), problem.graph.num_nodes
    return lambda x: gnnkern.scatter_logsumexp(x, index, num_segments=size, backend=backend)


def _scatter_std(problem: Problem, backend: str) -> Callable[..., Tensor]:
    index, size = index_of(problem), problem.graph.num_nodes
    return lambda x: gnnkern.scatter_std(x, index, num_segments=size, backend=backend)


_CALLS: dict[str, Callable[[Problem, str], Callable[..., Tensor]]] = {
    "spmm": _spmm,
    "sddmm": _sddmm,
    "edge_softmax": _edge_softmax,
    "gat_attention": _gat_attention,
    "gatv2_attention": _gatv2_attention,
    "dot_attention": _dot_attention,
    "segment_reduce": _segment_reduce,
    "segment_gather": _segment_gather,
    "segment_softmax": _segment_softmax,
    "scatter_reduce": _scatter_reduce,
    "multi_reduce": _multi_reduce,
    "spmm_messages": _spmm_messages,
    "sddmm_rows": _sddmm_rows,
    "segment_matmul": _segment_matmul,
    "gather_matmul": _gather_matmul,
    "segment_logsumexp": _segment_logsumexp,
    "scatter_logsumexp": _scatter_logsumexp,
    "scatter_std": _scatter_std,
}
