"""What the attention ops ask of a backend for GPUs, by Triton's kernels."""

from torch import Tensor

from gnnkern._attention_loops import AttentionLoops
from gnnkern._native import Csr
from gnnkern._triton import row_reduce
from gnnkern._triton.attention import run_forward
from gnnkern._triton.attention_backward import run_by_source
from gnnkern._triton.gatv2_backward import run_gatv2_backward
from gnnkern._triton.score_gradient import run_statistics

__all__ = ["LOOPS"]


def _sum_keys(csr: Csr, key: Tensor, grad_score: Tensor, edge_x: Tensor | None) -> Tensor:
    return row_reduce.row_reduce(csr, key, grad_score, "sum", added=edge_x)[0]


LOOPS = AttentionLoops(
    row_reduce.LOOP,
    run_forward,
    run_statistics,
    run_by_source,
    _sum_keys,
    run_gatv2_backward,
)
