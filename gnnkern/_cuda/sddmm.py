"""Launchers of sddmm.cu: every edge makes a result of rows at its ends, or its own."""

from __future__ import annotations

from torch import Tensor

from gnnkern._cuda.launch import launch
from gnnkern._cuda.plan import segments_walk, walk_of
from gnnkern._edge_loops import EdgeLoop, Operand
from gnnkern._native import EDGE_END_CODES, EDGE_OP_CODES, SCALAR_CODES, address, rows_of
from gnnkern._walk import Walk

__all__ = ["LOOP", "combine_rows", "on_edges", "repeat_rows", "sddmm_rows"]


def on_edges(
    walk: Walk,
    lhs: Operand,
    rhs: Operand,
    op: str,
    out: Tensor,  # [E, ...]
    group: int,
    winner: Tensor | None = None,  # [num_rows, ...]
) -> Tensor:
    """What `EdgeLoop` asks for."""
    assert lhs.x is not None
    # Rows that had to be copied live until the launch.
    rows = [None if side.x is None else rows_of(side.x) for side in (lhs, rhs)]
    operands = [
        (
            0 if row is None else row[0].data_ptr(),
            address(side.columns),
            0 if row is None else row[1],
            EDGE_END_CODES[side.at],
        )
        for side, row in zip((lhs, rhs), rows, strict=True)
    ]
    launch(
        "edge_products",
        out.device,
        walk.fields(),
        out,
        SCALAR_CODES[out.dtype],
        out.shape[1:].numel(),
        max(group, 1),
        SCALAR_CODES[lhs.x.dtype],
        *operands,
        EDGE_OP_CODES[op],
        winner,
        0 if winner is None else winner.element_size(),
    )
    return out


LOOP = EdgeLoop(walk_of, segments_walk, on_edges)
sddmm_rows = LOOP.sddmm_rows
combine_rows = LOOP.combine_rows
repeat_rows = LOOP.repeat_rows
