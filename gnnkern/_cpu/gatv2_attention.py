"""Launchers of gatv2_attention.cpp and gatv2_backward.cpp."""

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
    """(out [num_dst, H, D], log_sum_exp [num_dst, H], wide_out).

    wide_out is `out` before it is rounded where `save` asks for it and x_src is a half, otherwise
    empty. The gradient subtracts <out, grad> from numbers close to it and needs all its digits.
    """
    out = x_dst.new_empty(x_dst.shape)
    log_sum_exp = x_dst.new_empty(x_dst.shape[:2], dtype=accumulate_dtype(x_dst.dtype))
    keeps_wide = save and log_sum_exp.dtype != x_dst.dtype
    wide_out = log_sum_exp.new_empty(out.shape if keeps_wide else (0,))
    _, heads, head_width = x_dst.shape
    if out.numel() == 0:
        return out, log_sum_exp.fill_(-torch.inf), wide_out
    x_src, x_dst, att, edge_x = _contiguous(x_src, x_dst, att, edge_x)
    module().gatv2_forward(
        fields(csr, x_src.shape[0]),
        SCALAR_CODES[x_src.dtype],
        heads,
        head_width,
        x_src.data_ptr(),
        x_dst.data_ptr(),
        att.data_ptr(),
        address(edge_x),
        negative_slope,
        dropout,
        0 if seed is None else int(seed) & 0xFFFFFFFFFFFFFFFF,
        out.data_ptr(),
        wide_out.data_ptr() if keeps_wide else 0,
        log_sum_exp.data_ptr(),
        torch.get_num_threads(),
    )
    return out, log_sum_exp, wide_out


def gatv2_backward(
    csr: Csr,
    rev: Csr,
    x_src: Tensor,  # [num_src, H, D]
    x_dst: Tensor,  # [num_dst, H, D]
    att: Tensor,  # [H, D]
    edge_x: Tensor | None,  # [E, H, D]
    negative_slope: float,
    dropout: float,
    seed: Tensor | None,
    out: Tensor,  # [num_dst, H, D] in accumulation precision
    log_sum_exp: Tensor,  # [num_dst, H]
    grad: Tensor,  # [num_dst, H, D]
    need_x_src: bool,
    need_edge_x: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x_src, x_dst, att and edge_x; empty where a `need` is not set."""
    num_dst, heads, head_width = grad.shape
    grad_x_src = x_src.new_empty(x_src.shape if need_x_src else (0,))
    grad_x_dst = x_dst.new_empty(x_dst.shape)
    grad_att = att.new_empty(att.shape, dtype=accumulate_dtype(att.dtype))
    num_edges = csr.indices.shape[0]
    grad_edge_x = x_src.new_empty((num_edges, heads, head_width) if need_edge_x else (0,))
    grads = (grad_x_src, grad_x_dst, grad_att, grad_edge_x)
    if num_edges == 0 or grad.numel() == 0:
        grad_x_src, grad_x_dst, grad_att, grad_edge_x = (grad.zero_() for grad in grads)
        return grad_x_src, grad_x_dst, grad_att.to(att.dtype), grad_edge_x
    dtype = att.dtype
    x_src, x_dst, att, edge_x = _contiguous(x_src, x_dst, att, edge_x)
    out, grad = out.contiguous(), grad.contiguous()
    module().gatv2_backward(
        fields(csr, x_src.shape[0]),
        fields(rev, num_dst),
        SCALAR_CODES[x_src.dtype],
        heads,
        head_width,
        x_src.data_ptr(),
        x_dst.data_ptr(),
        att.data_ptr(),
        address(edge_x),
        negative_slope,
        dropout,
        0 if seed is None else int(seed) & 0xFFFFFFFFFFFFFFFF,
        out.data_ptr(),
        log_sum_exp.data_ptr(),
        grad.data_ptr(),
        grad_x_src.data_ptr() if need_x_src else 0,
        grad_x_dst.data_ptr(),
        grad_att.data_ptr(),
        grad_edge_x.data_ptr() if need_edge_x else 0,
        torch.get_num_threads(),
    )
    return grad_x_src, grad_x_dst, grad_att.to(dtype), grad_edge_x


def _contiguous(
    x_src: Tensor, x_dst: Tensor, att: Tensor, edge_x: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The inputs as the kernels take them: att, of which there is one row, already converted."""
    wide_att = att.to(accumulate_dtype(att.dtype)).contiguous()
    edge_x = None if edge_x is None else edge_x.contiguous()
    return x_src.contiguous(), x_dst.contiguous(), wide_att, edge_x
