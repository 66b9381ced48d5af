"""gatv2_attention: as gat_attention, with scores that see both ends of an edge at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnnkern import _native
from gnnkern._cpu.gatv2_attention import gatv2_backward, gatv2_forward
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
from gnnkern.reference.gatv2_attention import gatv2_attention_reference

__all__ = ["gatv2_attention"]


def gatv2_attention_cpu(csr: Csr, *tensors_and_options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The fused C++ forward: the result, the log-sum-exp of every row, the unrounded result."""
    return gatv2_forward(csr, *tensors_and_options)


def gatv2_attention_triton(csr: Csr, *tensors_and_options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The fused Triton forward, likewise."""
    from gnnkern._triton.gatv2_attention import gatv2_forward

    return gatv2_forward(csr, *tensors_and_options)


def gatv2_attention_cuda(csr: Csr, *tensors_and_options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The fused forward in CUDA, likewise."""
    from gnnkern._cuda.gatv2_attention import gatv2_forward

    return gatv2_forward(csr, *tensors_and_options)


IMPLEMENTATIONS = (
    Implementation("cpu", gatv2_attention_cpu, cpu_unsupported),
    Implementation("triton", gatv2_attention_triton, triton_unsupported),
    Implementation("cuda", gatv2_attention_cuda, cuda_unsupported),
    Implementation("reference", gatv2_attention_reference, reference_unsupported),
)

# -- torch operators -------------------------------------------------------------------------------

_LAUNCH = {
    "cpu": gatv2_attention_cpu,
    "triton": gatv2_attention_triton,
    "cuda": gatv2_attention_cuda,
}


def _gatv2_attention(
    indptr: Tensor,  # [num_dst + 1]
    indices: Tensor,  # [E]
    edge_id: Tensor | None,  # [E]
    plan: Tensor,
    x_src: Tensor,  # [num_src, H, D]
    x_dst: Tensor,  # [num_dst, H, D]
    att: Tensor,  # [H, D]
    edge_x: Tensor | None,  # [E, H, D]
    seed: Tensor | None,  # int64 [1]
    negative_slope: float,
    dropout: float,
    save: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    csr = Csr(indptr, indices, edge_id, plan)
    return _LAUNCH[backend](csr, x_src, x_dst, att, edge_x, negative_slope, dropout, seed, save)


def _gatv2_attention_fake(
    indptr: Tensor,
    indices: Tensor,
    edge_id: Tensor | None,
    plan: Tensor,
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    edge_x: Tensor | None,
    seed: Tensor | None,
    negative_slope: float,
    dropout: float,
    save: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    wide = _native.accumulate_dtype(x_dst.dtype)
    keeps_wide = save and wide != x_dst.dtype
    return (
        x_dst.new_empty(x_dst.shape),
        x_dst.new_empty(x_dst.shape[:2], dtype=wide),
        x_dst.new_empty(x_dst.shape if keeps_wide else (0,), dtype=wide),
    )


_gatv2_attention_op = define(
    "gatv2_attention",
    "(Tensor indptr, Tensor indices, Tensor? edge_id, Tensor plan, Tensor x_src, Tensor x_dst,"
    " Tensor att, Tensor? edge_x, Tensor? seed, float negative_slope, float dropout, bool save,"
    " str backend) -> (Tensor, Tensor, Tensor)",
    _gatv2_attention,
    _gatv2_attention_fake,
)


def _backward_triton(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from gnnkern._triton.gatv2_attention import gatv2_backward

    return gatv2_backward(*arguments)


def _backward_cuda(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from gnnkern._cuda.gatv2_attention import gatv2_backward

    return gatv2_backward(*arguments)


_LAUNCH_BACKWARD: dict[str, Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]] = {
    "cpu": gatv2_backward,
    "triton": _backward_triton,
    "cuda": _backward_cuda,
}


def _gatv2_attention_backward(
    arrays: list[Tensor],
    edge_id: Tensor | None,
    rev_edge_id: Tensor | None,
    x_src: Tensor,  # [num_src, H, D]
    x_dst: Tensor,  # [num_dst, H, D]
    att: Tensor,  # [H, D]
    edge_x: Tensor | None,  # [E, H, D]
    seed: Tensor | None,
    out: Tensor,  # [num_dst, H, D] in accumulation precision
    log_sum_exp: Tensor,  # [num_dst, H]
    grad: Tensor,  # [num_dst, H, D]
    negative_slope: float,
    dropout: float,
    need_x_src: bool,
    need_edge_x: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    indptr, indices, plan, rev_indptr, rev_indices, rev_plan = arrays
    return _LAUNCH_BACKWARD[backend](
        Csr(indptr, indices, edge_id, plan),
        Csr(rev_indptr, rev_indices, rev_edge_id, rev_plan),
        x_src,
        x_dst,
        att,
        edge_x,
        negative_slope,
        dropout,
        seed,
        out,
        log_sum_exp,
        grad,
        need_x_src,
        need_edge_x,
    )


def _gatv2_attention_backward_fake(
    arrays: list[Tensor],
    edge_id: Tensor | None,
    rev_edge_id: Tensor | None,
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    edge_x: Tensor | None,
    seed: Tensor | None,
    out: Tensor,
    log_sum_exp: Tensor,
    grad: Tensor,
    negative_slope: float,
    dropout: float,
    need_x_src: bool,
    need_edge_x: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        x_src.new_empty(x_src.shape if need_x_src else (0,)),
        x_dst.new_empty(x_dst.shape),
        att.new_empty(att.shape),
        x_src.new_empty((arrays[1].shape[0], *att.shape) if need_edge_x else (0,)),
    )


_gatv2_attention_backward_op = define(
    "gatv2_attention_backward",
    "(Tensor[] arrays, Tensor? edge_id, Tensor? rev_edge_id, Tensor x_src, Tensor x_dst,"
    " Tensor att, Tensor? edge_x, Tensor? seed, Tensor out, Tensor log_sum_exp, Tensor grad,"
    " float negative_slope, float dropout, bool need_x_src, bool need_edge_x, str backend)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    _gatv2_attention_backward,
    _gatv2_attention_backward_fake,
)

# -- gradient --------------------------------------------------------------------------------------


class _Gatv2Attention(torch.autograd.Function):
    """Two gathers: of x_src for the scores' gradients, of the output's gradient for that of x_src.

    Behind the score, every gradient is the score's gradient times att times the activation's slope.
    """

    @staticmethod
    def forward(
        ctx: Any,
        fwd: Csr,
        rev: Csr,
        x_src: Tensor,
        x_dst: Tensor,
        att: Tensor,
        edge_x: Tensor | None,
        seed: Tensor | None,
        negative_slope: float,
        dropout: float,
        backend: str,
    ) -> Tensor:
        tensors = (x_src, x_dst, att, edge_x, seed)
        out, log_sum_exp, wide_out = _gatv2_attention_op(
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
        x_src, x_dst, att, edge_x, seed, out, log_sum_exp = saved[8:]
        needed = ctx.needs_input_grad[2:6]
        grads = _gatv2_attention_backward_op(
            [fwd.indptr, fwd.indices, fwd.plan, rev.indptr, rev.indices, rev.plan],
            fwd.edge_id,
            rev.edge_id,
            x_src,
            x_dst,
            att,
            edge_x,
            seed,
            out.detach(),
            log_sum_exp,
            grad,
            ctx.negative_slope,
            ctx.dropout,
            needed[0],
            edge_x is not None and needed[3],
            ctx.backend,
        )
        grads = first_derivative_only(
            "gatv2_attention",
            tuple(g if need else None for g, need in zip(grads, needed, strict=True)),
            (grad, x_src, x_dst, att, edge_x),
        )
        return None, None, *grads, None, None, None, None


# -- public ----------------------------------------------------------------------------------------


def gatv2_attention(
    g: Graph,
    x_src: Tensor,  # [num_src, H, D]
    x_dst: Tensor,  # [num_dst, H, D]
    att: Tensor,  # [H, D]
    *,
    edge_x: Tensor | None = None,  # [E, H, D]
    negative_slope: float = 0.2,
    dropout: float = 0.0,
    backend: str | None = None,
) -> Tensor:
    """Sum the in-neighbours of each node by attention: the core of a GATv2 layer, fused.

    For every edge e = (u, v) and head, the score is the dot product of `att` and the leaky ReLU of
    `x_src[u] + x_dst[v] + edge_x[e]`; alpha is its softmax over the edges into v; the result is the
    sum of `alpha[e] * x_src[u]`.

    Args:
        g: The graph.
        x_src: [num_src, H, D] features of sources, H heads of width D.
        x_dst: [num_dst, H, D] features of destinations.
        att: [H, D] what the activated sum is multiplied by.
        edge_x: None or [E, H, D] features of edges, in the caller's edge order.
        negative_slope: Slope of the leaky ReLU below 0.
        dropout: Probability, in [0, 1), with which an alpha is set to 0; the others are divided
            by 1 - dropout. The mask depends on a seed drawn from torch's generator and on the
            caller's edge position alone, so every backend drops the same edges.
        backend: Where to run; by default the fastest that can.

    Returns:
        [num_dst, H, D]. A node without edges gets 0.

    Numerics: scores, softmax and sums in float32 for halves, rounded once. Bitwise repeatable for
    a given state of torch's generator.

    Gradients: of x_src, x_dst, att and edge_x, once.

    Cost: forward one gather of E rows of x_src; backward one gather of E rows of x_src and, for the
    gradient of x_src, one of E rows of the output's gradient, with 2 E x H floats and E x H x D
    bits between them. Nothing else of size E x H x D is made, but for the gradient of edge_x; on a
    GPU the gradient of att is summed from up to num_dst x H x D floats.

    Raises:
        TypeError: an argument is no tensor, not floating, or the dtypes differ.
        ValueError: a shape, device or option is wrong.
        BackendUnavailable: `backend` cannot run this call.

    Source: Brody et al., "How attentive are graph attention networks?", 2022.
    """
    check_graph("gatv2_attention", g)
    x_src, x_dst, att, edge_x = cast_for_autocast(x_src, x_dst, att, edge_x)
    check_floats("gatv2_attention", g.device, x_src=x_src, x_dst=x_dst, att=att, edge_x=edge_x)
    check_rows("gatv2_attention", "x_src", x_src, "num_src", g.num_src, ("H, D",))
    sizes = {"H": x_src.shape[1], "D": x_src.shape[2]}
    check_shape("gatv2_attention", "x_dst", x_dst, num_dst=g.num_dst, **sizes)
    check_shape("gatv2_attention", "att", att, **sizes)
    if edge_x is not None:
        check_shape("gatv2_attention", "edge_x", edge_x, E=g.num_edges, **sizes)
    check_number("gatv2_attention", "negative_slope", negative_slope)
    check_probability("gatv2_attention", "dropout", dropout)
    seed = draw_seed(x_src.device) if dropout > 0 else None
    implementation = choose("gatv2_attention", IMPLEMENTATIONS, query_of(x_src), backend)
    tensors = (x_src, x_dst, att, edge_x)
    if implementation.backend == "reference":
        return gatv2_attention_reference(g, *tensors, negative_slope, dropout, seed)
    name = implementation.backend
    if not needs_gradient(*tensors):
        options = (negative_slope, dropout, False, name)
        out: Tensor = _gatv2_attention_op(*g.csr, *tensors, seed, *options)[0]
        return out
    out = _Gatv2Attention.apply(
        g.csr, g.reverse_csr(), *tensors, seed, float(negative_slope), float(dropout), name
    )
    return out
