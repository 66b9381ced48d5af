"""Launchers of multi_reduce.cpp: several reductions of one gather, and their gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gnnkern._cpu.row_reduce import row_reduce
from gnnkern._cpu.select_backward import add_winners
from gnnkern._native import (
    INDEX_CODES,
    SCALAR_CODES,
    Csr,
    accumulate_dtype,
    address,
    argument_dtype,
    fields,
    module,
    rows_of,
)

# The order in which the kernels take the places of reductions.
_KINDS = ("sum", "mean", "max", "min", "var", "std")
_SELECTIONS = ("max", "min")
_SPREADS = ("var", "std")


def _places(reduces: Sequence[str]) -> list[int]:
    """Where each kind stands among `reduces`, -1: nowhere; and how many there are."""
    found = [reduces.index(kind) if kind in reduces else -1 for kind in _KINDS]
    return [*found, len(reduces)]


def kept_rows(reduces: Sequence[str], dtype: torch.dtype) -> tuple[str, ...]:
    """What a forward keeps beside its result, in accumulation precision, for the gradient.

    With var or std: what the mean lost to rounding, and of the mean and the standard deviation
    what the result does not hold in that precision.
    """
    if not set(reduces) & set(_SPREADS):
        return ()
    held = set(reduces) if accumulate_dtype(dtype) == dtype else set()
    needed = {"mean", *reduces} & {"mean", "std"}
    return ("rest", *sorted(needed - held))


def selections(reduces: Sequence[str]) -> list[str]:
    """Those of `reduces` that one edge wins, in the order in which their arguments are stored."""
    return [kind for kind in _SELECTIONS if kind in reduces]


def multi_reduce_forward(
    csr: Csr,
    x: Tensor,  # [num_cols, ...]
    reduces: Sequence[str],
    max_degree: int,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The result [num_rows, R, ...], the winners [K, num_rows, ...], `kept_rows` [S, ...]."""
    num_rows = csr.indptr.shape[0] - 1
    out = x.new_empty((num_rows, len(reduces), *x.shape[1:]))
    selected = selections(reduces) if save else []
    kept = kept_rows(reduces, x.dtype) if save else ()
    rows = (num_rows, *x.shape[1:])
    winners = x.new_empty((len(selected), *rows), dtype=argument_dtype(max_degree))
    saved = x.new_empty((len(kept), *rows), dtype=accumulate_dtype(x.dtype))
    if out.numel():
        x, x_stride, width = rows_of(x)
        winner_of = dict(zip(selected, winners, strict=True))
        saved_of = dict(zip(kept, saved, strict=True))
        module().multi_reduce(
            fields(csr, x.shape[0]),
            SCALAR_CODES[x.dtype],
            x.data_ptr(),
            x_stride,
            width,
            _places(reduces),
            out.data_ptr(),
            address(winner_of.get("max")),
            address(winner_of.get("min")),
            winners.element_size(),
            address(saved_of.get("mean")),
            address(saved_of.get("rest")),
            address(saved_of.get("std")),
            torch.get_num_threads(),
        )
    return out, winners, saved


def multi_reduce_backward(
    fwd: Csr,
    rev: Csr,
    x: Tensor,  # [num_src, ...]
    out: Tensor,  # [num_dst, R, ...]
    winners: Tensor,  # [K, num_dst, ...]
    saved: Tensor,  # [S, num_dst, ...]
    grad: Tensor,  # [num_dst, R, ...]
    reduces: Sequence[str],
) -> Tensor:
    """The gradient of x."""
    if x.numel() == 0 or grad.numel() == 0:
        return x.new_zeros(x.shape)
    grad = grad.contiguous()
    base = None
    if set(reduces) - set(_SELECTIONS):
        base = _smooth_gradient(fwd, rev, x, out, saved, grad, reduces)
    selected = selections(reduces)
    if not selected:
        assert base is not None
        return base.to(x.dtype)
    grads = [grad[:, reduces.index(kind)] for kind in selected]
    return add_winners(fwd, grads, list(winners), x.shape[0], base)


def _smooth_gradient(
    fwd: Csr, rev: Csr, x: Tensor, out: Tensor, saved: Tensor, grad: Tensor, reduces: Sequence[str]
) -> Tensor:
    """The part of sum, mean, var and std, [num_src, ...] in accumulation precision."""
    num_dst, width = grad.shape[0], grad.shape[2:].numel()
    kept = kept_rows(reduces, x.dtype)
    saved_of = dict(zip(kept, saved, strict=True))

    def rows(kind: str) -> tuple[int, int]:
        """Address and row stride of the mean or std, saved or in the result."""
        if kind in saved_of:
            return saved_of[kind].data_ptr(), width
        if kept and kind in reduces:
            return out[:, reduces.index(kind)].data_ptr(), width * len(reduces)
        return 0, 0

    packed = saved.new_empty((num_dst, 3 if kept else 1, *x.shape[1:]))
    module().multi_reduce_pack(
        INDEX_CODES[fwd.indptr.dtype],
        fwd.indptr.data_ptr(),
        num_dst,
        SCALAR_CODES[x.dtype],
        width,
        _places(reduces),
        grad.data_ptr(),
        *rows("mean"),
        address(saved_of.get("rest")),
        *rows("std"),
        packed.data_ptr(),
        torch.get_num_threads(),
    )
    if not kept:
        return row_reduce(rev, packed[:, 0], None, "sum")[0]
    grad_x = packed.new_empty(x.shape)
    x, x_stride, _ = rows_of(x)
    module().multi_reduce_backward(
        fields(rev, num_dst),
        SCALAR_CODES[x.dtype],
        x.data_ptr(),
        x_stride,
        width,
        packed.data_ptr(),
        grad_x.data_ptr(),
        torch.get_num_threads(),
    )
    return grad_x
