"""gat_attention: every node sums its in-neighbours by learned weights, scores and sum in one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnnkern import _native
from gnnkern._cpu.gat_attention import gat_backward, gat_forward
from gnnkern._cpu.row_reduce import reduce_segments, row_reduce
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
from gnnkern.ops._checks import (
    check_floats,
    check_graph,
    check_number,
    check_probability,
    check_rows,
    check_shape,
    query_of,
)
from gnnkern.ops._operator import (
    cast_for_autocast,
    define,
    draw_seed,
    first_derivative_only,
    needs_gradient,
)
from gnnkern.reference.gat_attention import gat_attention_reference

__all__ = ["gat_attention"]


def gat_attention_cpu(csr: Csr, *tensors_and_options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The fused C++ forward: the result, the log-sum-exp of every row, the unrounded result."""
    return gat_forward(csr, *tensors_and_options)


def gat_attention_triton(csr: Csr, *tensors_and_options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The fused Triton forward, likewise."""
    from gnnkern._triton.gat_attention import gat_forward

    return gat_forward(csr, *tensors_and_options)


def gat_attention_cuda(csr: Csr, *tensors_and_options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The fused forward in CUDA, likewise."""
    from gnnkern._cuda.gat_attention import gat_forward

    return gat_forward(csr, *tensors_and_options)


IMPLEMENTATIONS = (
    Implementation("cpu", gat_attention_cpu, cpu_unsupported),
    Implementation("triton", gat_attention_triton, triton_unsupported),
    Implementation("cuda", gat_attention_cuda, cuda_unsupported),
    Implementation("reference", gat_attention_reference, reference_unsupported),
)

# -- torch operators -------------------------------------------------------------------------------

_LAUNCH = {
    "cpu": gat_attention_cpu,
    "triton": gat_attention_triton,
    "cuda": gat_attention_cuda,
}


def _gat_attention(
    indptr: Tensor,  # [num_dst + 1]
    indices: Tensor,  # [E]
    edge_id: Tensor | None,  # [E]
    plan: Tensor,
    x: Tensor,  # [num_src, H, D]
    score_src: Tensor,  # [num_src, H]
    score_dst: Tensor,  # [num_dst, H]
    edge_score: Tensor | None,  # [E, H]
    seed: Tensor | None,  # int64 [1]
    negative_slope: float,
    dropout: float,
    save: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    csr = Csr(indptr, indices, edge_id, plan)
    return _LAUNCH[backend](
        csr, x, score_src, score_dst, edge_score, negative_slope, dropout, seed, save
    )


def _gat_attention_fake(
    indptr: Tensor,
    indices: Tensor,
    edge_id: Tensor | None,
    plan: Tensor,
    x: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    edge_score: Tensor | None,
    seed: Tensor | None,
    negative_slope: float,
    dropout: float,
    save: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    wide = _native.accumulate_dtype(x.dtype)
    shape = (indptr.shape[0] - 1, *x.shape[1:])
    keeps_wide = save and wide != x.dtype
    return (
        x.new_empty(shape),
        x.new_empty(shape[:2], dtype=wide),
        x.new_empty(shape if keeps_wide else (0,), dtype=wide),
    )


_gat_attention_op = define(
    "gat_attention",
    "(Tensor indptr, Tensor indices, Tensor? edge_id, Tensor plan, Tensor x, Tensor score_src,"
    " Tensor score_dst, Tensor? edge_score, Tensor? seed, float negative_slope, float dropout,"
    " bool save, str backend) -> (Tensor, Tensor, Tensor)",
    _gat_attention,
    _gat_attention_fake,
)


def _backward_cpu(
    fwd: Csr,
    rev: Csr,
    x: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    edge_score: Tensor | None,
    seed: Tensor | None,
    out: Tensor,
    log_sum_exp: Tensor,
    grad: Tensor,
    negative_slope: float,
    dropout: float,
    need_edge_score: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_x, grad_score_src, grad_score = gat_backward(
        rev,
        x,
        score_src,
        score_dst,
        edge_score,
        negative_slope,
        dropout,
        seed,
        out,
        log_sum_exp,
        grad,
    )
    if fwd.edge_id is None:
        grad_score_dst, _ = reduce_segments(fwd.indptr, grad_score, "sum")
    else:
        by_edge = Csr(fwd.indptr, fwd.edge_id, None, fwd.plan)
        grad_score_dst, _ = row_reduce(by_edge, grad_score, None, "sum")
    grad_edge = grad_score.to(x.dtype) if need_edge_score else x.new_empty(0)
    return grad_x, grad_score_src, grad_score_dst.to(x.dtype), grad_edge


def _backward_triton(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from gnnkern._triton.gat_attention import gat_backward

    return gat_backward(*arguments)


def _backward_cuda(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from gnnkern._cuda.gat_attention import gat_backward

    return gat_backward(*arguments)


_LAUNCH_BACKWARD: dict[str, Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]] = {
    "cpu": _backward_cpu,
    "triton": _backward_triton,
    "cuda": _backward_cuda,
}


def _gat_attention_backward(
    arrays: list[Tensor],
    edge_id: Tensor | None,
    rev_edge_id: Tensor | None,
    x: Tensor,  # [num_src, H, D]
    score_src: Tensor,  # [num_src, H]
    score_dst: Tensor,  # [num_dst, H]
    edge_score: Tensor | None,  # [E, H]
    seed: Tensor | None,
    out: Tensor,  # [num_dst, H, D] in accumulation precision
    log_sum_exp: Tensor,  # [num_dst, H]
    grad: Tensor,  # [num_dst, H, D]
    negative_slope: float,
    dropout: float,
    need_edge_score: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    indptr, indices, plan, rev_indptr, rev_indices, rev_plan = arrays
    return _LAUNCH_BACKWARD[backend](
        Csr(indptr, indices, edge_id, plan),
        Csr(rev_indptr, rev_indices, rev_edge_id, rev_plan),
        x,
        score_src,
        score_dst,
        edge_score,
        seed,
        out,
        log_sum_exp,
        grad,
        negative_slope,
        dropout,
        need_edge_score,
    )


def _gat_attention_backward_fake(
    arrays: list[Tensor],
    edge_id: Tensor | None,
    rev_edge_id: Tensor | None,
    x: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    edge_score: Tensor | None,
    seed: Tensor | None,
    out: Tensor,
    log_sum_exp: Tensor,
    grad: Tensor,
    negative_slope: float,
    dropout: float,
    need_edge_score: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        x.new_empty(x.shape),
        x.new_empty(score_src.shape),
        x.new_empty(score_dst.shape),
        x.new_empty((arrays[1].shape[0], x.shape[1]) if need_edge_score else (0,)),
    )


_gat_attention_backward_op = define(
    "gat_attention_backward",
    "(Tensor[] arrays, Tensor? edge_id, Tensor? rev_edge_id, Tensor x, Tensor score_src,"
    " Tensor score_dst, Tensor? edge_score, Tensor? seed, Tensor out, Tensor log_sum_exp,"
    " Tensor grad, float negative_slope, float dropout, bool need_edge_score, str backend)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    _gat_attention_backward,
    _gat_attention_backward_fake,
)

# -- gradient --------------------------------------------------------------------------------------


class _GatAttention(torch.autograd.Function):
    """One gather of the output's gradient over the reversed graph gives every gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        fwd: Csr,
        rev: Csr,
        x: Tensor,
        score_src: Tensor,
        score_dst: Tensor,
        edge_score: Tensor | None,
        seed: Tensor | None,
        negative_slope: float,
        dropout: float,
        backend: str,
    ) -> Tensor:
        tensors = (x, score_src, score_dst, edge_score, seed)
        out, log_sum_exp, wide_out = _gat_attention_op(
            *fwd, *tensors, negative_slope, dropout, True, backend
        )
        kept = wide_out if wide_out.dtype != out.dtype else out
        ctx.save_for_backward(*fwd, *rev, *tensors, kept, log_sum_exp)
        ctx.negative_slope = negative_slope
        ctx.dropout = dropout
        ctx.backend = backend
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        saved = ctx.saved_tensors
        fwd, rev = Csr(*saved[:4]), Csr(*saved[4:8])
        x, score_src, score_dst, edge_score, seed, out, log_sum_exp = saved[8:]
        grads = _gat_attention_backward_op(
            [fwd.indptr, fwd.indices, fwd.plan, rev.indptr, rev.indices, rev.plan],
            fwd.edge_id,
            rev.edge_id,
            x,
            score_src,
            score_dst,
            edge_score,
            seed,
            out.detach(),
            log_sum_exp,
            grad,
            ctx.negative_slope,
            ctx.dropout,
            edge_score is not None and ctx.needs_input_grad[5],
            ctx.backend,
        )
        needed = ctx.needs_input_grad[2:6]
        grads = first_derivative_only(
            "gat_attention",
            tuple(g if need else None for g, need in zip(grads, needed, strict=True)),
            (grad, x, score_src, score_dst, edge_score),
        )
        return None, None, *grads, None, None, None, None


# -- public ----------------------------------------------------------------------------------------


def gat_attention(
    g: Graph,
    x: Tensor,  # [num_src, H, D]
    score_src: Tensor,  # [num_src, H]
    score_dst: Tensor,  # [num_dst, H]
    *,
    edge_score: Tensor | None = None,  # [E, H]
    negative_slope: float = 0.2,
    dropout: float = 0.0,
    backend: str | None = None,
) -> Tensor:
    """Sum the in-neighbours of each node by attention: the core of a GAT layer, fused.

    For every edge e = (u, v) and head, the score is the leaky ReLU of
    `score_src[u] + score_dst[v] + edge_score[e]`; alpha is its softmax over the edges into v; the
    result is the sum of `alpha[e] * x[u]`.

    Args:
        g: The graph.
        x: [num_src, H, D] features, H heads of width D.
        score_src: [num_src, H] the source's part of the score.
        score_dst: [num_dst, H] the destination's part.
        edge_score: None or [E, H], in the caller's edge order.
        negative_slope: Slope of the leaky ReLU below 0.
        dropout: Probability, in [0, 1), with which an alpha is set to 0; the others are divided
            by 1 - dropout. The mask depends on a seed drawn from torch's generator and on the
            caller's edge position alone, so every backend drops the same edges.
        backend: Where to run; by default the fastest that can.

    Returns:
        [num_dst, H, D]. A node without edges gets 0.

    Numerics: scores, softmax and sums in float32 for halves, rounded once. Bitwise repeatable for
    a given state of torch's generator.

    Gradients: of x, score_src, score_dst and edge_score, once.

    Cost: forward one gather of E rows of x and E rows of H scores; backward one gather of E rows
    of the gradient, and E x H floats for the scores' gradient. Nothing of size E x H x D is made.

    Raises:
        TypeError: an argument is no tensor, not floating, or the dtypes differ.
        ValueError: a shape, device or option is wrong.
        BackendUnavailable: `backend` cannot run this call.

    Source: Velickovic et al., "Graph attention networks", 2018.
    """
    check_graph("gat_attention", g)
    x, score_src, score_dst, edge_score = cast_for_autocast(x, score_src, score_dst, edge_score)
    check_floats(
        "gat_attention",
        g.device,
        x=x,
        score_src=score_src,
        score_dst=score_dst,
        edge_score=edge_score,
    )
    check_rows("gat_attention", "x", x, "num_src", g.num_src, ("H, D",))
    heads = x.shape[1]
    check_shape("gat_attention", "score_src", score_src, num_src=g.num_src, H=heads)
    check_shape("gat_attention", "score_dst", score_dst, num_dst=g.num_dst, H=heads)
    if edge_score is not None:
        check_shape("gat_attention", "edge_score", edge_score, E=g.num_edges, H=heads)
    check_number("gat_attention", "negative_slope", negative_slope)
    check_probability("gat_attention", "dropout", dropout)
    seed = draw_seed(x.device) if dropout > 0 else None
    implementation = choose("gat_attention", IMPLEMENTATIONS, query_of(x), backend)
    if implementation.backend == "reference":
        return gat_attention_reference(
            g, x, score_src, score_dst, edge_score, negative_slope, dropout, seed
        )
    name = implementation.backend
    tensors = (x, score_src, score_dst, edge_score)
    if not needs_gradient(*tensors):
        options = (negative_slope, dropout, False, name)
        out: Tensor = _gat_attention_op(*g.csr, *tensors, seed, *options)[0]
        return out
    out = _GatAttention.apply(
        g.csr, g.reverse_csr(), *tensors, seed, float(negative_slope), float(dropout), name
    )
    return out
