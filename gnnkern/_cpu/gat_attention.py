"""Launchers of gat_attention.cpp, forward and backward."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnkern._native import (
    SCALAR_CODES,
    Csr,
    accumulate_dtype,
    address,
    fields,
    module,
)


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
    """(out [num_dst, H, D], log_sum_exp [num_dst, H], wide_out).

    wide_out is `out` before it is rounded where `save` asks for it and x is a half, otherwise
    empty. The gradient subtracts <out, grad> from numbers close to it and needs all its digits.
    """
    num_dst = csr.indptr.shape[0] - 1
    _, heads, head_width = x.shape
    out = x.new_empty((num_dst, heads, head_width))
    log_sum_exp = x.new_empty((num_dst, heads), dtype=accumulate_dtype(x.dtype))
    keeps_wide = save and log_sum_exp.dtype != x.dtype
    wide_out = log_sum_exp.new_empty(out.shape if keeps_wide else (0,))
    if log_sum_exp.numel() == 0 or head_width == 0:
        return out, log_sum_exp.fill_(-torch.inf), wide_out
    x, score_src, score_dst = x.contiguous(), score_src.contiguous(), score_dst.contiguous()
    edge_score = None if edge_score is None else edge_score.contiguous()
    module().gat_forward(
        fields(csr, x.shape[0]),
        SCALAR_CODES[x.dtype],
        x.data_ptr(),
        heads,
        head_width,
        score_src.data_ptr(),
        score_dst.data_ptr(),
        address(edge_score),
        negative_slope,
        dropout,
        0 if seed is None else int(seed) & 0xFFFFFFFFFFFFFFFF,
        out.data_ptr(),
        wide_out.data_ptr() if keeps_wide else 0,
        log_sum_exp.data_ptr(),
        torch.get_num_threads(),
    )
    return out, log_sum_exp, wide_out


def gat_backward(
    rev: Csr,
    x: Tensor,  # [num_src, H, D]
    score_src: Tensor,  # [num_src, H]
    score_dst: Tensor,  # [num_dst, H]
    edge_score: Tensor | None,  # [E, H]
    negative_slope: float,
    dropout: float,
    seed: Tensor | None,
    out: Tensor,  # [num_dst, H, D] in accumulation precision
    log_sum_exp: Tensor,  # [num_dst, H]
    grad: Tensor,  # [num_dst, H, D]
) -> tuple[Tensor, Tensor, Tensor]:
    """(grad_x, grad_score_src, grad_score [E, H] in accumulation precision, caller's order)."""
    num_dst, heads, head_width = grad.shape
    num_edges = rev.indices.shape[0]
    wide = accumulate_dtype(x.dtype)
    grad_x = x.new_empty(x.shape)
    grad_score_src = score_src.new_empty(score_src.shape)
    grad_score = x.new_empty((num_edges, heads), dtype=wide)
    if num_edges == 0 or x.numel() == 0:
        return grad_x.zero_(), grad_score_src.zero_(), grad_score.zero_()
    code, threads = SCALAR_CODES[x.dtype], torch.get_num_threads()
    x, score_src, score_dst = x.contiguous(), score_src.contiguous(), score_dst.contiguous()
    edge_score = None if edge_score is None else edge_score.contiguous()
    out, grad = out.contiguous(), grad.contiguous()
    packed_dst = x.new_empty((num_dst, 3, heads), dtype=wide)
    module().gat_pack(
        code,
        num_dst,
        heads,
        head_width,
        score_dst.data_ptr(),
        log_sum_exp.data_ptr(),
        out.data_ptr(),
        grad.data_ptr(),
        packed_dst.data_ptr(),
        threads,
    )
    module().gat_backward(
        fields(rev, num_dst),
        code,
        x.data_ptr(),
        heads,
        head_width,
        score_src.data_ptr(),
        packed_dst.data_ptr(),
        address(edge_score),
        grad.data_ptr(),
        negative_slope,
        dropout,
        0 if seed is None else int(seed) & 0xFFFFFFFFFFFFFFFF,
        grad_x.data_ptr(),
        grad_score_src.data_ptr(),
        grad_score.data_ptr(),
        threads,
    )
    return grad_x, grad_score_src, grad_score
