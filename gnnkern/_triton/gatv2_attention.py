"""Launchers of GATv2 attention, whose scores see both ends of an edge at once."""

from __future__ import annotations

from torch import Tensor

from gnnkern._native import Csr
from gnnkern._triton.attention import Operands, attend
from gnnkern._triton.dropout import Dropout
from gnnkern._triton.gatv2_backward import by_destination, by_source
from gnnkern._triton.launch import walk_of
from gnnkern._triton.score_gradient import statistics_of

__all__ = ["gatv2_backward", "gatv2_forward"]


def gatv2_forward(
    csr: Csr,
    x_src: Tensor,  # [num_src, H, D]
    x_dst: Tensor,  # [num_dst, H, D]
    att: Tensor,  # [H, D]
    edge_x: Tensor | None,  # [E, H, D]
    negative_slope: float,
    dropout: float,
    seed: Tensor | None,  # int64 [1]
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(out [num_dst, H, D], log_sum_exp [num_dst, H], wide_out), as `attend` returns them."""
    x_src = x_src.contiguous()
    operands = Operands(x_dst, x_src, x_src, att=att, edge_x=edge_x)
    return attend(csr, "gatv2", operands, negative_slope, Dropout.of(seed, dropout), save)


def gatv2_backward(
    csr: Csr,
    rev: Csr,
    x_src: Tensor,  # [num_src, H, D]
    x_dst: Tensor,  # [num_dst, H, D]
    att: Tensor,  # [H, D]
    edge_x: Tensor | None,  # [E, H, D]
    negative_slope: float,
    dropout: float,
    seed: Tensor | None,  # int64 [1]
    out: Tensor,  # [num_dst, H, D] in accumulation precision
    log_sum_exp: Tensor,  # [num_dst, H]
    grad: Tensor,  # [num_dst, H, D]
    need_x_src: bool,
    need_edge_x: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x_src, x_dst, att and edge_x; empty where a `need` is not set."""
    num_edges = csr.indices.shape[0]
    nothing = x_src.new_empty(0)
    if num_edges == 0 or grad.numel() == 0:
        edge_shape = (num_edges, *att.shape)
        return (
            x_src.new_zeros(x_src.shape) if need_x_src else nothing,
            x_dst.new_zeros(x_dst.shape),
            att.new_zeros(att.shape),
            x_src.new_zeros(edge_shape) if need_edge_x else x_src.new_empty(0),
        )
    grad, att = grad.contiguous(), att.contiguous()
    grad_x_dst, grad_att, grad_edge_x, records = by_destination(
        walk_of(csr),
        x_src.contiguous(),
        x_dst.contiguous(),
        att,
        None if edge_x is None else edge_x.contiguous(),
        negative_slope,
        Dropout.of(seed, dropout),
        grad,
        statistics_of(out, log_sum_exp, grad),
        need_x_src,
        need_edge_x,
    )
    grad_x_src = nothing
    if records is not None:
        grad_x_src = by_source(walk_of(rev), records, att, negative_slope, grad)
    if grad_edge_x is None:
        grad_edge_x = x_src.new_empty(0)
    return grad_x_src, grad_x_dst, grad_att, grad_edge_x
