"""What the attention ops ask of a backend for GPUs, by the kernels in CUDA."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gnnkern._attention_loops import (
    AttentionLoops,
    Dropout,
    Gatv2Gradients,
    Operands,
    Results,
    SourceGradients,
    Walked,
)
from gnnkern._cuda import module, row_reduce
from gnnkern._cuda.launch import launch
from gnnkern._edge_loops import chunk_states
from gnnkern._native import SCALAR_CODES, Csr
from gnnkern._walk import Walk

__all__ = ["LOOPS"]

# Blocks that walk the destinations of GATv2, each with a sum for the gradient of att: some ten
# times as many as a device runs at once, so that it is evenly busy. Not measured on a device.
_MOST_SUMS = 4096


def _shape(walked: Walked) -> tuple[Any, ...]:
    """What every launcher takes first."""
    rows, dropout = walked.operands.value, walked.dropout
    heads, head_width = rows.shape[-2:]
    seed = 0 if dropout.seed is None else dropout.seed.data_ptr()
    return (
        walked.walk.fields(),
        SCALAR_CODES[rows.dtype],
        heads,
        head_width,
        seed,
        dropout.threshold + 2**31,
        dropout.scale,
        walked.factor,
    )


def _unless_empty(tensor: Tensor) -> Tensor | None:
    return tensor if tensor.numel() else None


def _run_forward(walked: Walked, results: Results) -> None:
    name = f"{walked.kind}_attention"
    launch(name, results.out.device, _shape(walked), *walked.operands, *results)


def _run_statistics(
    statistics: Tensor,  # [num_dst, H, 2 or 3]
    log_sum_exp: Tensor,  # [num_dst, H]
    out: Tensor,  # [num_dst, H, D] in accumulation precision
    grad: Tensor,  # [num_dst, H, D]
    score: Tensor | None,  # [num_dst, H]
) -> None:
    num_dst, heads, head_width = out.shape
    code, rows = SCALAR_CODES[grad.dtype], num_dst * heads
    tensors = (statistics, log_sum_exp, out, grad, score)
    launch("attention_statistics", out.device, code, rows, head_width, *tensors)


def _run_by_source(
    walked: Walked,
    grad: Tensor,  # [num_dst, H, D]
    statistics: Tensor,  # [num_dst, H, words]
    grads: SourceGradients,
    value_sum: Tensor | None,  # [num_chunks, H * D]
    key_sum: Tensor | None,  # [num_chunks, H * D]; gat: [num_chunks, H]
) -> None:
    operands = walked.operands
    launch(
        f"{walked.kind}_attention_backward",
        grad.device,
        _shape(walked),
        grads.value,
        grads.key,
        grads.score,
        _unless_empty(grads.edge_score),
        _unless_empty(grads.edge_x),
        value_sum,
        key_sum,
        operands.key,
        operands.value,
        operands.own if walked.kind == "dot" else None,
        grad,
        statistics,
        operands.edge_score,
        operands.edge_x,
    )


def _sum_keys(csr: Csr, key: Tensor, grad_score: Tensor, edge_x: Tensor | None) -> Tensor:
    walk = row_reduce.LOOP.walk_of(csr)
    key = key.contiguous()
    grad_query = key.new_empty((walk.num_rows, *key.shape[1:]))
    if grad_query.numel():
        launch(
            "dot_attention_backward_query",
            key.device,
            _shape(Walked(walk, "dot", Operands(key, key, key), 1.0, Dropout.of(None, 0.0))),
            grad_query,
            chunk_states(walk, key.shape[1:].numel(), "sum", False, key)[0],
            key,
            None if edge_x is None else edge_x.contiguous(),
            grad_score,
        )
    return grad_query


def _run_gatv2_backward(
    walked: Walked,
    reverse: Walk,
    grad: Tensor,  # [num_dst, H, D]
    statistics: Tensor,  # [num_dst, H, 2]
    need_x_src: bool,
    need_edge_x: bool,
) -> Gatv2Gradients:
    x_dst, x_src, _, att, _, edge_x = walked.operands
    num_edges, (heads, head_width) = walked.walk.num_edges, x_dst.shape[1:]
    shape = _shape(walked)
    num_blocks, sign_bytes = module().gatv2_attention_sizes(shape)
    num_sums = min(num_blocks, _MOST_SUMS)
    edges = (num_edges, heads)
    grads = Gatv2Gradients(
        x_src.new_empty(x_src.shape) if need_x_src else None,
        x_dst.new_empty(x_dst.shape),
        statistics.new_empty((num_sums, heads, head_width)),
        x_dst.new_empty((*edges, head_width)) if need_edge_x else None,
    )
    records: tuple[Tensor | None, ...] = (None, None, None)
    if need_x_src:
        kept, grad_score = statistics.new_empty((2, *edges)).unbind()
        records = (kept, grad_score, grad.new_empty((*edges, sign_bytes), dtype=torch.uint8))
    launch(
        "gatv2_attention_backward",
        grad.device,
        shape,
        reverse.fields(),
        grads.x_src,
        grads.x_dst,
        grads.att_sums,
        num_sums,
        grads.edge_x,
        *records,
        *(
            chunk_states(each, heads * head_width, "sum", False, x_dst)[0]
            for each in (walked.walk, reverse)
        ),
        x_src,
        x_dst,
        att,
        edge_x,
        grad,
        statistics,
    )
    return grads


LOOPS = AttentionLoops(
    row_reduce.LOOP,
    _run_forward,
    _run_statistics,
    _run_by_source,
    _sum_keys,
    _run_gatv2_backward,
)
