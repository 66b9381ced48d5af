"""DGL: its sparse operators on a `DGLGraph` with every format made, and its GAT layer."""

from __future__ import annotations

from typing import Any

import dgl
import torch
from dgl.nn.pytorch import GATConv
from torch import Tensor

from gnnkern.bench.graphs import BenchGraph
from gnnkern.bench.problems import NEGATIVE_SLOPE, Problem
from gnnkern.bench.problems_messages import message_op
from gnnkern.bench.problems_typed import type_boundaries
from gnnkern.bench.runners import Attention, Runner, attention_runner, index_of


def _graph(graph: BenchGraph) -> Any:
    """Edges keep the caller's order: DGL's edge tensors are in it."""
    made = dgl.graph((graph.src, graph.dst), num_nodes=graph.num_nodes)
    made.create_formats_()
    return made


def spmm(problem: Problem) -> Runner:
    graph = _graph(problem.graph)

    def call(x: Tensor, weight: Tensor | None = None) -> Tensor:
        if weight is None:
            out: Tensor = dgl.ops.gspmm(graph, "copy_lhs", problem.reduce, x, None)
        else:
            out = dgl.ops.gspmm(graph, "mul", problem.reduce, x, weight[:, None])
        return out

    return Runner(call, problem.inputs)


def sddmm(problem: Problem) -> Runner:
    graph = _graph(problem.graph)

    def call(x_dst: Tensor, x_src: Tensor) -> Tensor:
        # [E, 1]
        out: Tensor = dgl.ops.gsddmm(graph, "dot", x_src, x_dst)
        return out.squeeze(-1)

    return Runner(call, problem.inputs)


def edge_softmax(problem: Problem) -> Runner:
    graph = _graph(problem.graph)

    def call(score: Tensor) -> Tensor:
        out: Tensor = dgl.ops.edge_softmax(graph, score)
        return out

    return Runner(call, problem.inputs)


def attention(graph: BenchGraph) -> Attention:
    edges = _graph(graph)

    def attend(h: Tensor, score_src: Tensor, score_dst: Tensor) -> Tensor:
        score = dgl.ops.gsddmm(edges, "add", score_src, score_dst)  # [E, H]
        score = torch.nn.functional.leaky_relu(score, NEGATIVE_SLOPE)
        alpha = dgl.ops.edge_softmax(edges, score)
        out: Tensor = dgl.ops.gspmm(edges, "mul", "sum", h, alpha[:, :, None])
        return out

    return attend


def gat_attention(problem: Problem) -> Runner:
    return attention_runner(problem, attention)


def gat_layer(problem: Problem) -> Runner:
    """Its layer wants self loops in the graph, and gives [N, H, D]."""
    graph = _graph(problem.graph.with_loops)
    depth = problem.width // problem.heads
    layer = GATConv(problem.width, depth, problem.heads, negative_slope=NEGATIVE_SLOPE)
    layer.to(problem.dtype)
    parameters = {
        "lin.weight": layer.fc.weight,
        "att_src": layer.attn_l,
        "att_dst": layer.attn_r,
        "bias": layer.bias,
    }
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(problem.inputs[name])

    def call(x: Tensor) -> Tensor:
        out: Tensor = layer(graph, x)
        return out.flatten(1)

    return Runner(call, {"x": problem.inputs["x"]}, parameters=parameters)


def attention_v2(graph: BenchGraph) -> Attention:
    edges = _graph(graph)

    def attend(x_src: Tensor, x_dst: Tensor, att: Tensor) -> Tensor:
        both = dgl.ops.gsddmm(edges, "add", x_src, x_dst)  # [E, H, D]
        score = (torch.nn.functional.leaky_relu(both, NEGATIVE_SLOPE) * att).sum(-1)  # [E, H]
        alpha = dgl.ops.edge_softmax(edges, score)
        out: Tensor = dgl.ops.gspmm(edges, "mul", "sum", x_src, alpha[:, :, None])
        return out

    return attend


def gatv2_attention(problem: Problem) -> Runner:
    return attention_runner(problem, attention_v2)


def segment_reduce(problem: Problem) -> Runner:
    lengths, reduce = problem.graph.indptr.diff(), problem.reduce

    def call(x: Tensor) -> Tensor:
        out: Tensor = dgl.ops.segment_reduce(lengths, x, reducer=reduce)
        return out

    return Runner(call, problem.inputs)


def messages(problem: Problem) -> Runner:
    graph = _graph(problem.graph)
    op, reduce = message_op(problem), problem.reduce

    def call(*inputs: Tensor) -> Tensor:
        if op is None:
            out: Tensor = dgl.ops.gspmm(graph, "copy_rhs", reduce, None, *inputs)
        else:
            out = dgl.ops.gspmm(graph, op, reduce, *inputs)
        return out

    return Runner(call, problem.inputs)


def on_edges(problem: Problem) -> Runner:
    graph, op = _graph(problem.graph), problem.reduce

    def call(x_dst: Tensor, x_src: Tensor) -> Tensor:
        out: Tensor = dgl.ops.gsddmm(graph, op, x_src, x_dst)
        return out if op == "add" else out.squeeze(-1)

    return Runner(call, problem.inputs)


def segment_matmul(problem: Problem) -> Runner:
    lengths = type_boundaries(problem).diff()

    def call(x: Tensor, weight: Tensor) -> Tensor:
        out: Tensor = dgl.ops.segment_mm(x, weight, lengths)
        return out

    return Runner(call, problem.inputs)


def gather_matmul(problem: Problem) -> Runner:
    types = index_of(problem)

    def call(x: Tensor, weight: Tensor) -> Tensor:
        out: Tensor = dgl.ops.gather_mm(x, weight, idx_b=types)
        return out

    return Runner(call, problem.inputs)
