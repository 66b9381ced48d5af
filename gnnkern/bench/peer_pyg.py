"""PyG as its users have it: `edge_index` (its default), and `EdgeIndex`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex, utils
from torch_geometric.nn import (
    GATConv,
    GATv2Conv,
    HeteroLinear,
    SimpleConv,
    TransformerConv,
)
from torch_geometric.nn.aggr import MultiAggregation

from gnnkern.bench.graphs import BenchGraph
from gnnkern.bench.problems import NEGATIVE_SLOPE, Problem
from gnnkern.bench.problems_messages import message_of
from gnnkern.bench.problems_multi import PNA
from gnnkern.bench.runners import (
    Attention,
    Runner,
    attention_runner,
    dot_scores,
    gatv2_scores,
    index_of,
    leaky_scores,
    module_runner,
    softmax_destinations,
    sorted_inputs,
)

# Beyond, a case would take minutes.
_MAX_DIFFERENTIATED_TYPES = 100


def spmm(problem: Problem) -> Runner:
    conv, edge_index = SimpleConv(aggr=problem.reduce), problem.graph.edge_index

    def call(x: Tensor, weight: Tensor | None = None) -> Tensor:
        out: Tensor = conv(x, edge_index, weight)
        return out

    return Runner(call, problem.inputs)


def _edges(graph: BenchGraph) -> Any:
    """PyG's own sorted edges, with the CSR forms of both directions cached."""
    edges = torch.stack([graph.sorted_src, graph.sorted_dst])
    size = (graph.num_nodes, graph.num_nodes)
    return EdgeIndex(edges, sparse_size=size, sort_order="col").fill_cache_()


def spmm_edge_index(problem: Problem) -> Runner:
    edges = _edges(problem.graph)

    def call(x: Tensor, weight: Tensor | None = None) -> Tensor:
        out: Tensor = edges.matmul(x, weight, reduce=problem.reduce, transpose=True)
        return out

    return Runner(call, sorted_inputs(problem), by_row=True)


def softmax_index(problem: Problem) -> Runner:
    index = softmax_destinations(problem)
    size = problem.graph.num_nodes
    return Runner(lambda score: utils.softmax(score, index, num_nodes=size), problem.inputs)


def softmax_ptr(problem: Problem) -> Runner:
    indptr = problem.graph.indptr
    inputs = sorted_inputs(problem)
    return Runner(lambda score: utils.softmax(score, ptr=indptr), inputs, by_row=True)


def attention(graph: BenchGraph) -> Attention:
    src, dst, size = graph.src, graph.dst, graph.num_nodes

    def attend(h: Tensor, score_src: Tensor, score_dst: Tensor) -> Tensor:
        alpha = utils.softmax(leaky_scores(score_src, score_dst, src, dst), dst, num_nodes=size)
        message = h.index_select(0, src) * alpha[:, :, None]
        out: Tensor = utils.scatter(message, dst, dim=0, dim_size=size, reduce="sum")
        return out

    return attend


def gat_attention(problem: Problem) -> Runner:
    return attention_runner(problem, attention)


def _layer(
    problem: Problem,
    edges: Any,
    add_self_loops: bool = True,
    conv: type[GATConv] | type[GATv2Conv] = GATConv,
) -> Runner:
    depth = problem.width // problem.heads
    layer = conv(
        problem.width,
        depth,
        heads=problem.heads,
        negative_slope=NEGATIVE_SLOPE,
        add_self_loops=add_self_loops,
    )
    return module_runner(problem, layer, edges)


def gat_layer(problem: Problem) -> Runner:
    return _layer(problem, problem.graph.edge_index)


def gat_layer_edge_index(problem: Problem) -> Runner:
    return _layer(problem, _edges(problem.graph))


def gat_layer_loops_ready(problem: Problem) -> Runner:
    return _layer(problem, problem.graph.with_loops.edge_index, add_self_loops=False)


def segment_reduce(problem: Problem) -> Runner:
    indptr = problem.graph.indptr
    return Runner(lambda x: utils.segment(x, indptr, reduce=problem.reduce), problem.inputs)


def scatter_reduce(problem: Problem) -> Runner:
    index, size = index_of(problem), problem.graph.num_nodes

    def call(x: Tensor) -> Tensor:
        out: Tensor = utils.scatter(x, index, dim=0, dim_size=size, reduce=problem.reduce)
        return out

    return Runner(call, problem.inputs)


def multi_reduce(problem: Problem) -> Runner:
    src, dst, size = problem.graph.src, problem.graph.dst, problem.graph.num_nodes
    aggregate = MultiAggregation(list(PNA))

    def call(x: Tensor) -> Tensor:
        out: Tensor = aggregate(x.index_select(0, src), dst, dim_size=size, dim=0)
        return out.view(size, len(PNA), -1)

    return Runner(call, problem.inputs)


def dot_attention(problem: Problem) -> Runner:
    graph = problem.graph
    src, dst, size = graph.src, graph.dst, graph.num_nodes

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        alpha = utils.softmax(dot_scores(query, key, src, dst), dst, num_nodes=size)
        message = value.index_select(0, src) * alpha[:, :, None]
        out: Tensor = utils.scatter(message, dst, dim=0, dim_size=size, reduce="sum")
        return out

    return Runner(attend, problem.inputs)


def _transformer(problem: Problem, edges: Any) -> Runner:
    layer = TransformerConv(problem.width, problem.width // problem.heads, heads=problem.heads)
    return module_runner(problem, layer, edges)


def transformer_layer(problem: Problem) -> Runner:
    return _transformer(problem, problem.graph.edge_index)


def transformer_layer_edge_index(problem: Problem) -> Runner:
    return _transformer(problem, _edges(problem.graph))


def messages(problem: Problem) -> Runner:
    """What its MessagePassing does around a message of one's own."""
    dst, size, reduce = problem.graph.dst, problem.graph.num_nodes, problem.reduce
    message = message_of(problem, problem.graph.src)

    def call(*inputs: Tensor) -> Tensor:
        out: Tensor = utils.scatter(message(*inputs), dst, dim=0, dim_size=size, reduce=reduce)
        return out

    return Runner(call, problem.inputs)


def _hetero_linear(problem: Problem, is_sorted: bool) -> Runner:
    num_types, width, out_width = problem.inputs["weight"].shape
    layer = HeteroLinear(width, out_width, num_types, is_sorted=is_sorted, bias=False)
    runner = module_runner(problem, layer, index_of(problem))

    def call(x: Tensor) -> Tensor:
        if num_types > _MAX_DIFFERENTIATED_TYPES and torch.is_grad_enabled():
            raise NotImplementedError("its gradient copies all rows once for every type")
        return runner.call(x)

    return Runner(call, runner.inputs, parameters=runner.parameters)


def segment_matmul(problem: Problem) -> Runner:
    return _hetero_linear(problem, is_sorted=True)


def gather_matmul(problem: Problem) -> Runner:
    return _hetero_linear(problem, is_sorted=False)


def segment_logsumexp(problem: Problem) -> Runner:
    indptr = problem.graph.indptr
    return Runner(lambda x: utils.segment_logsumexp(x, indptr, 0), problem.inputs)


def attention_v2(graph: BenchGraph) -> Attention:
    src, dst, size = graph.src, graph.dst, graph.num_nodes

    def attend(x_src: Tensor, x_dst: Tensor, att: Tensor) -> Tensor:
        x = x_src.index_select(0, src)  # [E, H, D]
        alpha = utils.softmax(gatv2_scores(x, x_dst, att, dst), dst, num_nodes=size)
        out: Tensor = utils.scatter(x * alpha[:, :, None], dst, dim=0, dim_size=size, reduce="sum")
        return out

    return attend


def gatv2_attention(problem: Problem) -> Runner:
    return attention_runner(problem, attention_v2)


def gatv2_layer(problem: Problem) -> Runner:
    return _layer(problem, problem.graph.edge_index, conv=GATv2Conv)


def gatv2_layer_loops_ready(problem: Problem) -> Runner:
    edges = problem.graph.with_loops.edge_index
    return _layer(problem, edges, add_self_loops=False, conv=GATv2Conv)
