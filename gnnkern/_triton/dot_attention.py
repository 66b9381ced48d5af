"""Launchers of dot-product attention: sources first, whose scores' gradients queries then sum."""

from __future__ import annotations

from torch import Tensor

from gnnkern._native import Csr
from gnnkern._triton.attention import Operands, attend
from gnnkern._triton.attention_backward import source_gradients
from gnnkern._triton.dropout import Dropout
from gnnkern._triton.row_reduce import row_reduce
from gnnkern._triton.score_gradient import statistics_of

__all__ = ["dot_backward", "dot_forward"]


def dot_forward(
    csr: Csr,
    query: Tensor,  # [num_dst, H, D]
    key: Tensor,  # [num_src, H, D]
    value: Tensor,  # [num_src, H, D]
    edge_bias: Tensor | None,  # [E, H]
    edge_x: Tensor | None,  # [E, H, D]
    scale: float,
    dropout: float,
    seed: Tensor | None,  # int64 [1]
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(out [num_dst, H, D], log_sum_exp [num_dst, H], wide_out), as `attend` returns them."""
    operands = Operands(query, key, value, edge_score=edge_bias, edge_x=edge_x)
    return attend(csr, "dot", operands, scale, Dropout.of(seed, dropout), save)


def dot_backward(
    fwd: Csr,
    rev: Csr,
    query: Tensor,  # [num_dst, H, D]
    key: Tensor,  # [num_src, H, D]
    value: Tensor,  # [num_src, H, D]
    edge_bias: Tensor | None,  # [E, H]
    edge_x: Tensor | None,  # [E, H, D]
    seed: Tensor | None,  # int64 [1]
    out: Tensor,  # [num_dst, H, D] in accumulation precision
    log_sum_exp: Tensor,  # [num_dst, H]
    grad: Tensor,  # [num_dst, H, D]
    scale: float,
    dropout: float,
    need: list[bool],  # of query, edge_bias, edge_x
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value, edge_bias and edge_x; empty where `need` says so."""
    need_query, need_edge_bias, need_edge_x = need
    grad = grad.contiguous()
    grads = source_gradients(
        rev,
        "dot",
        key,
        value,
        query,
        edge_bias,
        edge_x,
        scale,
        Dropout.of(seed, dropout),
        grad,
        statistics_of(out, log_sum_exp, grad),
        need_edge_bias,
        need_edge_x,
    )
    grad_query = query.new_empty(0)
    if need_query:
        grad_query, _ = row_reduce(fwd, key, grads.score, "sum", added=edge_x)
    return grad_query, grads.key, grads.value, grads.edge_score, grads.edge_x
