"""cuSPARSE with cached descriptors and preprocessing: the sum and the weighted sum."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gnnkern import Graph
from gnnkern.bench.cusparse import Product, fastest
from gnnkern.bench.problems import Problem
from gnnkern.bench.runners import Runner, sorted_inputs
from gnnkern.bench.timing_cuda import DeviceClock


class _Multiply(torch.autograd.Function):
    """The gradient of a product is that with the transposed matrix, which is prepared as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, product: Product, transposed: Product) -> Tensor:
        ctx.transposed = transposed
        return product(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return ctx.transposed(grad), None, None


def _product(graph: Graph, problem: Problem) -> Product:
    """The fastest for a graph; a weight is in the caller's edge order."""
    if problem.weighted:
        weight = problem.inputs["weight"]
        values = weight if graph.edge_id is None else weight[graph.edge_id.long()]
    else:
        values = torch.ones(graph.num_edges, dtype=problem.dtype, device=problem.device)
    values = values.contiguous()
    x = values.new_ones(graph.num_src, problem.width)
    return fastest(
        lambda algorithm: Product(
            graph.indptr, graph.indices, values, graph.num_src, problem.width, algorithm
        ),
        x,
        DeviceClock(problem.device).seconds_of,
    )


def spmm(problem: Problem) -> Runner:
    graph = problem.graph.graph
    product, transposed = _product(graph, problem), _product(graph.reverse, problem)

    def call(x: Tensor, weight: Tensor | None = None) -> Tensor:
        # The weight's values are in the descriptors.
        if weight is not None and weight.requires_grad and torch.is_grad_enabled():
            raise NotImplementedError("cuSPARSE's product has no gradient of the matrix's values")
        out: Tensor = _Multiply.apply(x, product, transposed)
        return out

    return Runner(call, sorted_inputs(problem), by_row=True)
