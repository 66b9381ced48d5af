"""What the attention ops ask of a backend for GPUs, by Triton's kernels."""

from __future__ import annotations

from torch import Tensor

from gnnkern._attention_loops import AttentionLoops, Gatv2Gradients, Walked
from gnnkern._native import Csr
from gnnkern._triton import row_reduce
from gnnkern._triton.attention import run_forward
from gnnkern._triton.attention_backward import run_by_source
from gnnkern._triton.gatv2_backward import by_destination, by_source
from gnnkern._triton.score_gradient import run_statistics
from gnnkern._walk import Walk

__all__ = ["LOOPS"]


def _sum_keys(csr: Csr, key: Tensor, grad_score: Tensor, edge_x: Tensor | None) -> Tensor:
    return row_reduce.row_reduce(csr, key, grad_score, "sum", added=edge_x)[0]


def _run_gatv2_backward(
    walked: Walked,
    reverse: Walk,
    grad: Tensor,  # [num_dst, H, D]
    statistics: Tensor,  # [num_dst, H, 2]
    need_x_src: bool,
    need_edge_x: bool,
) -> Gatv2Gradients:
    walk, _, operands, slope, dropout = walked
    x_dst, x_src, _, att, _, edge_x = operands
    assert att is not None
    grad_x_dst, att_sums, grad_edge_x, records = by_destination(
        walk,
        x_src,
        x_dst,
        att,
        edge_x,
        slope,
        dropout,
        grad,
        statistics,
        need_x_src,
        need_edge_x,
    )
    grad_x_src = None if records is None else by_source(reverse, records, att, slope, grad)
    return Gatv2Gradients(grad_x_src, grad_x_dst, att_sums, grad_edge_x)


LOOPS = AttentionLoops(
    row_reduce.LOOP,
    run_forward,
    run_statistics,
    run_by_source,
    _sum_keys,
    _run_gatv2_backward,
)
