"""Plain torch, as a careful user writes it."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from gnnkern.bench.graphs import BenchGraph
from gnnkern.bench.problems import Problem
from gnnkern.bench.runners import (
    Attention,
    DotAttention,
    Runner,
    attention_runner,
    dot_scores,
    four_reductions,
    index_of,
    layer_runner,
    leaky_scores,
    messages,
    softmax_destinations,
    transformer_runner,
)

# torch says once that its CSR support is in beta.
warnings.filterwarnings("ignore", "Sparse", UserWarning)

_REDUCE = {"sum": "sum", "mean": "mean", "max": "amax"}


def _csr(graph: BenchGraph, values: Tensor, dtype: torch.dtype = torch.int32) -> Tensor:
    """Rows are destinations; int32 is what MKL takes without a copy."""
    size = (graph.num_nodes, graph.num_nodes)
    indptr, indices = graph.graph.indptr.to(dtype), graph.graph.indices.to(dtype)
    return torch.sparse_csr_tensor(indptr, indices, values, size, check_invariants=False)


def _csr_inputs(problem: Problem, dtype: torch.dtype) -> tuple[dict[str, Tensor], Tensor | None]:
    """Return the inputs with the weight, if any, inside of a sparse matrix; or that matrix."""
    graph = problem.graph
    if problem.weighted:
        weight = _csr(graph, graph.by_row(problem.inputs["weight"]), dtype)
        return {"x": problem.inputs["x"], "weight": weight}, None
    ones = torch.ones(graph.num_edges, dtype=problem.dtype)
    return {"x": problem.inputs["x"]}, _csr(graph, ones, dtype)


def _index_add(message: Tensor, index: Tensor, size: int) -> Tensor:
    return message.new_zeros(size, *message.shape[1:]).index_add_(0, index, message)


def _scatter_rows(message: Tensor, index: Tensor, size: int, reduce: str) -> Tensor:
    columns = index.view(-1, *(1,) * (message.dim() - 1)).expand_as(message)
    zeros = message.new_zeros(size, *message.shape[1:])
    return zeros.scatter_reduce(0, columns, message, reduce, include_self=False)


def spmm_csr(problem: Problem) -> Runner:
    inputs, matrix = _csr_inputs(problem, torch.int32)
    if matrix is None:
        return Runner(lambda x, weight: torch.sparse.mm(weight, x), inputs, by_row=True)
    return Runner(lambda x: torch.sparse.mm(matrix, x), inputs, by_row=True)


def spmm_csr_reduce(problem: Problem) -> Runner:
    # With int32 its gradient is wrong from 2**31 rows x columns on: torch sorts by their product.
    inputs, matrix = _csr_inputs(problem, torch.int64)
    reduce: Any = _REDUCE[problem.reduce]
    if matrix is None:
        return Runner(lambda x, weight: torch.sparse.mm(weight, x, reduce), inputs, by_row=True)
    return Runner(lambda x: torch.sparse.mm(matrix, x, reduce), inputs, by_row=True)


def spmm_index_add(problem: Problem) -> Runner:
    src, dst, size = problem.graph.src, problem.graph.dst, problem.graph.num_nodes

    def call(x: Tensor, weight: Tensor | None = None) -> Tensor:
        return _index_add(messages(x, src, weight), dst, size)

    return Runner(call, problem.inputs)


def spmm_scatter_reduce(problem: Problem) -> Runner:
    src, dst, size = problem.graph.src, problem.graph.dst, problem.graph.num_nodes
    reduce = _REDUCE[problem.reduce]

    def call(x: Tensor, weight: Tensor | None = None) -> Tensor:
        return _scatter_rows(messages(x, src, weight), dst, size, reduce)

    return Runner(call, problem.inputs)


def sddmm_sampled(problem: Problem) -> Runner:
    pattern = _csr(problem.graph, torch.zeros(problem.graph.num_edges, dtype=problem.dtype))

    def call(x_dst: Tensor, x_src: Tensor) -> Tensor:
        sampled: Tensor = torch.sparse.sampled_addmm(pattern, x_dst, x_src.t())
        return sampled.values()

    return Runner(call, problem.inputs, by_row=True)


def sddmm_gather(problem: Problem) -> Runner:
    src, dst = problem.graph.src, problem.graph.dst

    def call(x_dst: Tensor, x_src: Tensor) -> Tensor:
        return (x_dst.index_select(0, dst) * x_src.index_select(0, src)).sum(-1)

    return Runner(call, problem.inputs)


def _softmax(score: Tensor, index: Tensor, size: int) -> Tensor:
    largest = _scatter_rows(score.detach(), index, size, "amax")
    power = (score - largest.index_select(0, index)).exp()
    return power / _index_add(power, index, size).index_select(0, index)


def softmax(problem: Problem) -> Runner:
    index = softmax_destinations(problem)
    size = problem.graph.num_nodes
    return Runner(lambda score: _softmax(score, index, size), problem.inputs)


def attention(graph: BenchGraph) -> Attention:
    src, dst, size = graph.src, graph.dst, graph.num_nodes

    def attend(h: Tensor, score_src: Tensor, score_dst: Tensor) -> Tensor:
        alpha = _softmax(leaky_scores(score_src, score_dst, src, dst), dst, size)
        return _index_add(h.index_select(0, src) * alpha[:, :, None], dst, size)

    return attend


def gat_attention(problem: Problem) -> Runner:
    return attention_runner(problem, attention)


def gat_layer(problem: Problem) -> Runner:
    return layer_runner(problem, attention)


def segment_reduce(problem: Problem) -> Runner:
    indptr = problem.graph.indptr

    def call(x: Tensor) -> Tensor:
        # The operator's own value for empty segments is 0 for a sum and -inf for a maximum.
        out = torch.segment_reduce(x, problem.reduce, offsets=indptr, axis=0, unsafe=True)
        return out if problem.reduce == "sum" else out.masked_fill(out == -torch.inf, 0)

    return Runner(call, problem.inputs)


def segment_reduce_index_add(problem: Problem) -> Runner:
    dst, size = problem.graph.sorted_dst, problem.graph.num_nodes
    return Runner(lambda x: _index_add(x, dst, size), problem.inputs)


def segment_gather_repeat(problem: Problem) -> Runner:
    count, total = problem.graph.indptr.diff(), problem.graph.num_edges
    return Runner(lambda x: x.repeat_interleave(count, 0, output_size=total), problem.inputs)


def segment_gather_index_select(problem: Problem) -> Runner:
    dst = problem.graph.sorted_dst
    return Runner(lambda x: x.index_select(0, dst), problem.inputs)


def scatter_reduce_index_add(problem: Problem) -> Runner:
    index, size = index_of(problem), problem.graph.num_nodes
    return Runner(lambda x: _index_add(x, index, size), problem.inputs)


def scatter_reduce_scatter_reduce(problem: Problem) -> Runner:
    index, size = index_of(problem), problem.graph.num_nodes
    reduce = _REDUCE[problem.reduce]
    return Runner(lambda x: _scatter_rows(x, index, size, reduce), problem.inputs)


def multi_reduce(problem: Problem) -> Runner:
    src, dst, size = problem.graph.src, problem.graph.dst, problem.graph.num_nodes

    def call(x: Tensor) -> Tensor:
        message = x.index_select(0, src)
        three = (_scatter_rows(message, dst, size, reduce) for reduce in ("mean", "amin", "amax"))
        return four_reductions(three, _scatter_rows(message * message, dst, size, "mean"))

    return Runner(call, problem.inputs)


def dots_attention(graph: BenchGraph) -> DotAttention:
    src, dst, size = graph.src, graph.dst, graph.num_nodes

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        alpha = _softmax(dot_scores(query, key, src, dst), dst, size)
        return _index_add(value.index_select(0, src) * alpha[:, :, None], dst, size)

    return attend


def dot_attention(problem: Problem) -> Runner:
    return Runner(dots_attention(problem.graph), problem.inputs)


def transformer_layer(problem: Problem) -> Runner:
    return transformer_runner(problem, dots_attention)
