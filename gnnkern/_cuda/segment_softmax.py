"""Launchers of segment_softmax.cu: softmax over the edges of every row, and its gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnkern._cuda.launch import launch
from gnnkern._cuda.plan import segments_walk, walk_of
from gnnkern._edge_loops import chunk_states
from gnnkern._native import SCALAR_CODES, Csr
from gnnkern._walk import Walk

__all__ = ["softmax_rows", "softmax_segments"]


def _softmax(walk: Walk, score: Tensor, grad: Tensor | None) -> Tensor:
    score = score.contiguous()
    grad = None if grad is None else grad.contiguous()
    out = torch.empty_like(score)
    if out.numel():
        width = score.shape[1:].numel()
        states = chunk_states(walk, width, "sum" if grad is not None else "logsumexp", False, score)
        code = SCALAR_CODES[score.dtype]
        launch("segment_softmax", out.device, walk.fields(), out, score, grad, *states, code, width)
    return out


def softmax_rows(csr: Csr, score: Tensor, grad: Tensor | None = None) -> Tensor:
    """Softmax over each row; with `grad`, `score` is the softmax and its gradient comes back."""
    return _softmax(walk_of(csr), score, grad)


def softmax_segments(indptr: Tensor, x: Tensor, grad: Tensor | None = None) -> Tensor:
    """The same over consecutive rows of x."""
    return _softmax(segments_walk(indptr, x.shape[0]), x, grad)
