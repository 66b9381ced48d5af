"""dot_attention: every node sums its in-neighbours by dot products of queries and keys, fused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnnkern import _native
from gnnkern._cpu.dot_attention import dot_backward, dot_backward_query, dot_forward
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
from gnnkern.reference.dot_attention import dot_attention_reference

__all__ = ["dot_attention"]

_FiveTensors = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def dot_attention_cpu(csr: Csr, *tensors_and_options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The fused C++ forward: the result, the log-sum-exp of every row, the unrounded result."""
    return dot_forward(csr, *tensors_and_options)


def dot_attention_triton(csr: Csr, *tensors_and_options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The fused Triton forward, likewise."""
    from gnnkern._triton.dot_attention import dot_forward

    return dot_forward(csr, *tensors_and_options)


def dot_attention_cuda(csr: Csr, *tensors_and_options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The fused forward in CUDA, likewise."""
    from gnnkern._cuda.dot_attention import dot_forward

    return dot_forward(csr, *tensors_and_options)


IMPLEMENTATIONS = (
    Implementation("cpu", dot_attention_cpu, cpu_unsupported),
    Implementation("triton", dot_attention_triton, triton_unsupported),
    Implementation("cuda", dot_attention_cuda, cuda_unsupported),
    Implementation("reference", dot_attention_reference, reference_unsupported),
)

# -- torch operators -------------------------------------------------------------------------------

_LAUNCH = {
    "cpu": dot_attention_cpu,
    "triton": dot_attention_triton,
    "cuda": dot_attention_cuda,
}


def _dot_attention(
    indptr: Tensor,  # [num_dst + 1]
    indices: Tensor,  # [E]
    edge_id: Tensor | None,  # [E]
    plan: Tensor,
    query: Tensor,  # [num_dst, H, D]
    key: Tensor,  # [num_src, H, D]
    value: Tensor,  # [num_src, H, D]
    edge_bias: Tensor | None,  # [E, H]
    edge_x: Tensor | None,  # [E, H, D]
    seed: Tensor | None,  # int64 [1]
    scale: float,
    dropout: float,
    save: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    csr = Csr(indptr, indices, edge_id, plan)
    return _LAUNCH[backend](csr, query, key, value, edge_bias, edge_x, scale, dropout, seed, save)


def _dot_attention_fake(
    indptr: Tensor,
    indices: Tensor,
    edge_id: Tensor | None,
    plan: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    edge_bias: Tensor | None,
    edge_x: Tensor | None,
    seed: Tensor | None,
    scale: float,
    dropout: float,
    save: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    wide = _native.accumulate_dtype(query.dtype)
    keeps_wide = save and wide != query.dtype
    return (
        query.new_empty(query.shape),
        query.new_empty(query.shape[:2], dtype=wide),
        query.new_empty(query.shape if keeps_wide else (0,), dtype=wide),
    )


_dot_attention_op = define(
    "dot_attention",
    "(Tensor indptr, Tensor indices, Tensor? edge_id, Tensor plan, Tensor query, Tensor key,"
    " Tensor value, Tensor? edge_bias, Tensor? edge_x, Tensor? seed, float scale, float dropout,"
    " bool save, str backend) -> (Tensor, Tensor, Tensor)",
    _dot_attention,
    _dot_attention_fake,
)


def _backward_cpu(
    fwd: Csr,
    rev: Csr,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    edge_bias: Tensor | None,
    edge_x: Tensor | None,
    seed: Tensor | None,
    out: Tensor,
    log_sum_exp: Tensor,
    grad: Tensor,
    scale: float,
    dropout: float,
    need: list[bool],
) -> _FiveTensors:
    need_query, need_edge_bias, need_edge_x = need
    grad_key, grad_value, grad_score, grad_edge_x = dot_backward(
        rev,
        query,
        key,
        value,
        edge_bias,
        edge_x,
        scale,
        dropout,
        seed,
        out,
        log_sum_exp,
        grad,
        need_edge_x,
    )
    grad_query, grad_edge_bias = query.new_empty(0), query.new_empty(0)
    if need_query:
        grad_query = dot_backward_query(fwd, key, edge_x, grad_score, scale)
    if need_edge_bias:
        grad_edge_bias = grad_score.to(query.dtype)
    return grad_query, grad_key, grad_value, grad_edge_bias, grad_edge_x


def _backward_triton(*arguments: Any) -> _FiveTensors:
    from gnnkern._triton.dot_attention import dot_backward

    return dot_backward(*arguments)


def _backward_cuda(*arguments: Any) -> _FiveTensors:
    from gnnkern._cuda.dot_attention import dot_backward

    return dot_backward(*arguments)


_LAUNCH_BACKWARD: dict[str, Callable[..., _FiveTensors]] = {
    "cpu": _backward_cpu,
    "triton": _backward_triton,
    "cuda": _backward_cuda,
}


def _dot_attention_backward(
    arrays: list[Tensor],
    edge_id: Tensor | None,
    rev_edge_id: Tensor | None,
    query: Tensor,  # [num_dst, H, D]
    key: Tensor,  # [num_src, H, D]
    value: Tensor,  # [num_src, H, D]
    edge_bias: Tensor | None,  # [E, H]
    edge_x: Tensor | None,  # [E, H, D]
    seed: Tensor | None,
    out: Tensor,  # [num_dst, H, D] in accumulation precision
    log_sum_exp: Tensor,  # [num_dst, H]
    grad: Tensor,  # [num_dst, H, D]
    scale: float,
    dropout: float,
    need: list[bool],  # of query, edge_bias, edge_x
    backend: str,
) -> _FiveTensors:
    indptr, indices, plan, rev_indptr, rev_indices, rev_plan = arrays
    return _LAUNCH_BACKWARD[backend](
        Csr(indptr, indices, edge_id, plan),
        Csr(rev_indptr, rev_indices, rev_edge_id, rev_plan),
        query,
        key,
        value,
        edge_bias,
        edge_x,
        seed,
        out,
        log_sum_exp,
        grad,
        scale,
        dropout,
        need,
    )


def _dot_attention_backward_fake(
    arrays: list[Tensor],
    edge_id: Tensor | None,
    rev_edge_id: Tensor | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    edge_bias: Tensor | None,
    edge_x: Tensor | None,
    seed: Tensor | None,
    out: Tensor,
    log_sum_exp: Tensor,
    grad: Tensor,
    scale: float,
    dropout: float,
    need: list[bool],
    backend: str,
) -> _FiveTensors:
    need_query, need_edge_bias, need_edge_x = need
    edges, (heads, head_width) = arrays[1].shape[0], query.shape[1:]
    return (
        query.new_empty(query.shape if need_query else (0,)),
        key.new_empty(key.shape),
        value.new_empty(value.shape),
        query.new_empty((edges, heads) if need_edge_bias else (0,)),
        query.new_empty((edges, heads, head_width) if need_edge_x else (0,)),
    )


_dot_attention_backward_op = define(
    "dot_attention_backward",
    "(Tensor[] arrays, Tensor? edge_id, Tensor? rev_edge_id, Tensor query, Tensor key,"
    " Tensor value, Tensor? edge_bias, Tensor? edge_x, Tensor? seed, Tensor out,"
    " Tensor log_sum_exp, Tensor grad, float scale, float dropout, bool[] need, str backend)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _dot_attention_backward,
    _dot_attention_backward_fake,
)

# -- gradient --------------------------------------------------------------------------------------


class _DotAttention(torch.autograd.Function):
    """From the sources, queries and the output's gradient give all but one gradient.

    The query's is the sum of the keys, weighted by the gradient of the scores that is left behind.
    """

    @staticmethod
    def forward(
        ctx: Any,
        fwd: Csr,
        rev: Csr,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        edge_bias: Tensor | None,
        edge_x: Tensor | None,
        seed: Tensor | None,
        scale: float,
        dropout: float,
        backend: str,
    ) -> Tensor:
        tensors = (query, key, value, edge_bias, edge_x, seed)
        out, log_sum_exp, wide_out = _dot_attention_op(
            *fwd, *tensors, scale, dropout, True, backend
        )
        kept = wide_out if wide_out.dtype != out.dtype else out
        ctx.save_for_backward(*fwd, *rev, *tensors, kept, log_sum_exp)
        ctx.scale = scale
        ctx.dropout = dropout
        ctx.backend = backend
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        saved = ctx.saved_tensors
        fwd, rev = Csr(*saved[:4]), Csr(*saved[4:8])
        query, key, value, edge_bias, edge_x, seed, out, log_sum_exp = saved[8:]
        needed = ctx.needs_input_grad[2:7]
        grads = _dot_attention_backward_op(
            [fwd.indptr, fwd.indices, fwd.plan, rev.indptr, rev.indices, rev.plan],
            fwd.edge_id,
            rev.edge_id,
            query,
            key,
            value,
            edge_bias,
            edge_x,
            seed,
            out.detach(),
            log_sum_exp,
            grad,
            ctx.scale,
            ctx.dropout,
            [needed[0], edge_bias is not None and needed[3], edge_x is not None and needed[4]],
            ctx.backend,
        )
        grads = first_derivative_only(
            "dot_attention",
            tuple(g if need else None for g, need in zip(grads, needed, strict=True)),
            (grad, query, key, value, edge_bias, edge_x),
        )
        return None, None, *grads, None, None, None, None


# -- public ----------------------------------------------------------------------------------------


def dot_attention(
    g: Graph,
    query: Tensor,  # [num_dst, H, D]
    key: Tensor,  # [num_src, H, D]
    value: Tensor,  # [num_src, H, D]
    *,
    edge_bias: Tensor | None = None,  # [E, H]
    edge_x: Tensor | None = None,  # [E, H, D]
    scale: float | None = None,
    dropout: float = 0.0,
    backend: str | None = None,
) -> Tensor:
    """Sum the in-neighbours of each node by scaled dot-product attention: a graph transformer.

    For every edge e = (u, v) and head, the score is
    `scale * <query[v], key[u] + edge_x[e]> + edge_bias[e]`; alpha is its softmax over the edges
    into v; the result is the sum of `alpha[e] * (value[u] + edge_x[e])`.

    Args:
        g: The graph.
        query: [num_dst, H, D], what destinations look for: H heads of width D.
        key: [num_src, H, D], what sources are found by.
        value: [num_src, H, D], what sources give.
        edge_bias: None or [E, H], added to the scores, in the caller's edge order; -inf leaves an
            edge out.
        edge_x: None or [E, H, D], added to the key and the value of the edge's source, in the
            caller's edge order.
        scale: What dot products are multiplied by; None: 1 / sqrt(D).
        dropout: Probability, in [0, 1), with which an alpha is set to 0; the others are divided
            by 1 - dropout. The mask depends on a seed drawn from torch's generator and on the
            caller's edge position alone, so every backend drops the same edges.
        backend: Where to run; by default the fastest that can.

    Returns:
        [num_dst, H, D]. A node without edges gets 0.

    Numerics: scores, softmax and sums in float32 for halves, rounded once. Bitwise repeatable for
    a given state of torch's generator.

    Gradients: of query, key, value, edge_bias and edge_x, once.

    Cost: forward two gathers of E rows, of key and value; backward three, of query, of the output's
    gradient and of key, and E x H floats for the scores' gradient. Beside edge_x and its gradient,
    which are read or written once each way (edge_x twice forward), nothing of size E x H x D is
    made.

    Raises:
        TypeError: an argument is no tensor, not floating, or the dtypes differ.
        ValueError: a shape, device or option is wrong.
        BackendUnavailable: `backend` cannot run this call.

    Source: Vaswani et al., "Attention is all you need", 2017; Shi et al., "Masked label
    prediction: unified message passing model for semi-supervised classification", 2021.
    """
    check_graph("dot_attention", g)
    query, key, value, edge_bias, edge_x = cast_for_autocast(query, key, value, edge_bias, edge_x)
    check_floats(
        "dot_attention",
        g.device,
        query=query,
        key=key,
        value=value,
        edge_bias=edge_bias,
        edge_x=edge_x,
    )
    check_rows("dot_attention", "query", query, "num_dst", g.num_dst, ("H, D",))
    heads, head_width = query.shape[1:]
    per_source = {"num_src": g.num_src, "H": heads, "D": head_width}
    check_shape("dot_attention", "key", key, **per_source)
    check_shape("dot_attention", "value", value, **per_source)
    if edge_bias is not None:
        check_shape("dot_attention", "edge_bias", edge_bias, E=g.num_edges, H=heads)
    if edge_x is not None:
        check_shape("dot_attention", "edge_x", edge_x, E=g.num_edges, H=heads, D=head_width)
    if scale is None:
        scale = max(head_width, 1) ** -0.5
    check_number("dot_attention", "scale", scale)
    check_probability("dot_attention", "dropout", dropout)
    seed = draw_seed(query.device) if dropout > 0 else None
    implementation = choose("dot_attention", IMPLEMENTATIONS, query_of(query), backend)
    tensors = (query, key, value, edge_bias, edge_x)
    if implementation.backend == "reference":
        return dot_attention_reference(g, *tensors, scale, dropout, seed)
    name = implementation.backend
    if not needs_gradient(*tensors):
        out: Tensor = _dot_attention_op(*g.csr, *tensors, seed, scale, dropout, False, name)[0]
        return out
    out = _DotAttention.apply(
        g.csr, g.reverse_csr(), *tensors, seed, float(scale), float(dropout), name
    )
    return out
