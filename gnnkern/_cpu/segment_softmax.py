"""Launchers of segment_softmax.cpp: softmax over each row, and its gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnkern._native import (
    SCALAR_CODES,
    Csr,
    address,
    fields,
    module,
    segment_fields,
)


def _softmax(csr_fields: tuple[int, ...], score: Tensor, grad: Tensor | None) -> Tensor:
    score = score.contiguous()
    grad = None if grad is None else grad.contiguous()
    out = torch.empty_like(score)
    if out.numel():
        module().segment_softmax(
            csr_fields,
            SCALAR_CODES[score.dtype],
            score.shape[1:].numel(),
            score.data_ptr(),
            address(grad),
            out.data_ptr(),
            torch.get_num_threads(),
        )
    return out


def softmax_rows(csr: Csr, score: Tensor, num_src: int, grad: Tensor | None = None) -> Tensor:
    """Softmax over each row; with `grad`, `score` is the softmax and its gradient comes back."""
    return _softmax(fields(csr, num_src), score, grad)


def softmax_segments(indptr: Tensor, x: Tensor, grad: Tensor | None = None) -> Tensor:
    """The same over consecutive rows of x."""
    return _softmax(segment_fields(indptr, x.shape[0]), x, grad)
