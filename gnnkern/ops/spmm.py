"""spmm: every node reduces the weighted rows of its in-neighbours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gnnkern import _native
from gnnkern._cpu.row_reduce import row_reduce
from gnnkern._cpu.select_backward import select_backward_weight, select_backward_x
from gnnkern._native import Csr
from gnnkern.backends import (
    Implementation,
    choose,
    cpu_unsupported,
    reference_unsupported,
)
from gnnkern.graph import Graph
from gnnkern.ops._checks import check_floats, check_graph, check_option, check_rows, query_of
from gnnkern.ops._linear import sum_rows
from gnnkern.ops._operator import (
    cast_for_autocast,
    define,
    first_derivative_only,
    needs_gradient,
)
from gnnkern.reference.spmm import spmm_reference

__all__ = ["spmm"]

REDUCES = ("sum", "mean", "max", "min")


def spmm_cpu(csr: Csr, x: Tensor, weight: Tensor | None, reduce: str) -> Tensor:
    """The C++ row reduction."""
    return row_reduce(csr, x, weight, reduce)[0]


IMPLEMENTATIONS = (
    Implementation("cpu", spmm_cpu, cpu_unsupported),
    Implementation("reference", spmm_reference, reference_unsupported),
)

# -- torch operators -------------------------------------------------------------------------------

_LAUNCH = {"cpu": spmm_cpu}


def _spmm(
    indptr: Tensor,  # [num_dst + 1]
    indices: Tensor,  # [E]
    edge_id: Tensor | None,  # [E]
    plan: Tensor,
    x: Tensor,  # [num_src, F] or [num_src, H, D]
    weight: Tensor | None,  # [E] or [E, H]
    reduce: str,
    backend: str,
) -> Tensor:
    return _LAUNCH[backend](Csr(indptr, indices, edge_id, plan), x, weight, reduce)


_spmm_op = define(
    "spmm",
    "(Tensor indptr, Tensor indices, Tensor? edge_id, Tensor plan, Tensor x, Tensor? weight,"
    " str reduce, str backend) -> Tensor",
    _spmm,
    lambda indptr, indices, edge_id, plan, x, weight, reduce, backend: x.new_empty(
        (indptr.shape[0] - 1, *x.shape[1:])
    ),
)


def _spmm_select(
    indptr: Tensor,
    indices: Tensor,
    edge_id: Tensor | None,
    plan: Tensor,
    x: Tensor,
    weight: Tensor | None,
    reduce: str,
    max_degree: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    csr = Csr(indptr, indices, edge_id, plan)
    out, argument = row_reduce(csr, x, weight, reduce, _native.argument_dtype(max_degree))
    assert argument is not None
    return out, argument


def _spmm_select_fake(
    indptr: Tensor,
    indices: Tensor,
    edge_id: Tensor | None,
    plan: Tensor,
    x: Tensor,
    weight: Tensor | None,
    reduce: str,
    max_degree: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    shape = (indptr.shape[0] - 1, *x.shape[1:])
    return x.new_empty(shape), x.new_empty(shape, dtype=_native.argument_dtype(max_degree))


_spmm_select_op = define(
    "spmm_select",
    "(Tensor indptr, Tensor indices, Tensor? edge_id, Tensor plan, Tensor x, Tensor? weight,"
    " str reduce, int max_degree, str backend) -> (Tensor, Tensor)",
    _spmm_select,
    _spmm_select_fake,
)


def _spmm_select_backward(
    indptr: Tensor,
    indices: Tensor,
    edge_id: Tensor | None,
    plan: Tensor,
    x: Tensor,
    weight: Tensor | None,
    argument: Tensor,
    grad: Tensor,
    need_x: bool,
    need_weight: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    csr = Csr(indptr, indices, edge_id, plan)
    grad_x = grad.new_empty(0)
    grad_weight = grad.new_empty(0)
    if need_x:
        grad_x = select_backward_x(csr, grad, weight, argument, x.shape[0])
    if need_weight:
        assert weight is not None
        grad_weight = select_backward_weight(csr, grad, weight, argument, x)
    return grad_x, grad_weight


def _spmm_select_backward_fake(
    indptr: Tensor,
    indices: Tensor,
    edge_id: Tensor | None,
    plan: Tensor,
    x: Tensor,
    weight: Tensor | None,
    argument: Tensor,
    grad: Tensor,
    need_x: bool,
    need_weight: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    return (
        x.new_empty(x.shape if need_x else (0,)),
        x.new_empty(weight.shape if need_weight and weight is not None else (0,)),
    )


_spmm_select_backward_op = define(
    "spmm_select_backward",
    "(Tensor indptr, Tensor indices, Tensor? edge_id, Tensor plan, Tensor x, Tensor? weight,"
    " Tensor argument, Tensor grad, bool need_x, bool need_weight, str backend)"
    " -> (Tensor, Tensor)",
    _spmm_select_backward,
    _spmm_select_backward_fake,
)

# -- gradients -------------------------------------------------------------------------------------


class _SelectRows(torch.autograd.Function):
    """Only the edge that won a maximum or minimum receives its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        fwd: Csr,
        x: Tensor,
        weight: Tensor | None,
        reduce: str,
        max_degree: int,
        backend: str,
    ) -> Tensor:
        out, argument = _spmm_select_op(*fwd, x, weight, reduce, max_degree, backend)
        ctx.save_for_backward(*fwd, x, weight, argument)
        ctx.backend = backend
        ctx.set_materialize_grads(False)
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        if grad is None:
            return (None,) * 6
        *arrays, x, weight, argument = ctx.saved_tensors
        need_x, need_weight = ctx.needs_input_grad[1:3]
        grads = _spmm_select_backward_op(
            *arrays, x, weight, argument, grad, need_x, need_weight, ctx.backend
        )
        grad_x, grad_weight = first_derivative_only(
            "spmm with max or min",
            (grads[0] if need_x else None, grads[1] if need_weight else None),
            (grad, x, weight),
        )
        return None, grad_x, grad_weight, None, None, None


# -- public ----------------------------------------------------------------------------------------


def spmm(
    g: Graph,
    x: Tensor,  # [num_src, F] or [num_src, H, D]
    weight: Tensor | None = None,  # [E] or [E, H]
    *,
    reduce: str = "sum",
    backend: str | None = None,
) -> Tensor:
    """Reduce the messages `weight[e] * x[u]` over the edges e = (u, v) into each node v.

    Args:
        g: The graph.
        x: [num_src, F] or [num_src, H, D] node features.
        weight: None, [E] one weight per edge, or [E, H] one per edge and head (x of three
            dimensions), in the caller's edge order.
        reduce: "sum", "mean" (the sum divided by the number of edges), "max" or "min".
        backend: Where to run; by default the fastest that can.

    Returns:
        [num_dst, F] or [num_dst, H, D], the dtype of x. A node without edges gets 0.

    Numerics: halves are summed in float32 and rounded once. NaN propagates through max and min;
    of equal messages the first edge in the caller's order wins and takes the whole gradient.
    Results repeat bit for bit, for any number of threads.

    Gradients: of x and weight, by any number of derivatives for sum and mean, once for max and min.

    Cost: reads E rows of x and E indices, writes num_dst rows; nothing of size E x F is made. The
    gradient of x is the same over the reversed graph (sorted at first use, then cached on `g`).

    Raises:
        TypeError: an argument is no tensor, not floating, or the dtypes differ.
        ValueError: a shape, device or option is wrong.
        BackendUnavailable: `backend` cannot run this call.

    Source: the generalised SpMM of Wang et al., "Deep Graph Library", 2019.
    """
    check_graph("spmm", g)
    x, weight = cast_for_autocast(x, weight)
    check_floats("spmm", g.device, x=x, weight=weight)
    check_rows("spmm", "x", x, "num_src", g.num_src, ("F", "H, D"))
    check_option("spmm", "reduce", reduce, REDUCES)
    if weight is not None:
        _check_weight(g, x, weight)
    implementation = choose("spmm", IMPLEMENTATIONS, query_of(x), backend)
    if implementation.backend == "reference":
        return spmm_reference(g, x, weight, reduce)
    fwd, name = g.csr, implementation.backend
    if not needs_gradient(x, weight):
        return _spmm_op(*fwd, x, weight, reduce, name)  # type: ignore[no-any-return]
    if reduce in ("max", "min"):
        out: Tensor = _SelectRows.apply(fwd, x, weight, reduce, g.max_degree, name)
        return out
    return sum_rows(fwd, g.reverse_csr(), x, weight, name, reduce)


def _check_weight(g: Graph, x: Tensor, weight: Tensor) -> None:
    if weight.dim() == 2 and x.dim() == 3:
        if tuple(weight.shape) == (g.num_edges, x.shape[1]):
            return
        wanted = f"[E={g.num_edges}] or [E={g.num_edges}, H={x.shape[1]}]"
    elif tuple(weight.shape) == (g.num_edges,):
        return
    else:
        wanted = f"[E={g.num_edges}]"
        if x.dim() == 3:
            wanted += f" or [E={g.num_edges}, H={x.shape[1]}]"
        else:
            wanted += " beside x of two dimensions"
    raise ValueError(f"spmm: weight must have shape {wanted}, got {list(weight.shape)}")
