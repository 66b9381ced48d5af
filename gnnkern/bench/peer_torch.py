"""Plain torch, as a careful user writes it."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from gnnkern.bench.graphs import BenchGraph
from gnnkern.bench.problems import Problem
from gnnkern.bench.problems_messages import message_of
from gnnkern.bench.problems_typed import type_boundaries
from gnnkern.bench.runners import (
    Attention,
    DotAttention,
    Runner,
    attention_runner,
    dot_scores,
    four_reductions,
    gatv2_layer_runner,
    gatv2_scores,
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
    ones = torch.ones(graph.num_edges, dtype=problem.dtype, device=graph.device)
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
    graph = problem.graph
    zeros = torch.zeros(graph.num_edges, dtype=problem.dtype, device=graph.device)
    pattern = _csr(graph, zeros)

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


def messages_index_add(problem: Problem) -> Runner:
    dst, size = problem.graph.dst, problem.graph.num_nodes
    message = message_of(problem, problem.graph.src)
    return Runner(lambda *inputs: _index_add(message(*inputs), dst, size), problem.inputs)


def messages_scatter_reduce(problem: Problem) -> Runner:
    dst, size = problem.graph.dst, problem.graph.num_nodes
    message, reduce = message_of(problem, problem.graph.src), _REDUCE[problem.reduce]
    return Runner(
        lambda *inputs: _scatter_rows(message(*inputs), dst, size, reduce), problem.inputs
    )


def on_edges(problem: Problem) -> Runner:
    src, dst, op = problem.graph.src, problem.graph.dst, problem.reduce

    def call(x_dst: Tensor, x_src: Tensor) -> Tensor:
        left, right = x_dst.index_select(0, dst), x_src.index_select(0, src)
        return left + right if op == "add" else (left * right).sum(-1)

    return Runner(call, problem.inputs)


def segment_matmul_loop(problem: Problem) -> Runner:
    sizes = type_boundaries(problem).diff().tolist()

    def call(x: Tensor, weight: Tensor) -> Tensor:
        parts = zip(x.split(sizes), weight.unbind(), strict=True)
        return torch.cat([part @ matrix for part, matrix in parts])

    return Runner(call, problem.inputs)


def gather_matmul_masks(problem: Problem) -> Runner:
    types = index_of(problem)

    def call(x: Tensor, weight: Tensor) -> Tensor:
        rows = [(types == r).nonzero().squeeze(1) for r in range(weight.shape[0])]
        pairs = zip(rows, weight.unbind(), strict=True)
        products = torch.cat([x.index_select(0, own) @ matrix for own, matrix in pairs])
        return torch.empty_like(products).index_copy(0, torch.cat(rows), products)

    return Runner(call, problem.inputs)


def gather_matmul_sorted(problem: Problem) -> Runner:
    types = index_of(problem)

    def call(x: Tensor, weight: Tensor) -> Tensor:
        order = types.argsort(stable=True)
        sizes = torch.bincount(types, minlength=weight.shape[0]).tolist()
        parts = zip(x.index_select(0, order).split(sizes), weight.unbind(), strict=True)
        products = torch.cat([part @ matrix for part, matrix in parts])
        return products.index_select(0, order.argsort())

    return Runner(call, problem.inputs)


def matmul_bmm(problem: Problem) -> Runner:
    types = index_of(problem)

    def call(x: Tensor, weight: Tensor) -> Tensor:
        return torch.bmm(x[:, None], weight.index_select(0, types)).squeeze(1)

    return Runner(call, problem.inputs)


def _log_sum_exp(x: Tensor, index: Tensor, size: int) -> Tensor:
    largest = _scatter_rows(x.detach(), index, size, "amax")
    power = (x - largest.index_select(0, index)).exp()
    return _index_add(power, index, size).log() + largest


def segment_logsumexp(problem: Problem) -> Runner:
    index, size = problem.graph.sorted_dst, problem.graph.num_nodes
    return Runner(lambda x: _log_sum_exp(x, index, size), problem.inputs)


def scatter_logsumexp(problem: Problem) -> Runner:
    index, size = index_of(problem), problem.graph.num_nodes
    return Runner(lambda x: _log_sum_exp(x, index, size), problem.inputs)


def scatter_std(problem: Problem) -> Runner:
    index, size = index_of(problem), problem.graph.num_nodes

    def call(x: Tensor) -> Tensor:
        count = torch.bincount(index, minlength=size)[:, None]
        mean = _index_add(x, index, size) / count.clamp(min=1)
        square = (x - mean.index_select(0, index)).square()
        variance = _index_add(square, index, size) / (count - 1).clamp(min=1)
        # The root of 0 has no derivative.
        still = variance == 0
        return variance.masked_fill(still, 1).sqrt().masked_fill(still, 0)

    return Runner(call, problem.inputs)


def attention_v2(graph: BenchGraph) -> Attention:
    src, dst, size = graph.src, graph.dst, graph.num_nodes

    def attend(x_src: Tensor, x_dst: Tensor, att: Tensor) -> Tensor:
        x = x_src.index_select(0, src)  # [E, H, D]
        alpha = _softmax(gatv2_scores(x, x_dst, att, dst), dst, size)
        return _index_add(x * alpha[:, :, None], dst, size)

    return attend


def gatv2_attention(problem: Problem) -> Runner:
    return attention_runner(problem, attention_v2)


def gatv2_layer(problem: Problem) -> Runner:
    return gatv2_layer_runner(problem, attention_v2)
