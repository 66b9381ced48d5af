"""torch_scatter: `segment_csr` over sorted edges, and `scatter` over any."""

from __future__ import annotations

import torch
import torch_scatter
from torch import Tensor
from torch_scatter import gather_csr, scatter, scatter_softmax, segment_csr

from gnnkern.bench.graphs import BenchGraph
from gnnkern.bench.problems import Problem
from gnnkern.bench.problems_messages import message_of
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
    sorted_inputs,
    transformer_runner,
)


def spmm_csr(problem: Problem) -> Runner:
    src, indptr = problem.graph.sorted_src, problem.graph.indptr

    def call(x: Tensor, weight: Tensor | None = None) -> Tensor:
        out: Tensor = segment_csr(messages(x, src, weight), indptr, reduce=problem.reduce)
        return out

    return Runner(call, sorted_inputs(problem), by_row=True)


def spmm_scatter(problem: Problem) -> Runner:
    src, dst, size = problem.graph.src, problem.graph.dst, problem.graph.num_nodes

    def call(x: Tensor, weight: Tensor | None = None) -> Tensor:
        message = messages(x, src, weight)
        out: Tensor = scatter(message, dst, dim=0, dim_size=size, reduce=problem.reduce)
        return out

    return Runner(call, problem.inputs)


def _softmax(score: Tensor, indptr: Tensor) -> Tensor:
    largest = segment_csr(score.detach(), indptr, reduce="max")
    power: Tensor = (score - gather_csr(largest, indptr)).exp()
    total: Tensor = gather_csr(segment_csr(power, indptr, reduce="sum"), indptr)
    return power / total


def softmax_scatter(problem: Problem) -> Runner:
    index = softmax_destinations(problem)
    size = problem.graph.num_nodes

    def call(score: Tensor) -> Tensor:
        out: Tensor = scatter_softmax(score, index, dim=0, dim_size=size)
        return out

    return Runner(call, problem.inputs)


def softmax_csr(problem: Problem) -> Runner:
    indptr = problem.graph.indptr
    inputs = sorted_inputs(problem)
    return Runner(lambda score: _softmax(score, indptr), inputs, by_row=True)


def attention(graph: BenchGraph) -> Attention:
    src, dst, indptr = graph.sorted_src, graph.sorted_dst, graph.indptr

    def attend(h: Tensor, score_src: Tensor, score_dst: Tensor) -> Tensor:
        alpha = _softmax(leaky_scores(score_src, score_dst, src, dst), indptr)
        message = h.index_select(0, src) * alpha[:, :, None]
        out: Tensor = segment_csr(message, indptr, reduce="sum")
        return out

    return attend


def gat_attention(problem: Problem) -> Runner:
    return attention_runner(problem, attention)


def gat_layer(problem: Problem) -> Runner:
    return layer_runner(problem, attention)


def segment_reduce(problem: Problem) -> Runner:
    indptr = problem.graph.indptr
    return Runner(lambda x: segment_csr(x, indptr, reduce=problem.reduce), problem.inputs)


def segment_gather(problem: Problem) -> Runner:
    indptr = problem.graph.indptr
    return Runner(lambda x: gather_csr(x, indptr), problem.inputs)


def scatter_reduce(problem: Problem) -> Runner:
    index, size = index_of(problem), problem.graph.num_nodes

    def call(x: Tensor) -> Tensor:
        out: Tensor = scatter(x, index, dim=0, dim_size=size, reduce=problem.reduce)
        return out

    return Runner(call, problem.inputs)


def multi_reduce_csr(problem: Problem) -> Runner:
    src, indptr = problem.graph.sorted_src, problem.graph.indptr

    def call(x: Tensor) -> Tensor:
        message = x.index_select(0, src)
        three = (segment_csr(message, indptr, reduce=reduce) for reduce in ("mean", "min", "max"))
        return four_reductions(three, segment_csr(message * message, indptr, reduce="mean"))

    return Runner(call, problem.inputs)


def multi_reduce_scatter(problem: Problem) -> Runner:
    src, dst, size = problem.graph.src, problem.graph.dst, problem.graph.num_nodes

    def reduced(message: Tensor, reduce: str) -> Tensor:
        out: Tensor = scatter(message, dst, dim=0, dim_size=size, reduce=reduce)
        return out

    def call(x: Tensor) -> Tensor:
        message = x.index_select(0, src)
        three = (reduced(message, reduce) for reduce in ("mean", "min", "max"))
        return four_reductions(three, reduced(message * message, "mean"))

    return Runner(call, problem.inputs)


def dots_attention(graph: BenchGraph) -> DotAttention:
    src, dst, indptr = graph.sorted_src, graph.sorted_dst, graph.indptr

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        alpha = _softmax(dot_scores(query, key, src, dst), indptr)
        message = value.index_select(0, src) * alpha[:, :, None]
        out: Tensor = segment_csr(message, indptr, reduce="sum")
        return out

    return attend


def dot_attention(problem: Problem) -> Runner:
    return Runner(dots_attention(problem.graph), problem.inputs)


def transformer_layer(problem: Problem) -> Runner:
    return transformer_runner(problem, dots_attention)


def messages_csr(problem: Problem) -> Runner:
    indptr, reduce = problem.graph.indptr, problem.reduce
    message = message_of(problem, problem.graph.sorted_src)

    def call(*inputs: Tensor) -> Tensor:
        out: Tensor = segment_csr(message(*inputs), indptr, reduce=reduce)
        return out

    return Runner(call, sorted_inputs(problem), by_row=True)


def messages_scatter(problem: Problem) -> Runner:
    dst, size, reduce = problem.graph.dst, problem.graph.num_nodes, problem.reduce
    message = message_of(problem, problem.graph.src)

    def call(*inputs: Tensor) -> Tensor:
        out: Tensor = scatter(message(*inputs), dst, dim=0, dim_size=size, reduce=reduce)
        return out

    return Runner(call, problem.inputs)


def segment_logsumexp(problem: Problem) -> Runner:
    indptr = problem.graph.indptr

    def call(x: Tensor) -> Tensor:
        largest = segment_csr(x.detach(), indptr, reduce="max")
        power = (x - gather_csr(largest, indptr)).exp()
        out: Tensor = segment_csr(power, indptr, reduce="sum").log() + largest
        return out

    return Runner(call, problem.inputs)


def scatter_logsumexp(problem: Problem) -> Runner:
    index, size = index_of(problem), problem.graph.num_nodes

    def call(x: Tensor) -> Tensor:
        out: Tensor = torch_scatter.scatter_logsumexp(x, index, dim=0, dim_size=size)
        return out

    return Runner(call, problem.inputs)


def scatter_std(problem: Problem) -> Runner:
    index, size = index_of(problem), problem.graph.num_nodes

    def call(x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            raise NotImplementedError("its gradient is NaN where a deviation is 0")
        out: Tensor = torch_scatter.scatter_std(x, index, dim=0, dim_size=size)
        return out

    return Runner(call, problem.inputs)


def attention_v2(graph: BenchGraph) -> Attention:
    src, dst, indptr = graph.sorted_src, graph.sorted_dst, graph.indptr

    def attend(x_src: Tensor, x_dst: Tensor, att: Tensor) -> Tensor:
        x = x_src.index_select(0, src)  # [E, H, D]
        alpha = _softmax(gatv2_scores(x, x_dst, att, dst), indptr)
        out: Tensor = segment_csr(x * alpha[:, :, None], indptr, reduce="sum")
        return out

    return attend


def gatv2_attention(problem: Problem) -> Runner:
    return attention_runner(problem, attention_v2)


def gatv2_layer(problem: Problem) -> Runner:
    return gatv2_layer_runner(problem, attention_v2)
