"""sddmm: every edge combines two rows, of its ends or its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gnnkern._cpu.sddmm import sddmm_rows
from gnnkern._native import Csr
from gnnkern.backends import (
    Implementation,
    choose,
    cpu_unsupported,
    reference_unsupported,
    triton_unsupported,
)
from gnnkern.graph import Graph
from gnnkern.ops._checks import check_floats, check_graph, check_option, query_of
from gnnkern.ops._linear import dot_edges
from gnnkern.ops._message_ops import on_edges_op
from gnnkern.ops._messages import edge_product, spread
from gnnkern.ops._operator import cast_for_autocast, define, is_tracked
from gnnkern.ops._placement import placed
from gnnkern.reference._precision import widen
from gnnkern.reference.sddmm import sddmm_reference

__all__ = ["sddmm"]

OPS = ("dot", "add", "sub", "mul", "div", "copy_lhs", "copy_rhs")
TARGETS = ("dst", "src", "edge")


def sddmm_cpu(csr: Csr, x_dst: Tensor, x_src: Tensor, op: str) -> Tensor:
    """The C++ edge kernel."""
    return sddmm_rows(csr, x_dst, x_src, op)


def sddmm_triton(csr: Csr, x_dst: Tensor, x_src: Tensor, op: str) -> Tensor:
    """The Triton edge kernel."""
    from gnnkern._triton.sddmm import sddmm_rows

    return sddmm_rows(csr, x_dst, x_src, op)


IMPLEMENTATIONS = (
    Implementation("cpu", sddmm_cpu, cpu_unsupported),
    Implementation("triton", sddmm_triton, triton_unsupported),
    Implementation("reference", sddmm_reference, reference_unsupported),
)

# -- torch operator --------------------------------------------------------------------------------

_LAUNCH = {"cpu": sddmm_cpu, "triton": sddmm_triton}


def _sddmm(
    indptr: Tensor,  # [num_dst + 1]
    indices: Tensor,  # [E]
    edge_id: Tensor | None,  # [E]
    plan: Tensor,
    x_dst: Tensor,  # [num_dst, F] or [num_dst, H, D]
    x_src: Tensor,  # [num_src, F] or [num_src, H, D]
    op: str,
    backend: str,
) -> Tensor:
    return _LAUNCH[backend](Csr(indptr, indices, edge_id, plan), x_dst, x_src, op)


def _sddmm_fake(
    indptr: Tensor,
    indices: Tensor,
    edge_id: Tensor | None,
    plan: Tensor,
    x_dst: Tensor,
    x_src: Tensor,
    op: str,
    backend: str,
) -> Tensor:
    shape = x_dst.shape[1:-1] if op == "dot" else x_dst.shape[1:]
    return x_dst.new_empty((indices.shape[0], *shape))


_sddmm_op = define(
    "sddmm",
    "(Tensor indptr, Tensor indices, Tensor? edge_id, Tensor plan, Tensor x_dst, Tensor x_src,"
    " str op, str backend) -> Tensor",
    _sddmm,
    _sddmm_fake,
)

# -- public ----------------------------------------------------------------------------------------


def _places(arguments: dict[str, Any]) -> dict[str, str]:
    ends = _check_targets(arguments.get("targets", ("dst", "src")))
    return dict(zip(("x_dst", "x_src"), ends, strict=True))


@placed("edge", by_arguments=_places)
def sddmm(
    g: Graph,
    x_dst: Tensor | None,  # [num_dst, F], [num_dst, H, D] or [num_dst, ...]
    x_src: Tensor | None,  # [num_src, F], [num_src, H, D] or [num_src, ...]
    *,
    op: str = "dot",
    targets: tuple[str, str] = ("dst", "src"),
    backend: str | None = None,
) -> Tensor:
    """Combine `x_dst[v]` and `x_src[u]` on every edge e = (u, v).

    Args:
        g: The graph.
        x_dst: [num_dst, F], [num_dst, H, D] or more dimensions: rows of the destinations, or of
            what `targets` says.
        x_src: [num_src, F], [num_src, H, D] or more dimensions: rows of the sources, likewise.
        op: "dot" (over the last dimension, of equal size), "add", "sub" (x_dst - x_src), "mul",
            "div" (x_dst / x_src), "copy_lhs" (x_dst alone; x_src may be None) or "copy_rhs"
            (x_src alone; x_dst may be None).
        targets: Where the rows of the first and of the second operand lie, each "dst", "src" or
            "edge" ([E, ...] in the caller's edge order).
        backend: Where to run; by default the fastest that can.

    Returns:
        dot: [E] or [E, H]; otherwise [E, F] or [E, H, D]; in the caller's edge order. The shapes
        behind the rows are aligned at their ends and broadcast. What lies at a node without edges
        has no part in it, and gradient 0.

    Numerics: dot products of halves are summed in float32 and rounded once. Bitwise repeatable.

    Gradients: of both, by any number of derivatives.

    Transforms: forward mode and torch.func (grad, vjp, jvp, vmap); vmap runs one kernel for the
    whole batch.

    Cost: reads E rows of x_src and num_dst rows of x_dst, writes the result. The gradients are sums
    of messages over the graph and its reverse: nothing else of the size of an edge tensor is made
    but the gradient of one. Operands at one and the same end are combined there by plain torch, and
    copied. Shapes that differ are read column by column.

    Raises:
        TypeError: an argument is no tensor, not floating, or the dtypes differ.
        ValueError: a shape, device or option is wrong.
        BackendUnavailable: `backend` cannot run this call.

    Source: the generalised SDDMM of Wang et al., "Deep Graph Library", 2019.
    """
    check_graph("sddmm", g)
    check_option("sddmm", "op", op, OPS)
    ends = _check_targets(targets)
    x_dst, x_src = cast_for_autocast(x_dst, x_src)
    if op in ("copy_lhs", "copy_rhs"):
        return _copy(g, x_dst, x_src, op, ends, backend)
    check_floats("sddmm", g.device, x_dst=x_dst, x_src=x_src)
    assert x_dst is not None and x_src is not None
    _check_rows(g, "x_dst", x_dst, ends[0])
    _check_rows(g, "x_src", x_src, ends[1])
    plain = x_dst.shape[1:] == x_src.shape[1:] and ends == ("dst", "src")
    if x_dst.shape[1:] != x_src.shape[1:]:
        _check_broadcast(x_dst, x_src, op)
    implementation = choose("sddmm", IMPLEMENTATIONS, query_of(x_dst), backend, linear=True)
    name = implementation.backend
    if name == "reference":
        return sddmm_reference(g, x_dst, x_src, op, ends)
    if plain and (op != "dot" or x_dst.dim() <= 3):
        if not is_tracked(x_dst, x_src):
            return _sddmm_op(*g.csr, x_dst, x_src, op, name)  # type: ignore[no-any-return]
        if op == "dot":
            return dot_edges(g.csr, g.reverse_csr(), x_dst, x_src, name)
    return _combine(g, x_dst, x_src, op, ends, name)


def _combine(
    g: Graph, lhs: Tensor, rhs: Tensor, op: str, ends: tuple[str, str], name: str
) -> Tensor:
    """Operands of any shapes at any ends."""
    dims = max(lhs.dim(), rhs.dim())
    lhs, rhs = (x.reshape(x.shape[0], *[1] * (dims - x.dim()), *x.shape[1:]) for x in (lhs, rhs))
    if ends[0] == ends[1]:
        return _to_edges(g, _TORCH[op](lhs, rhs), ends[0], name)
    # Without a derivative nobody walks the reverse.
    rev = g.reverse_csr() if is_tracked(lhs, rhs) else g.csr
    shape = torch.broadcast_shapes(lhs.shape[1:], rhs.shape[1:])
    if op != "dot":
        return edge_product(g.csr, rev, lhs, rhs, op, ends, shape, name)
    out = edge_product(g.csr, rev, lhs, rhs, "mul", ends, (*shape[:-1], 1), name)
    return out.squeeze(-1)


_TORCH: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "dot": lambda lhs, rhs: (widen(lhs) * widen(rhs)).sum(-1).to(lhs.dtype),
}


def _to_edges(g: Graph, x: Tensor, end: str, name: str) -> Tensor:
    """Copies of what lies at one end of every edge; at the edge, x itself."""
    if end == "edge":
        return x
    if is_tracked(x):
        return spread(g.csr, g.reverse_csr(), x, end, name)
    shape = list(x.shape[1:])
    return on_edges_op(*g.csr, x, None, "copy", end, end, shape, name)  # type: ignore[no-any-return]


def _copy(
    g: Graph,
    x_dst: Tensor | None,
    x_src: Tensor | None,
    op: str,
    ends: tuple[str, str],
    backend: str | None,
) -> Tensor:
    """One operand alone."""
    label, x, end = ("x_dst", x_dst, ends[0]) if op == "copy_lhs" else ("x_src", x_src, ends[1])
    check_floats("sddmm", g.device, **{label: x})
    assert x is not None
    _check_rows(g, label, x, end)
    implementation = choose("sddmm", IMPLEMENTATIONS, query_of(x), backend, linear=True)
    name = implementation.backend
    if name == "reference":
        return sddmm_reference(g, x_dst, x_src, op, ends)
    return x.clone() if end == "edge" else _to_edges(g, x, end, name)


def _check_targets(targets: Sequence[str]) -> tuple[str, str]:
    if not isinstance(targets, tuple | list) or len(targets) != 2:
        raise ValueError(f"sddmm: targets must be two of {', '.join(TARGETS)}, got {targets!r}")
    lhs_at, rhs_at = targets
    check_option("sddmm", "targets", lhs_at, TARGETS)
    check_option("sddmm", "targets", rhs_at, TARGETS)
    return lhs_at, rhs_at


def _check_rows(g: Graph, label: str, x: Tensor, end: str) -> None:
    count, rows = {
        "dst": ("num_dst", g.num_dst),
        "src": ("num_src", g.num_src),
        "edge": ("E", g.num_edges),
    }[end]
    if x.dim() < 2 or x.shape[0] != rows:
        raise ValueError(
            f"sddmm: {label} must have shape [{count}={rows}, F], [{count}={rows}, H, D] or more "
            f"dimensions, got {list(x.shape)}"
        )


def _check_broadcast(x_dst: Tensor, x_src: Tensor, op: str) -> None:
    lhs, rhs = list(x_dst.shape[1:]), list(x_src.shape[1:])
    pairs = zip(reversed(lhs), reversed(rhs), strict=False)
    if not all(a == b or a == 1 or b == 1 for a, b in pairs):
        raise ValueError(
            f"sddmm: x_src must have rows that broadcast with those of x_dst, {lhs}, got {rhs}"
        )
    if op == "dot" and lhs[-1] != rhs[-1]:
        raise ValueError(
            f"sddmm: x_src must have a last dimension of {lhs[-1]} like x_dst, got {rhs}"
        )
