"""edge_softmax: scores become weights that sum to 1 over the edges into each node."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gnnkern._cpu.segment_softmax import softmax_rows
from gnnkern._native import Csr
from gnnkern.backends import (
    Implementation,
    choose,
    cpu_unsupported,
    cuda_unsupported,
    reference_unsupported,
    triton_unsupported,
)
from gnnkern.graph import Graph
from gnnkern.ops._checks import check_floats, check_graph, check_rows, query_of
from gnnkern.ops._operator import (
    cast_for_autocast,
    define,
    first_derivative_only,
    needs_gradient,
)
from gnnkern.ops._placement import placed
from gnnkern.reference.edge_softmax import edge_softmax_reference

__all__ = ["edge_softmax"]


def edge_softmax_cpu(csr: Csr, score: Tensor, num_src: int, grad: Tensor | None = None) -> Tensor:
    """The C++ segment softmax, or its gradient where `grad` is given."""
    return softmax_rows(csr, score, num_src, grad)


def edge_softmax_triton(
    csr: Csr, score: Tensor, num_src: int, grad: Tensor | None = None
) -> Tensor:
    """The Triton segment softmax, or its gradient where `grad` is given."""
    from gnnkern._triton.segment_softmax import softmax_rows

    return softmax_rows(csr, score, grad)


def edge_softmax_cuda(csr: Csr, score: Tensor, num_src: int, grad: Tensor | None = None) -> Tensor:
    """The CUDA segment softmax, or its gradient where `grad` is given."""
    from gnnkern._cuda.segment_softmax import softmax_rows

    return softmax_rows(csr, score, grad)


IMPLEMENTATIONS = (
    Implementation("cpu", edge_softmax_cpu, cpu_unsupported),
    Implementation("triton", edge_softmax_triton, triton_unsupported),
    Implementation("cuda", edge_softmax_cuda, cuda_unsupported),
    Implementation("reference", edge_softmax_reference, reference_unsupported),
)

# -- torch operator --------------------------------------------------------------------------------

_LAUNCH = {"cpu": edge_softmax_cpu, "triton": edge_softmax_triton, "cuda": edge_softmax_cuda}


def _edge_softmax(
    indptr: Tensor,  # [num_dst + 1]
    indices: Tensor,  # [E]
    edge_id: Tensor | None,  # [E]
    plan: Tensor,
    score: Tensor,  # [E] or [E, H]
    grad: Tensor | None,
    num_src: int,
    backend: str,
) -> Tensor:
    return _LAUNCH[backend](Csr(indptr, indices, edge_id, plan), score, num_src, grad)


_edge_softmax_op = define(
    "edge_softmax",
    "(Tensor indptr, Tensor indices, Tensor? edge_id, Tensor plan, Tensor score, Tensor? grad,"
    " SymInt num_src, str backend) -> Tensor",
    _edge_softmax,
    lambda indptr, indices, edge_id, plan, score, grad, num_src, backend: score.new_empty(
        score.shape
    ),
)

# -- gradient --------------------------------------------------------------------------------------


class _EdgeSoftmax(torch.autograd.Function):
    """softmax * (grad - the sum of softmax * grad over the node's edges)."""

    @staticmethod
    def forward(ctx: Any, csr: Csr, score: Tensor, num_src: int, backend: str) -> Tensor:
        out: Tensor = _edge_softmax_op(*csr, score, None, num_src, backend)
        ctx.save_for_backward(*csr, out, score)
        ctx.num_src = num_src
        ctx.backend = backend
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        *arrays, out, score = ctx.saved_tensors
        grad_score = _edge_softmax_op(*arrays, out.detach(), grad, ctx.num_src, ctx.backend)
        (grad_score,) = first_derivative_only("edge_softmax", (grad_score,), (grad, score))
        return None, grad_score, None, None


# -- public ----------------------------------------------------------------------------------------


@placed("edge", score="edge")
def edge_softmax(
    g: Graph,
    score: Tensor,  # [E] or [E, H]
    *,
    backend: str | None = None,
) -> Tensor:
    """Softmax of edge scores over the edges into each node, per head.

    Args:
        g: The graph.
        score: [E] or [E, H] in the caller's edge order.
        backend: Where to run; by default the fastest that can.

    Returns:
        Weights of the shape and order of `score`. Edges whose node has only scores of minus
        infinity get 0.

    Numerics: the largest score is subtracted first; halves are computed in float32 and rounded
    once. NaN makes the weights of its node NaN. Bitwise repeatable. Under autocast it runs in
    float32.

    Gradients: of score, once.

    Cost: forward 2 and backward 3 times the size of `score`, one kernel each.

    Raises:
        TypeError: score is no floating tensor.
        ValueError: a shape or device is wrong.
        BackendUnavailable: `backend` cannot run this call.

    Source: Velickovic et al., "Graph attention networks", 2018.
    """
    check_graph("edge_softmax", g)
    (score,) = cast_for_autocast(score, to=torch.float32)
    check_floats("edge_softmax", g.device, score=score)
    if score.dim() != 1:
        check_rows("edge_softmax", "score", score, "E", g.num_edges, ("H",))
    elif score.shape[0] != g.num_edges:
        raise ValueError(
            f"edge_softmax: score must have shape [E={g.num_edges}] or [E={g.num_edges}, H], got "
            f"{list(score.shape)}"
        )
    implementation = choose("edge_softmax", IMPLEMENTATIONS, query_of(score), backend)
    if implementation.backend == "reference":
        return edge_softmax_reference(g, score)
    name = implementation.backend
    if not needs_gradient(score):
        out: Tensor = _edge_softmax_op(*g.csr, score, None, g.num_src, name)
    else:
        out = _EdgeSoftmax.apply(g.csr, score, g.num_src, name)
    return out
