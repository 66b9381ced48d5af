"""Launchers of row_reduce.cu: every row reduces the messages of its edges."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gnnkern._broadcasting import Shape
from gnnkern._cuda.launch import launch
from gnnkern._cuda.plan import segments_walk, walk_of
from gnnkern._edge_loops import Messages, RowLoop, Winners, chunk_states
from gnnkern._native import EDGE_OP_CODES, REDUCE_CODES, SCALAR_CODES, rows_of
from gnnkern._walk import Walk

__all__ = [
    "LOOP",
    "log_sum_exp_rows",
    "log_sum_exp_segments",
    "message_reduce",
    "reduce_rows",
    "reduce_segments",
    "row_reduce",
    "sum_edges",
]


def reduce_rows(
    walk: Walk,
    x: Tensor,
    shape: Shape,
    messages: Messages,
    reduce: str,
    argument: torch.dtype | None,
    winners: Winners | None = None,
) -> tuple[Tensor, Tensor | None]:
    """What `RowLoop` asks for, without rows added on the way."""
    assert messages.added is None
    out = x.new_empty((walk.num_rows, *shape))
    parts = (2,) if reduce == "logsumexp" else ()
    positions = None
    if argument is not None:
        positions = x.new_empty((walk.num_rows, *parts, *shape), dtype=argument)
    if out.numel() == 0:
        return out, positions
    x, x_stride, _ = rows_of(x)
    width = math.prod(shape)
    edge = messages.edge
    winner, winner_indptr, winner_position = winners or (None, None, None)
    launch(
        "row_reduce",
        x.device,
        walk.fields(),
        out,
        positions,
        _element_size(positions),
        width,
        *chunk_states(walk, width, reduce, reduce in ("max", "min"), out),
        SCALAR_CODES[x.dtype],
        REDUCE_CODES[reduce],
        x,
        edge,
        messages.x_columns,
        messages.edge_columns,
        x_stride,
        0 if edge is None else edge.shape[1:].numel(),
        messages.group or width,
        EDGE_OP_CODES[messages.op],
        winner,
        _element_size(winner),
        winner_indptr,
        winner_position,
    )
    return out, positions


def _element_size(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.element_size()


LOOP = RowLoop(walk_of, segments_walk, reduce_rows)
row_reduce = LOOP.row_reduce
reduce_segments = LOOP.reduce_segments
log_sum_exp_rows = LOOP.log_sum_exp_rows
log_sum_exp_segments = LOOP.log_sum_exp_segments
message_reduce = LOOP.message_reduce
sum_edges = LOOP.sum_edges
