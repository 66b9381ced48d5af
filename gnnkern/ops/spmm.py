"""spmm: every node reduces the weighted rows of its in-neighbours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnnkern import _native
from gnnkern._cpu.broadcasting import groups
from gnnkern._cpu.row_reduce import row_reduce
from gnnkern._cpu.select_backward import select_backward_weight, select_backward_x
from gnnkern._native import NO_CSR, Csr, optional_csr
from gnnkern.backends import (
    Implementation,
    choose,
    cpu_unsupported,
    cuda_unsupported,
    reference_unsupported,
    triton_unsupported,
)
from gnnkern.graph import Graph
from gnnkern.ops._checks import check_floats, check_graph, check_option, query_of
from gnnkern.ops._device import DEVICE_BACKENDS, launchers, select_backward_of
from gnnkern.ops._linear import sum_rows
from gnnkern.ops._message_ops import message_select_backward_op, message_select_op, message_sum_op
from gnnkern.ops._messages import by_edge, edge_sum, fit, message_sum
from gnnkern.ops._operator import (
    cast_for_autocast,
    define,
    first_derivative_only,
    is_tracked,
    needs_gradient,
)
from gnnkern.ops._placement import placed
from gnnkern.reference.spmm import spmm_reference

__all__ = ["spmm"]

REDUCES = ("sum", "mean", "max", "min")
OPS = ("mul", "add", "sub", "div")


def spmm_cpu(
    csr: Csr, x: Tensor, weight: Tensor | None, reduce: str, argument: torch.dtype | None = None
) -> tuple[Tensor, Tensor | None]:
    """The C++ row reduction; with `argument` who won, too."""
    return row_reduce(csr, x, weight, reduce, argument)


def spmm_triton(
    csr: Csr, x: Tensor, weight: Tensor | None, reduce: str, argument: torch.dtype | None = None
) -> tuple[Tensor, Tensor | None]:
    """The Triton row reduction; with `argument` who won, too."""
    from gnnkern._triton.row_reduce import row_reduce

    return row_reduce(csr, x, weight, reduce, argument)


def spmm_cuda(
    csr: Csr, x: Tensor, weight: Tensor | None, reduce: str, argument: torch.dtype | None = None
) -> tuple[Tensor, Tensor | None]:
    """The CUDA row reduction; with `argument` who won, too."""
    from gnnkern._cuda.row_reduce import row_reduce

    return row_reduce(csr, x, weight, reduce, argument)


IMPLEMENTATIONS = (
    Implementation("cpu", spmm_cpu, cpu_unsupported),
    Implementation("triton", spmm_triton, triton_unsupported),
    Implementation("cuda", spmm_cuda, cuda_unsupported),
    Implementation("reference", spmm_reference, reference_unsupported),
)

# -- torch operators -------------------------------------------------------------------------------

_LAUNCH = {"cpu": spmm_cpu, "triton": spmm_triton, "cuda": spmm_cuda}


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
    return _LAUNCH[backend](Csr(indptr, indices, edge_id, plan), x, weight, reduce)[0]


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
    dtype = _native.argument_dtype(max_degree)
    out, argument = _LAUNCH[backend](csr, x, weight, reduce, dtype)
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
    rev_indptr: Tensor | None,
    rev_indices: Tensor | None,
    rev_edge_id: Tensor | None,
    rev_plan: Tensor | None,
    x: Tensor,
    weight: Tensor | None,
    argument: Tensor,
    grad: Tensor,
    need_x: bool,
    need_weight: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    csr = Csr(indptr, indices, edge_id, plan)
    rev = optional_csr(rev_indptr, rev_indices, rev_edge_id, rev_plan)
    grad_x = grad.new_empty(0)
    grad_weight = grad.new_empty(0)
    of_x, of_weight = _LAUNCH_BACKWARD[backend]()
    if need_x:
        grad_x = of_x(csr, rev, grad, weight, argument, x.shape[0])
    if need_weight:
        assert weight is not None
        grad_weight = of_weight(csr, grad, weight, argument, x)
    return grad_x, grad_weight


def _backward_cpu() -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    def of_x(csr: Csr, rev: Csr | None, *arguments: Any) -> Tensor:
        return select_backward_x(csr, *arguments)

    return of_x, select_backward_weight


def _backward_device(backend: str) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    kernels = select_backward_of(backend)
    return kernels.select_backward_x, kernels.select_backward_weight


_LAUNCH_BACKWARD = launchers(_backward_cpu, _backward_device)


def _spmm_select_backward_fake(
    indptr: Tensor,
    indices: Tensor,
    edge_id: Tensor | None,
    plan: Tensor,
    rev_indptr: Tensor | None,
    rev_indices: Tensor | None,
    rev_edge_id: Tensor | None,
    rev_plan: Tensor | None,
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
    "(Tensor indptr, Tensor indices, Tensor? edge_id, Tensor plan, Tensor? rev_indptr,"
    " Tensor? rev_indices, Tensor? rev_edge_id, Tensor? rev_plan, Tensor x, Tensor? weight,"
    " Tensor argument, Tensor grad, bool need_x, bool need_weight, str backend)"
    " -> (Tensor, Tensor)",
    _spmm_select_backward,
    _spmm_select_backward_fake,
)

# -- gradients -------------------------------------------------------------------------------------


class _SelectRows(torch.autograd.Function):
    """Only the edge that won a maximum or minimum receives its gradient.

    Where the reverse is needed (`_reverse_for_select`), it tells the rows of x what they won;
    without it every edge has a row of x to itself.
    """

    @staticmethod
    def forward(
        ctx: Any,
        fwd: Csr,
        rev: Csr | None,
        x: Tensor,
        weight: Tensor | None,
        reduce: str,
        max_degree: int,
        backend: str,
    ) -> Tensor:
        out, argument = _spmm_select_op(*fwd, x, weight, reduce, max_degree, backend)
        ctx.save_for_backward(*fwd, *(rev or NO_CSR), x, weight, argument)
        ctx.backend = backend
        ctx.set_materialize_grads(False)
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        if grad is None:
            return (None,) * 7
        *arrays, x, weight, argument = ctx.saved_tensors
        need_x, need_weight = ctx.needs_input_grad[2:4]
        grads = _spmm_select_backward_op(
            *arrays, x, weight, argument, grad, need_x, need_weight, ctx.backend
        )
        grad_x, grad_weight = first_derivative_only(
            "spmm with max or min",
            (grads[0] if need_x else None, grads[1] if need_weight else None),
            (grad, x, weight),
        )
        return None, None, grad_x, grad_weight, None, None, None


class _SelectMessages(torch.autograd.Function):
    """The same where a message has two operands: each receives its derivative at the winner."""

    @staticmethod
    def forward(
        ctx: Any,
        fwd: Csr,
        rev: Csr | None,
        x: Tensor,
        weight: Tensor,
        op: str,
        reduce: str,
        max_degree: int,
        backend: str,
    ) -> Tensor:
        out, argument = message_select_op(*fwd, x, weight, op, reduce, max_degree, backend)
        ctx.save_for_backward(*fwd, *(rev or NO_CSR), x, weight, argument)
        ctx.op = op
        ctx.backend = backend
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        *arrays, x, weight, argument = ctx.saved_tensors
        need_x, need_weight = ctx.needs_input_grad[2:4]
        of_columns, of_weight = message_select_backward_op(
            *arrays, x, weight, argument, grad, ctx.op, need_x, need_weight, ctx.backend
        )
        grads = (
            fit(of_columns, x.shape[1:]) if need_x else None,
            of_weight if need_weight else None,
        )
        grad_x, grad_weight = first_derivative_only(
            "spmm with max or min", grads, (grad, x, weight)
        )
        return None, None, grad_x, grad_weight, None, None, None, None


def _reverse_for_select(g: Graph, name: str) -> Csr | None:
    """The reverse where a gradient of max or min walks it; C++ scatters from the rows instead."""
    return g.reverse_csr() if name in DEVICE_BACKENDS else None


# -- public ----------------------------------------------------------------------------------------


@placed("dst", x="src", weight="edge")
def spmm(
    g: Graph,
    x: Tensor | None,  # [num_src, F], [num_src, H, D] or [num_src, ...]
    weight: Tensor | None = None,  # [E], [E, H] or [E, ...]
    *,
    op: str = "mul",
    reduce: str = "sum",
    backend: str | None = None,
) -> Tensor:
    """Reduce the messages `x[u] * weight[e]` over the edges e = (u, v) into each node v.

    Args:
        g: The graph.
        x: [num_src, F], [num_src, H, D] or more dimensions of node features. None: the messages are
            the rows of `weight`.
        weight: None: the messages are the rows of x. [E] one weight per edge; [E, H] one per edge
            and head, beside x of three dimensions; or [E, ...] with as many dimensions as x, which
            broadcast behind the rows, such as [E, F], [E, 1], [E, H, D], [E, H, 1] or [E, 1, D]. In
            the caller's edge order.
        op: "mul", "add", "sub" (x - weight) or "div" (x / weight).
        reduce: "sum", "mean" (the sum divided by the number of edges), "max" or "min".
        backend: Where to run; by default the fastest that can.

    Returns:
        [num_dst, ...], the dtype of the operands. A node without edges gets 0.

    Numerics: halves are summed in float32 and rounded once. NaN propagates through max and min;
    of equal messages the first edge in the caller's order wins and takes the whole gradient.
    Results repeat bit for bit, for any number of threads.

    Gradients: of x and weight, by any number of derivatives for sum and mean, once for max and min.

    Transforms: forward mode and torch.func (grad, vjp, jvp, vmap) for sum and mean; vmap runs one
    kernel for the whole batch.

    Cost: reads E rows of x, the weight and E indices, writes num_dst rows; nothing of size E x F is
    made but the gradient of a weight that has this size. The gradient of x is the same over the
    reversed graph (sorted at first use, then cached on `g`). A weight that broadcasts neither by
    edge nor by head, such as [E, 1, D], and an x that broadcasts are read column by column.
    On a CPU a wide x that is read often (32 edges per source and more, 12 MB and more) is copied
    once, into blocks of columns that lie in a nearer cache; the bits are the same.

    Raises:
        TypeError: an argument is no tensor, not floating, or the dtypes differ.
        ValueError: a shape, device or option is wrong.
        BackendUnavailable: `backend` cannot run this call.

    Source: the generalised SpMM of Wang et al., "Deep Graph Library", 2019.
    """
    check_graph("spmm", g)
    check_option("spmm", "op", op, OPS)
    check_option("spmm", "reduce", reduce, REDUCES)
    x, weight = cast_for_autocast(x, weight)
    if x is None and weight is not None:
        check_floats("spmm", g.device, weight=weight)
        if weight.dim() == 0 or weight.shape[0] != g.num_edges:
            raise ValueError(
                f"spmm: weight must have shape [E={g.num_edges}, ...], got {list(weight.shape)}"
            )
    else:
        check_floats("spmm", g.device, x=x, weight=weight)
        _check_shapes(g, x, weight)
    linear = reduce in ("sum", "mean")
    query = query_of(weight if x is None else x)
    implementation = choose("spmm", IMPLEMENTATIONS, query, backend, linear)
    name = implementation.backend
    if name == "reference":
        return spmm_reference(g, x, weight, reduce, op)
    if x is None:
        return _reduce_edges(g, weight, reduce, name)
    if weight is not None and (op != "mul" or weight.dim() == x.dim()):
        return _reduce_messages(g, x, weight, op, reduce, name)
    return _reduce_rows(g, x, weight, reduce, name)


def _reduce_rows(g: Graph, x: Tensor, weight: Tensor | None, reduce: str, name: str) -> Tensor:
    """Rows of x, with a weight per edge or per edge and head, or without."""
    if reduce in ("sum", "mean"):
        if is_tracked(x, weight):
            return sum_rows(g.csr, g.reverse_csr(), x, weight, name, reduce)
    elif needs_gradient(x, weight):
        rev = _reverse_for_select(g, name)
        out: Tensor = _SelectRows.apply(g.csr, rev, x, weight, reduce, g.max_degree, name)
        return out
    return _spmm_op(*g.csr, x, weight, reduce, name)  # type: ignore[no-any-return]


def _reduce_edges(g: Graph, values: Tensor, reduce: str, name: str) -> Tensor:
    """Rows of an edge tensor."""
    if reduce in ("sum", "mean"):
        if is_tracked(values):
            return edge_sum(g.csr, g.reverse_csr(), values, reduce, name)
    elif needs_gradient(values):
        csr = by_edge(g.csr)
        out: Tensor = _SelectRows.apply(csr, None, values, None, reduce, g.max_degree, name)
        return out
    return _spmm_op(*by_edge(g.csr), values, None, reduce, name)  # type: ignore[no-any-return]


def _reduce_messages(
    g: Graph, x: Tensor, weight: Tensor, op: str, reduce: str, name: str
) -> Tensor:
    """Messages of two operands."""
    if weight.dim() < x.dim():
        weight = weight.reshape(*weight.shape, *[1] * (x.dim() - weight.dim()))
    if op == "mul":
        shape = torch.broadcast_shapes(x.shape[1:], weight.shape[1:])
        heads = groups(tuple(weight.shape[1:]), tuple(shape)) if x.shape[1:] == shape else None
        if heads is not None and (heads == 1 or heads < shape.numel()):
            # A weight per edge, or per edge and head, in other words.
            rows = x.reshape(-1, heads, shape.numel() // heads) if heads > 1 else x
            narrow = weight.reshape(-1, heads) if heads > 1 else weight.reshape(-1)
            out = _reduce_rows(g, rows, narrow, reduce, name)
            return out.reshape(-1, *shape) if heads > 1 else out
    if reduce in ("sum", "mean"):
        if is_tracked(x, weight):
            return message_sum(g.csr, g.reverse_csr(), x, weight, op, reduce, name)
    elif needs_gradient(x, weight):
        rev = _reverse_for_select(g, name)
        selected: Tensor = _SelectMessages.apply(
            g.csr, rev, x, weight, op, reduce, g.max_degree, name
        )
        return selected
    return message_sum_op(*g.csr, x, weight, op, reduce, name)  # type: ignore[no-any-return]


def _check_shapes(g: Graph, x: Tensor, weight: Tensor | None) -> None:
    if x.dim() < 2 or x.shape[0] != g.num_src:
        raise ValueError(
            f"spmm: x must have shape [num_src={g.num_src}, F], [num_src={g.num_src}, H, D] or "
            f"more dimensions, got {list(x.shape)}"
        )
    if weight is None or tuple(weight.shape) == (g.num_edges,):
        return
    wanted = f"[E={g.num_edges}]"
    if x.dim() == 3:
        if tuple(weight.shape) == (g.num_edges, x.shape[1]):
            return
        wanted += f" or [E={g.num_edges}, H={x.shape[1]}]"
    if weight.dim() == x.dim() and weight.shape[0] == g.num_edges:
        pairs = zip(weight.shape[1:], x.shape[1:], strict=True)
        if all(a == b or a == 1 or b == 1 for a, b in pairs):
            return
    raise ValueError(
        f"spmm: weight must have shape {wanted} or [E={g.num_edges}, ...] that broadcasts with x "
        f"of shape {list(x.shape)}, got {list(weight.shape)}"
    )
