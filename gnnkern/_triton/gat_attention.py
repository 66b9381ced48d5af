"""Launchers of graph attention, whose score is a sum of numbers."""

from __future__ import annotations

from torch import Tensor

from gnnkern._native import Csr
from gnnkern._triton.attention import Operands, attend
from gnnkern._triton.attention_backward import source_gradients
from gnnkern._triton.dropout import Dropout
from gnnkern._triton.row_reduce import sum_edges
from gnnkern._triton.score_gradient import statistics_of

__all__ = ["gat_backward", "gat_forward"]


def gat_forward(
    csr: Csr,
    x: Tensor,  # [num_src, H, D]
    score_src: Tensor,  # [num_src, H]
    score_dst: Tensor,  # [num_dst, H]
    edge_score: Tensor | None,  # [E, H]
    negative_slope: float,
    dropout: float,
    seed: Tensor | None,  # int64 [1]
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(out [num_dst, H, D], log_sum_exp [num_dst, H], wide_out), as `attend` returns them."""
    operands = Operands(score_dst, score_src, x, edge_score=edge_score)
    return attend(csr, "gat", operands, negative_slope, Dropout.of(seed, dropout), save)


def gat_backward(
    fwd: Csr,
    rev: Csr,
    x: Tensor,  # [num_src, H, D]
    score_src: Tensor,  # [num_src, H]
    score_dst: Tensor,  # [num_dst, H]
    edge_score: Tensor | None,  # [E, H]
    seed: Tensor | None,  # int64 [1]
    out: Tensor,  # [num_dst, H, D] in accumulation precision
    log_sum_exp: Tensor,  # [num_dst, H]
    grad: Tensor,  # [num_dst, H, D]
    negative_slope: float,
    dropout: float,
    need_edge_score: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, score_src, score_dst and edge_score, the last empty if it is not needed."""
    grad = grad.contiguous()
    grads = source_gradients(
        rev,
        "gat",
        score_src,
        x,
        None,
        edge_score,
        None,
        negative_slope,
        Dropout.of(seed, dropout),
        grad,
        statistics_of(out, log_sum_exp, grad, score_dst.contiguous()),
        need_edge_score,
        False,
    )
    grad_score_dst = sum_edges(fwd, grads.score).to(x.dtype)
    return grads.value, grads.key, grad_score_dst, grads.edge_score
