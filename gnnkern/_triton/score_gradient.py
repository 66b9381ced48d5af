"""The gradient of an attention's score, from what the forward left of each row.

    kept * <value, grad> - alpha * <out, grad>        kept: alpha after dropout

alpha = exp(score - log_sum_exp) comes back from the score; <out, grad> stands for the sum over the
row that the gradient of a softmax has.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from gnnkern._triton.configs import tiles_for
from gnnkern._triton.launch import accumulator, alignment, run

__all__ = ["run_statistics", "score_gradient"]


@triton.jit(do_not_specialize=["num_rows"])
@no_type_check
def _statistics_kernel(
    statistics_ptr,  # [num_rows, words]: log_sum_exp, <out, grad>, and the score where there is one
    log_sum_exp_ptr,  # [num_rows]
    out_ptr,  # [num_rows, width] in accumulation precision
    grad_ptr,  # [num_rows, width]
    score_ptr,  # [num_rows] or None
    num_rows,
    width,  # in units of VEC
    ACC: tl.constexpr,
    VEC: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """What an edge needs of a destination and head, side by side."""
    # Where am I
    width = width * VEC
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    in_rows = row < num_rows
    WORDS: tl.constexpr = 2 if score_ptr is None else 3

    # Load and sum
    total = tl.zeros([ROWS, BLOCK_D], ACC)
    for begin in range(0, width, BLOCK_D):
        column = begin + tl.arange(0, BLOCK_D)
        offset = row[:, None] * width + column[None, :]
        mask = in_rows[:, None] & (column < width)[None, :]
        out = tl.load(out_ptr + offset, mask=mask, other=0)
        total += out * tl.load(grad_ptr + offset, mask=mask, other=0).to(ACC)

    # Store
    log_sum_exp = tl.load(log_sum_exp_ptr + row, mask=in_rows, other=0)
    tl.store(statistics_ptr + row * WORDS, log_sum_exp, mask=in_rows)
    tl.store(statistics_ptr + row * WORDS + 1, tl.sum(total, 1), mask=in_rows)
    if score_ptr is not None:
        score = tl.load(score_ptr + row, mask=in_rows, other=0).to(ACC)
        tl.store(statistics_ptr + row * WORDS + 2, score, mask=in_rows)


@triton.jit
@no_type_check
def score_gradient(score, log_sum_exp, expected, product, valid, kept_scale):
    """(alpha after dropout, the gradient of the score), all of them [ROWS, EDGES, HEADS].

    `kept_scale` is what dropout multiplies an alpha by.
    """
    # A row without a finite score has no attention.
    has_alpha = valid & (log_sum_exp != float("-inf"))
    alpha = tl.where(has_alpha, tl.exp(score - log_sum_exp), 0.0)
    kept = alpha * kept_scale
    return kept, tl.where(valid, kept * product - alpha * expected, 0.0)


# -- launcher --------------------------------------------------------------------------------------


def run_statistics(
    statistics: Tensor,  # [num_dst, H, 2 or 3]
    log_sum_exp: Tensor,  # [num_dst, H]
    out: Tensor,  # [num_dst, H, D] in accumulation precision
    grad: Tensor,  # [num_dst, H, D]
    score: Tensor | None,  # [num_dst, H]
) -> None:
    """What `AttentionLoops` asks for."""
    num_dst, heads, head_width = out.shape
    tiles = tiles_for("sum", head_width, 0.0, out.dtype == torch.float64, edges_at_once=1)
    vec = alignment(out.element_size(), head_width)
    run(
        _statistics_kernel,
        (-(-num_dst * heads // tiles.rows),),
        out.device,
        statistics,
        log_sum_exp,
        out,
        grad,
        score,
        num_dst * heads,
        head_width // vec,
        warps=tiles.warps,
        ACC=accumulator(out.dtype),
        VEC=vec,
        ROWS=tiles.rows,
        BLOCK_D=tiles.columns,
    )
