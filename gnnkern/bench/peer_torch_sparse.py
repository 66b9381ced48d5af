"""torch_sparse: `SparseTensor` by destination, its reverse cached."""

from __future__ import annotations

from torch import Tensor
from torch_sparse import SparseTensor

from gnnkern.bench.graphs import BenchGraph
from gnnkern.bench.problems import Problem
from gnnkern.bench.runners import Runner, sorted_inputs


def _matrix(graph: BenchGraph) -> SparseTensor:
    """The edges without values, with what the gradients of every reduction read."""
    size = (graph.num_nodes, graph.num_nodes)
    matrix = SparseTensor(
        rowptr=graph.indptr,
        col=graph.sorted_src,
        sparse_sizes=size,
        is_sorted=True,
        trust_data=True,
    )
    return matrix.fill_cache_()


def spmm(problem: Problem) -> Runner:
    matrix, reduce = _matrix(problem.graph), problem.reduce

    def call(x: Tensor, weight: Tensor | None = None) -> Tensor:
        edges = matrix if weight is None else matrix.set_value(weight, layout="csr")
        out: Tensor = edges.matmul(x, reduce=reduce)
        return out

    return Runner(call, sorted_inputs(problem), by_row=True)
