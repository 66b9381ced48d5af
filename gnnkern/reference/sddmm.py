"""Each edge combines two rows: of its ends, or its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ._precision import widen
from .spmm import combine

if TYPE_CHECKING:
    from ..graph import Graph


def sddmm_reference(
    graph: Graph,
    x_dst: Tensor | None,  # [num_dst, F], [num_dst, H, D] or [num_dst, ...]
    x_src: Tensor | None,  # [num_src, F], [num_src, H, D] or [num_src, ...]
    op: str,
    targets: Sequence[str] = ("dst", "src"),
) -> Tensor:  # dot: [E] or [E, H]; others: [E, F] or [E, H, D]
    """Return `x_dst[v] op x_src[u]` for every edge (u, v), or what lies at `targets`.

    `op` is one of `dot` (summed over the last dimension), `add`, `sub`, `mul`, `div`, `copy_lhs`,
    `copy_rhs`. Operands broadcast behind their rows.
    """
    source, destination = graph.edge_index
    places = {"dst": destination, "src": source, "edge": None}
    rows = []
    for x, target in zip((x_dst, x_src), targets, strict=True):
        place = places[target]
        rows.append(x if x is None or place is None else x.index_select(0, place))
    left, right = rows
    if op in ("copy_lhs", "copy_rhs"):
        alone = left if op == "copy_lhs" else right
        assert alone is not None
        return alone.clone()
    assert left is not None and right is not None
    dims = max(left.dim(), right.dim())
    lhs, rhs = (
        widen(x).reshape(len(x), *[1] * (dims - x.dim()), *x.shape[1:]) for x in (left, right)
    )
    out = (lhs * rhs).sum(-1) if op == "dot" else combine(lhs, rhs, op)
    return out.to(left.dtype)
