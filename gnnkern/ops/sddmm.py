"""sddmm: every edge combines the rows at its two ends."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gnnkern._cpu.sddmm import sddmm_rows
from gnnkern._native import Csr
from gnnkern.backends import Implementation, choose, cpu_unsupported, reference_unsupported
from gnnkern.graph import Graph
from gnnkern.ops._checks import check_floats, check_graph, check_option, check_rows, query_of
from gnnkern.ops._linear import dot_edges, sum_edges, sum_rows
from gnnkern.ops._operator import cast_for_autocast, define, needs_gradient
from gnnkern.reference.sddmm import sddmm_reference

__all__ = ["sddmm"]

OPS = ("dot", "add", "sub", "mul", "div")


def sddmm_cpu(csr: Csr, x_dst: Tensor, x_src: Tensor, op: str) -> Tensor:
    """The C++ edge kernel."""
    return sddmm_rows(csr, x_dst, x_src, op)


IMPLEMENTATIONS = (
    Implementation("cpu", sddmm_cpu, cpu_unsupported),
    Implementation("reference", sddmm_reference, reference_unsupported),
)

# -- torch operator --------------------------------------------------------------------------------

_LAUNCH = {"cpu": sddmm_cpu}


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

# -- gradient --------------------------------------------------------------------------------------


class _CombineEdges(torch.autograd.Function):
    """The gradient at an end of an edge is a sum over that node's edges."""

    @staticmethod
    def forward(
        ctx: Any, fwd: Csr, rev: Csr, x_dst: Tensor, x_src: Tensor, op: str, backend: str
    ) -> Tensor:
        ctx.save_for_backward(*fwd, *rev, x_dst, x_src)
        ctx.op = op
        ctx.backend = backend
        return _sddmm_op(*fwd, x_dst, x_src, op, backend)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        *arrays, x_dst, x_src = ctx.saved_tensors
        fwd, rev = Csr(*arrays[:4]), Csr(*arrays[4:])
        grad_dst = grad_src = None
        if ctx.needs_input_grad[2]:
            if ctx.op in ("add", "sub"):
                grad_dst = sum_edges(fwd, rev, grad, x_src.shape[0], ctx.backend)
            else:
                factor = x_src if ctx.op == "mul" else x_src.reciprocal()
                grad_dst = _sum_products(fwd, rev, factor, grad, ctx.backend)
        if ctx.needs_input_grad[3]:
            if ctx.op in ("add", "sub"):
                grad_src = sum_edges(rev, fwd, grad, x_dst.shape[0], ctx.backend)
                grad_src = -grad_src if ctx.op == "sub" else grad_src
            else:
                grad_src = _sum_products(rev, fwd, x_dst, grad, ctx.backend)
                if ctx.op == "div":
                    grad_src = -grad_src / (x_src * x_src)
        return None, None, grad_dst, grad_src, None, None


def _sum_products(fwd: Csr, rev: Csr, x: Tensor, grad: Tensor, backend: str) -> Tensor:
    """Sum over a node's edges of `x` at the other end times `grad` on the edge, elementwise."""
    columns = x.flatten(1).unsqueeze(2)  # every column a head of width 1
    total = sum_rows(fwd, rev, columns, grad.flatten(1), backend)
    return total.reshape(total.shape[0], *x.shape[1:])


# -- public ----------------------------------------------------------------------------------------


def sddmm(
    g: Graph,
    x_dst: Tensor,  # [num_dst, F] or [num_dst, H, D]
    x_src: Tensor,  # [num_src, F] or [num_src, H, D]
    *,
    op: str = "dot",
    backend: str | None = None,
) -> Tensor:
    """Combine `x_dst[v]` and `x_src[u]` on every edge e = (u, v).

    Args:
        g: The graph.
        x_dst: [num_dst, F] or [num_dst, H, D] rows of the destinations.
        x_src: [num_src, F] or [num_src, H, D] rows of the sources, of the same width.
        op: "dot" (over the last dimension), "add", "sub" (x_dst - x_src), "mul" or
            "div" (x_dst / x_src).
        backend: Where to run; by default the fastest that can.

    Returns:
        dot: [E] or [E, H]; otherwise [E, F] or [E, H, D]; in the caller's edge order.

    Numerics: dot products of halves are summed in float32 and rounded once. Bitwise repeatable.

    Gradients: of both, by any number of derivatives.

    Cost: reads E rows of x_src and num_dst rows of x_dst, writes the result. The gradients are
    weighted row sums over the graph and its reverse.

    Raises:
        TypeError: an argument is no tensor, not floating, or the dtypes differ.
        ValueError: a shape, device or option is wrong.
        BackendUnavailable: `backend` cannot run this call.

    Source: the generalised SDDMM of Wang et al., "Deep Graph Library", 2019.
    """
    check_graph("sddmm", g)
    check_option("sddmm", "op", op, OPS)
    x_dst, x_src = cast_for_autocast(x_dst, x_src)
    check_floats("sddmm", g.device, x_dst=x_dst, x_src=x_src)
    check_rows("sddmm", "x_dst", x_dst, "num_dst", g.num_dst, ("F", "H, D"))
    check_rows("sddmm", "x_src", x_src, "num_src", g.num_src, ("F", "H, D"))
    if x_dst.shape[1:] != x_src.shape[1:]:
        raise ValueError(
            f"sddmm: x_src must have rows of shape {list(x_dst.shape[1:])} like x_dst, got "
            f"{list(x_src.shape[1:])}"
        )
    implementation = choose("sddmm", IMPLEMENTATIONS, query_of(x_dst), backend)
    if implementation.backend == "reference":
        return sddmm_reference(g, x_dst, x_src, op)
    name = implementation.backend
    if not needs_gradient(x_dst, x_src):
        return _sddmm_op(*g.csr, x_dst, x_src, op, name)  # type: ignore[no-any-return]
    rev = g.reverse_csr()
    if op == "dot":
        return dot_edges(g.csr, rev, x_dst, x_src, name)
    out: Tensor = _CombineEdges.apply(g.csr, rev, x_dst, x_src, op, name)
    return out
