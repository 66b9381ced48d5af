"""Launchers of dot_attention.cpp and dot_attention_backward.cpp."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnkern._native import SCALAR_CODES, Csr, accumulate_dtype, address, fields, module


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
    """(out [num_dst, H, D], log_sum_exp [num_dst, H], wide_out).

    wide_out is `out` before it is rounded where `save` asks for it and query is a half, otherwise
    empty. The gradient subtracts <out, grad> from numbers close to it and needs all its digits.
    """
    _, heads, head_width = query.shape
    out = query.new_empty(query.shape)
    log_sum_exp = query.new_empty(query.shape[:2], dtype=accumulate_dtype(query.dtype))
    keeps_wide = save and log_sum_exp.dtype != query.dtype
    wide_out = log_sum_exp.new_empty(out.shape if keeps_wide else (0,))
    if out.numel() == 0:
        return out, log_sum_exp.fill_(-torch.inf), wide_out
    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    edge_bias = None if edge_bias is None else edge_bias.contiguous()
    edge_x = None if edge_x is None else edge_x.contiguous()
    module().dot_forward(
        fields(csr, key.shape[0]),
        SCALAR_CODES[query.dtype],
        heads,
        head_width,
        query.data_ptr(),
        key.data_ptr(),
        value.data_ptr(),
        address(edge_bias),
        address(edge_x),
        scale,
        dropout,
        0 if seed is None else int(seed) & 0xFFFFFFFFFFFFFFFF,
        out.data_ptr(),
        wide_out.data_ptr() if keeps_wide else 0,
        log_sum_exp.data_ptr(),
        torch.get_num_threads(),
    )
    return out, log_sum_exp, wide_out


def dot_backward(
    rev: Csr,
    query: Tensor,  # [num_dst, H, D]
    key: Tensor,  # [num_src, H, D]
    value: Tensor,  # [num_src, H, D]
    edge_bias: Tensor | None,  # [E, H]
    edge_x: Tensor | None,  # [E, H, D]
    scale: float,
    dropout: float,
    seed: Tensor | None,
    out: Tensor,  # [num_dst, H, D] in accumulation precision
    log_sum_exp: Tensor,  # [num_dst, H]
    grad: Tensor,  # [num_dst, H, D]
    need_edge_x: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(grad_key, grad_value, grad_score [E, H] in accumulation precision, grad_edge_x or empty)."""
    num_dst, heads, head_width = query.shape
    num_edges = rev.indices.shape[0]
    wide = accumulate_dtype(query.dtype)
    grad_key, grad_value = key.new_empty(key.shape), value.new_empty(value.shape)
    grad_score = query.new_empty((num_edges, heads), dtype=wide)
    has_edge_x = edge_x is not None and need_edge_x
    grad_edge_x = query.new_empty((num_edges, heads, head_width) if has_edge_x else (0,))
    if num_edges == 0 or key.numel() == 0:
        return grad_key.zero_(), grad_value.zero_(), grad_score.zero_(), grad_edge_x.zero_()
    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    edge_bias = None if edge_bias is None else edge_bias.contiguous()
    edge_x = None if edge_x is None else edge_x.contiguous()
    out, grad = out.contiguous(), grad.contiguous()
    packed_dst = query.new_empty((num_dst, 2, heads), dtype=wide)
    module().dot_backward(
        fields(rev, num_dst),
        SCALAR_CODES[query.dtype],
        heads,
        head_width,
        query.data_ptr(),
        key.data_ptr(),
        value.data_ptr(),
        address(edge_bias),
        address(edge_x),
        out.data_ptr(),
        log_sum_exp.data_ptr(),
        grad.data_ptr(),
        scale,
        dropout,
        0 if seed is None else int(seed) & 0xFFFFFFFFFFFFFFFF,
        packed_dst.data_ptr(),
        grad_key.data_ptr(),
        grad_value.data_ptr(),
        grad_score.data_ptr(),
        grad_edge_x.data_ptr() if has_edge_x else 0,
        torch.get_num_threads(),
    )
    return grad_key, grad_value, grad_score, grad_edge_x


def dot_backward_query(
    csr: Csr,
    key: Tensor,  # [num_src, H, D]
    edge_x: Tensor | None,  # [E, H, D]
    grad_score: Tensor,  # [E, H] in accumulation precision
    scale: float,
) -> Tensor:  # [num_dst, H, D]
    """grad_query[v] = scale * the sum of grad_score[e] * (key[u] + edge_x[e])."""
    _, heads, head_width = key.shape
    grad_query = key.new_empty((csr.indptr.shape[0] - 1, heads, head_width))
    if grad_query.numel() == 0:
        return grad_query
    key = key.contiguous()
    edge_x = None if edge_x is None else edge_x.contiguous()
    module().dot_backward_query(
        fields(csr, key.shape[0]),
        SCALAR_CODES[key.dtype],
        heads,
        head_width,
        key.data_ptr(),
        address(edge_x),
        grad_score.data_ptr(),
        scale,
        grad_query.data_ptr(),
        torch.get_num_threads(),
    )
    return grad_query
