"""multi_reduce: every node reduces the rows of its in-neighbours in several ways at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gnnkern import _native
from gnnkern._cpu.multi_reduce import (
    kept_rows,
    multi_reduce_backward,
    multi_reduce_forward,
    selections,
)
from gnnkern._native import Csr
from gnnkern.backends import (
    Implementation,
    choose,
    cpu_unsupported,
    reference_unsupported,
    triton_unsupported,
)
from gnnkern.graph import Graph
from gnnkern.ops._checks import check_floats, check_graph, check_rows, query_of
from gnnkern.ops._linear import divide_by_count, sum_rows
from gnnkern.ops._operator import (
    cast_for_autocast,
    define,
    first_derivative_only,
    needs_gradient,
)
from gnnkern.ops._placement import placed
from gnnkern.ops.spmm import REDUCES as SPMM_REDUCES
from gnnkern.ops.spmm import spmm
from gnnkern.reference.multi_reduce import multi_reduce_reference

__all__ = ["multi_reduce"]

REDUCES = ("sum", "mean", "min", "max", "std", "var")


def multi_reduce_cpu(
    csr: Csr, x: Tensor, reduces: Sequence[str], max_degree: int, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The C++ row reduction: the result, and what its gradient needs."""
    return multi_reduce_forward(csr, x, reduces, max_degree, save)


def multi_reduce_triton(
    csr: Csr, x: Tensor, reduces: Sequence[str], max_degree: int, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The Triton row reductions: the result, and what its gradient needs."""
    from gnnkern._triton.multi_reduce import multi_reduce_forward

    return multi_reduce_forward(csr, x, reduces, max_degree, save)


IMPLEMENTATIONS = (
    Implementation("cpu", multi_reduce_cpu, cpu_unsupported),
    Implementation("triton", multi_reduce_triton, triton_unsupported),
    Implementation("reference", multi_reduce_reference, reference_unsupported),
)

# -- torch operators -------------------------------------------------------------------------------

_LAUNCH = {"cpu": multi_reduce_cpu, "triton": multi_reduce_triton}


def _backward_triton(
    fwd: Csr,
    rev: Csr,
    x: Tensor,
    out: Tensor,
    winners: Tensor,
    saved: Tensor,
    grad: Tensor,
    reduces: Sequence[str],
) -> Tensor:
    from gnnkern._triton.multi_reduce_backward import multi_reduce_backward

    return multi_reduce_backward(fwd, rev, x, out, winners, saved, grad, reduces)


_LAUNCH_BACKWARD = {"cpu": multi_reduce_backward, "triton": _backward_triton}


def _multi_reduce(
    indptr: Tensor,  # [num_dst + 1]
    indices: Tensor,  # [E]
    edge_id: Tensor | None,  # [E]
    plan: Tensor,
    x: Tensor,  # [num_src, F] or [num_src, H, D]
    reduces: list[str],
    max_degree: int,
    save: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    csr = Csr(indptr, indices, edge_id, plan)
    return _LAUNCH[backend](csr, x, reduces, max_degree, save)


def _multi_reduce_fake(
    indptr: Tensor,
    indices: Tensor,
    edge_id: Tensor | None,
    plan: Tensor,
    x: Tensor,
    reduces: list[str],
    max_degree: int,
    save: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    num_dst = indptr.shape[0] - 1
    rows = (num_dst, *x.shape[1:])
    num_winners = len(selections(reduces)) if save else 0
    num_kept = len(kept_rows(reduces, x.dtype)) if save else 0
    return (
        x.new_empty((num_dst, len(reduces), *x.shape[1:])),
        x.new_empty((num_winners, *rows), dtype=_native.argument_dtype(max_degree)),
        x.new_empty((num_kept, *rows), dtype=_native.accumulate_dtype(x.dtype)),
    )


_multi_reduce_op = define(
    "multi_reduce",
    "(Tensor indptr, Tensor indices, Tensor? edge_id, Tensor plan, Tensor x, str[] reduces,"
    " int max_degree, bool save, str backend) -> (Tensor, Tensor, Tensor)",
    _multi_reduce,
    _multi_reduce_fake,
)


def _multi_reduce_backward(
    arrays: list[Tensor],
    edge_id: Tensor | None,
    rev_edge_id: Tensor | None,
    x: Tensor,  # [num_src, ...]
    out: Tensor,  # [num_dst, R, ...]
    winners: Tensor,  # [K, num_dst, ...]
    saved: Tensor,  # [S, num_dst, ...]
    grad: Tensor,  # [num_dst, R, ...]
    reduces: list[str],
    backend: str,
) -> Tensor:
    indptr, indices, plan, rev_indptr, rev_indices, rev_plan = arrays
    fwd = Csr(indptr, indices, edge_id, plan)
    rev = Csr(rev_indptr, rev_indices, rev_edge_id, rev_plan)
    return _LAUNCH_BACKWARD[backend](fwd, rev, x, out, winners, saved, grad, reduces)


_multi_reduce_backward_op = define(
    "multi_reduce_backward",
    "(Tensor[] arrays, Tensor? edge_id, Tensor? rev_edge_id, Tensor x, Tensor out, Tensor winners,"
    " Tensor saved, Tensor grad, str[] reduces, str backend) -> Tensor",
    _multi_reduce_backward,
    lambda arrays, edge_id, rev_edge_id, x, *_: x.new_empty(x.shape),
)

# -- gradient --------------------------------------------------------------------------------------


class _MultiReduce(torch.autograd.Function):
    """Every message gets a part of its node's gradients, and a part that grows with its distance.

    With n messages into v, the message m receives a + b (m - mean), where a is the gradient of the
    sum and 1/n of that of the mean, and b is 2/n of that of the variance and 1/(n std) of that of
    the standard deviation; the winners of max and min receive those of theirs.
    """

    @staticmethod
    def forward(
        ctx: Any,
        fwd: Csr,
        rev: Csr,
        x: Tensor,
        reduces: list[str],
        max_degree: int,
        backend: str,
    ) -> Tensor:
        out, winners, saved = _multi_reduce_op(*fwd, x, reduces, max_degree, True, backend)
        ctx.save_for_backward(*fwd, *rev, x, out, winners, saved)
        ctx.reduces = reduces
        ctx.backend = backend
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        tensors = ctx.saved_tensors
        fwd, rev = Csr(*tensors[:4]), Csr(*tensors[4:8])
        x, out, winners, saved = tensors[8:]
        grad_x = _multi_reduce_backward_op(
            [fwd.indptr, fwd.indices, fwd.plan, rev.indptr, rev.indices, rev.plan],
            fwd.edge_id,
            rev.edge_id,
            x,
            out.detach(),
            winners,
            saved,
            grad,
            ctx.reduces,
            ctx.backend,
        )
        (guarded,) = first_derivative_only("multi_reduce", (grad_x,), (grad, x))
        return None, None, guarded, None, None, None


class _SumAndMean(torch.autograd.Function):
    """The gradient of sums and means is a row sum over the reversed graph, which has its own."""

    @staticmethod
    def forward(
        ctx: Any,
        fwd: Csr,
        rev: Csr,
        x: Tensor,
        reduces: list[str],
        max_degree: int,
        backend: str,
    ) -> Tensor:
        ctx.save_for_backward(*fwd, *rev)
        ctx.reduces = reduces
        ctx.backend = backend
        return _multi_reduce_op(*fwd, x, reduces, max_degree, False, backend)[0]  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        fwd, rev = Csr(*ctx.saved_tensors[:4]), Csr(*ctx.saved_tensors[4:])
        grad_sum, grad_mean = (grad[:, ctx.reduces.index(reduce)] for reduce in ("sum", "mean"))
        level = grad_sum + divide_by_count(grad_mean, fwd.indptr)  # [num_dst, ...]
        return None, None, sum_rows(rev, fwd, level, None, ctx.backend), None, None, None


# -- public ----------------------------------------------------------------------------------------


@placed("dst", x="src")
def multi_reduce(
    g: Graph,
    x: Tensor,  # [num_src, F] or [num_src, H, D]
    *,
    reduces: Sequence[str] = ("mean", "min", "max", "std"),
    backend: str | None = None,
) -> Tensor:  # [num_dst, R, F] or [num_dst, R, H, D]
    """Reduce the rows `x[u]` over the edges (u, v) into each node v in several ways, in one pass.

    `.flatten(1)` of the result stands the reductions side by side, as a PNA layer takes them.

    Args:
        g: The graph.
        x: [num_src, F] or [num_src, H, D] node features.
        reduces: A tuple or list of R different ones of "sum", "mean", "min", "max", "var" (the
            variance of the population: the mean of the squared distances from the mean) and "std"
            (its square root), in the order of the result.
        backend: Where to run; by default the fastest that can.

    Returns:
        [num_dst, R, F] or [num_dst, R, H, D], the dtype of x. A node without edges gets 0.

    Numerics: halves are reduced in float32 and rounded once. The variance is summed relative to a
    message of the row, and merged by means and squares about them, so that a common offset of the
    messages costs it no digits, and its gradient none. NaN propagates; of equal messages the first
    edge in the caller's order wins a max or min and takes the whole gradient. The gradient of a std
    of 0 is 0. Results repeat bit for bit, for any number of threads.

    Gradients: of x, once; by any number of derivatives for sum and mean alone.

    Cost: reads E rows of x and E indices, writes num_dst x R rows; nothing of size E x F is made.
    The gradient gathers E x 3 rows over the reversed graph for var or std and E rows for sum or
    mean alone, and adds num_dst rows of winners for each of max and min; on a GPU it asks for
    these on the way, which reads E rows of positions of 1 to 4 bytes.

    Raises:
        TypeError: an argument is no tensor, not floating, or `reduces` is no tuple or list.
        ValueError: a shape or device is wrong, or `reduces` is empty, repeats or is not known.
        BackendUnavailable: `backend` cannot run this call.

    Source: Corso et al., "Principal neighbourhood aggregation for graph nets", 2020.
    """
    check_graph("multi_reduce", g)
    (x,) = cast_for_autocast(x)
    check_floats("multi_reduce", g.device, x=x)
    check_rows("multi_reduce", "x", x, "num_src", g.num_src, ("F", "H, D"))
    _check_reduces(reduces)
    implementation = choose("multi_reduce", IMPLEMENTATIONS, query_of(x), backend)
    if implementation.backend == "reference":
        return multi_reduce_reference(g, x, reduces)
    names, name = list(reduces), implementation.backend
    if len(names) == 1 and names[0] in SPMM_REDUCES:
        return spmm(g, x, reduce=names[0], backend=name).unsqueeze(1)
    if not needs_gradient(x):
        out: Tensor = _multi_reduce_op(*g.csr, x, names, g.max_degree, False, name)[0]
        return out
    function = _SumAndMean if set(names) == {"sum", "mean"} else _MultiReduce
    out = function.apply(g.csr, g.reverse_csr(), x, names, g.max_degree, name)
    return out


def _check_reduces(reduces: Sequence[str]) -> None:
    if not isinstance(reduces, tuple | list) or not all(isinstance(r, str) for r in reduces):
        raise TypeError(f"multi_reduce: reduces must be a tuple or list of words, got {reduces!r}")
    if not reduces or len(set(reduces)) < len(reduces) or not set(reduces) <= set(REDUCES):
        raise ValueError(
            f"multi_reduce: reduces must be different ones of {', '.join(REDUCES)}, at least one, "
            f"got {reduces!r}"
        )
