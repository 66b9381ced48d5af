"""The C++ module: loading it, and its kernels as functions of tensors.

Nothing here checks shapes: the public ops and `Graph` have done so. Every output is allocated here.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from gnnkern.settings import isa_from_environment

__all__ = ["Csr", "argument_dtype", "native", "native_error"]


class Csr(NamedTuple):
    """The tensors of a CSR matrix whose rows are destinations."""

    indptr: Tensor  # [num_rows + 1]
    indices: Tensor  # [E]
    edge_id: Tensor | None  # [E], None: the caller's order
    plan: Tensor  # int64 [plan_length(num_rows, E)]


def _share_openmp() -> str | None:
    """Make the libgomp that torch has loaded visible to `_C`; returns why it could not."""
    try:
        mapped = Path("/proc/self/maps").read_text()
    except OSError as error:
        return f"the loaded libraries cannot be listed: {error}"
    libraries = re.findall(r"(/\S*/lib(?:gomp|iomp5|omp)[^/\s]*\.so[^/\s]*)$", mapped, re.MULTILINE)
    if not libraries:
        return "torch has loaded no OpenMP library"
    ctypes.CDLL(libraries[0], mode=ctypes.RTLD_GLOBAL)
    return None


def _load() -> tuple[ModuleType | None, str | None]:
    reason = _share_openmp()
    try:
        from gnnkern import _C
    except ImportError as error:
        return None, f"{error}" if reason is None else f"{error} ({reason})"
    isa = isa_from_environment()
    if isa is not None:
        _C.set_isa(isa)
    return _C, None


native, native_error = _load()

_SCALAR_CODES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_INDEX_CODES = {torch.int32: 0, torch.int64: 1}
_REDUCE_CODES = {"sum": 0, "mean": 1, "max": 2, "min": 3, "mul": 4}
_EDGE_OP_CODES = {"dot": 0, "add": 1, "sub": 2, "mul": 3, "div": 4}

# Torch has no arithmetic on unsigned 16 and 32 bit integers; these tensors are only stored.
_ARGUMENT_DTYPES = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


def argument_dtype(max_degree: int) -> torch.dtype:
    """The narrowest integer that holds every position in a row of `max_degree` edges."""
    return torch.uint8 if max_degree < 255 else torch.int16 if max_degree < 65535 else torch.int32


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """The precision sums are held in: float64 for float64, otherwise float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _module() -> ModuleType:
    if native is None:
        raise RuntimeError(f"gnnkern: the C++ module did not load: {native_error}")
    return native


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _fields(csr: Csr, num_cols: int) -> tuple[int, ...]:
    return (
        _INDEX_CODES[csr.indptr.dtype],
        csr.indptr.data_ptr(),
        csr.indices.data_ptr(),
        _address(csr.edge_id),
        csr.plan.data_ptr(),
        csr.indptr.shape[0] - 1,
        num_cols,
        csr.indices.shape[0],
    )


def _segment_fields(indptr: Tensor, num_edges: int) -> tuple[int, ...]:
    """Segments of consecutive rows; their plan is made, and indptr checked, by the callee."""
    num_rows = indptr.shape[0] - 1
    code = _INDEX_CODES[indptr.dtype]
    return (code, indptr.data_ptr(), 0, 0, 0, num_rows, num_edges, num_edges)


# -- graph ---------------------------------------------------------------------------------------


def plan_length(num_rows: int, num_edges: int) -> int:
    """How many int64 elements the plan of a matrix takes."""
    return int(_module().plan_length(num_rows, num_edges))


def make_plan(indptr: Tensor, num_edges: int) -> Tensor:
    """Row-chunk plan of `indptr` [num_rows + 1]; ValueError where it is no valid indptr."""
    num_rows = indptr.shape[0] - 1
    plan = torch.empty(plan_length(num_rows, num_edges), dtype=torch.int64)
    code = _INDEX_CODES[indptr.dtype]
    _module().make_plan(code, indptr.data_ptr(), num_rows, num_edges, plan.data_ptr())
    return plan


def plan_max_degree(plan: Tensor) -> int:
    """The largest row of a plan."""
    return int(plan[7])


def sort_edges(
    rows: Tensor,  # [E], any stride
    cols: Tensor | None,  # [E], any stride
    num_rows: int,
    num_cols: int,
    dtype: torch.dtype,
) -> tuple[int, bool, Tensor, Tensor, Tensor]:
    """Stable sort by row: (first bad edge or -1, was sorted, indptr, indices, edge_id)."""
    num_edges = rows.shape[0]
    indptr = torch.empty(num_rows + 1, dtype=dtype)
    indices = torch.empty(num_edges if cols is not None else 0, dtype=dtype)
    edge_id = torch.empty(num_edges, dtype=dtype)
    bad_edge, was_sorted = _module().sort_edges(
        _INDEX_CODES[rows.dtype],
        rows.data_ptr(),
        rows.stride(0) if num_edges else 1,
        _address(cols),
        cols.stride(0) if cols is not None and num_edges else 1,
        num_edges,
        num_rows,
        num_cols,
        _INDEX_CODES[dtype],
        indptr.data_ptr(),
        indices.data_ptr() if cols is not None else 0,
        edge_id.data_ptr(),
        torch.get_num_threads(),
    )
    return bad_edge, was_sorted, indptr, indices, edge_id


def reverse_csr(
    indptr: Tensor,  # [num_rows + 1]
    indices: Tensor,  # [E]
    edge_id: Tensor | None,  # [E]
    num_cols: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The transposed matrix (indptr [num_cols + 1], indices [E], edge_id [E])."""
    rev_indptr = torch.empty(num_cols + 1, dtype=indptr.dtype)
    rev_indices = torch.empty_like(indices)
    rev_edge_id = torch.empty_like(indices)
    _module().reverse_csr(
        _INDEX_CODES[indptr.dtype],
        indptr.data_ptr(),
        indices.data_ptr(),
        _address(edge_id),
        indptr.shape[0] - 1,
        num_cols,
        indices.shape[0],
        rev_indptr.data_ptr(),
        rev_indices.data_ptr(),
        rev_edge_id.data_ptr(),
        torch.get_num_threads(),
    )
    return rev_indptr, rev_indices, rev_edge_id


# -- row reductions --------------------------------------------------------------------------------


def _rows(x: Tensor) -> tuple[Tensor, int, int]:
    """`x` with contiguous rows, its row stride and its row width, in elements."""
    width = x.shape[1:].numel()
    if x.dim() == 2 and x.stride(1) == 1 and x.stride(0) >= width:
        return x, x.stride(0), width
    x = x.contiguous()
    return x, width, width


def _reduce(
    fields: tuple[int, ...],
    x: Tensor,
    weight: Tensor | None,  # [E] or [E, H]
    reduce: str,
    argument: torch.dtype | None,
) -> tuple[Tensor, Tensor | None]:
    num_rows = fields[5]
    out = x.new_empty((num_rows, *x.shape[1:]))
    positions = None if argument is None else x.new_empty(out.shape, dtype=argument)
    if out.numel() == 0:
        return out, positions
    x, x_stride, width = _rows(x)
    weight = None if weight is None else weight.contiguous()
    _module().row_reduce(
        fields,
        _SCALAR_CODES[x.dtype],
        x.data_ptr(),
        x_stride,
        width,
        _address(weight),
        1 if weight is None or weight.dim() == 1 else weight.shape[1],
        _REDUCE_CODES[reduce],
        out.data_ptr(),
        _address(positions),
        0 if positions is None else positions.element_size(),
        torch.get_num_threads(),
    )
    return out, positions


def row_reduce(
    csr: Csr,
    x: Tensor,  # [num_cols, ...]
    weight: Tensor | None,  # [E] or [E, H]
    reduce: str,
    argument: torch.dtype | None = None,
) -> tuple[Tensor, Tensor | None]:
    """out[r] = reduction over the edges of row r of weight * x; with `argument` who won."""
    return _reduce(_fields(csr, x.shape[0]), x, weight, reduce, argument)


def segment_reduce(
    indptr: Tensor,  # [num_segments + 1]
    x: Tensor,  # [E, ...]
    reduce: str,
    argument: torch.dtype | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The same over consecutive rows of x."""
    return _reduce(_segment_fields(indptr, x.shape[0]), x, None, reduce, argument)


def _select_backward(
    fields: tuple[int, ...],
    grad: Tensor,  # [num_rows, ...]
    weight: Tensor | None,  # [E] or [E, H]
    argument: Tensor,  # [num_rows, ...]
    grad_x: Tensor | None,
    grad_weight: Tensor | None,
    x: Tensor | None,
) -> None:
    x_stride = 0
    if x is not None:
        x, x_stride, _ = _rows(x)
    grad = grad.contiguous()
    weight = None if weight is None else weight.contiguous()
    heads_of = weight if weight is not None else grad_weight
    _module().select_backward(
        fields,
        _SCALAR_CODES[grad.dtype],
        grad.data_ptr(),
        grad.shape[1:].numel(),
        _address(weight),
        1 if heads_of is None or heads_of.dim() == 1 else heads_of.shape[1],
        argument.data_ptr(),
        argument.element_size(),
        _address(grad_x),
        _address(grad_weight),
        _address(x),
        x_stride,
        torch.get_num_threads(),
    )


def select_backward_x(
    csr: Csr, grad: Tensor, weight: Tensor | None, argument: Tensor, num_cols: int
) -> Tensor:
    """Gradient [num_cols, ...] of the x of a max or min: each winner receives its row's."""
    grad_x = grad.new_empty((num_cols, *grad.shape[1:]))
    if grad.numel() == 0:
        return grad_x.zero_()
    if grad_x.numel():
        _select_backward(_fields(csr, num_cols), grad, weight, argument, grad_x, None, None)
    return grad_x


def select_backward_weight(
    csr: Csr, grad: Tensor, weight: Tensor, argument: Tensor, x: Tensor
) -> Tensor:
    """Gradient of the weight, [E] or [E, H]."""
    grad_weight = torch.empty(weight.shape, dtype=accumulate_dtype(grad.dtype))
    if grad.numel() == 0 or grad_weight.numel() == 0:
        return grad_weight.zero_().to(weight.dtype)
    fields = _fields(csr, x.shape[0])
    _select_backward(fields, grad, None, argument, None, grad_weight, x)
    return grad_weight.to(weight.dtype)


def segment_select_backward(
    indptr: Tensor, grad: Tensor, argument: Tensor, num_edges: int
) -> Tensor:
    """Gradient [E, ...] of the x of a segment max or min."""
    grad_x = grad.new_empty((num_edges, *grad.shape[1:]))
    if grad.numel() == 0:
        return grad_x.zero_()
    if grad_x.numel():
        fields = _segment_fields(indptr, num_edges)
        _select_backward(fields, grad, None, argument, grad_x, None, None)
    return grad_x


def segment_gather(indptr: Tensor, x: Tensor, num_edges: int) -> Tensor:
    """[E, ...]: row r of x for every position of segment r."""
    out = x.new_empty((num_edges, *x.shape[1:]))
    if out.numel():
        x = x.contiguous()
        row_bytes = x.shape[1:].numel() * x.element_size()
        _module().segment_gather(
            _segment_fields(indptr, num_edges),
            row_bytes,
            x.data_ptr(),
            out.data_ptr(),
            torch.get_num_threads(),
        )
    return out


# -- edges -----------------------------------------------------------------------------------------


def sddmm(csr: Csr, x_dst: Tensor, x_src: Tensor, op: str) -> Tensor:
    """One result per edge, in the caller's order."""
    heads = 1 if x_dst.dim() == 2 else x_dst.shape[1]
    width = x_dst.shape[1:].numel()
    num_edges = csr.indices.shape[0]
    shape = x_dst.shape[1:] if op != "dot" else x_dst.shape[1:-1]
    out = x_dst.new_empty((num_edges, *shape))
    if width == 0:
        return out.zero_()
    if out.numel():
        x_dst, x_src = x_dst.contiguous(), x_src.contiguous()
        _module().sddmm(
            _fields(csr, x_src.shape[0]),
            _SCALAR_CODES[x_dst.dtype],
            x_dst.data_ptr(),
            x_src.data_ptr(),
            width,
            heads,
            _EDGE_OP_CODES[op],
            out.data_ptr(),
            torch.get_num_threads(),
        )
    return out


def _softmax(fields: tuple[int, ...], score: Tensor, grad: Tensor | None) -> Tensor:
    score = score.contiguous()
    grad = None if grad is None else grad.contiguous()
    out = torch.empty_like(score)
    if out.numel():
        _module().segment_softmax(
            fields,
            _SCALAR_CODES[score.dtype],
            score.shape[1:].numel(),
            score.data_ptr(),
            _address(grad),
            out.data_ptr(),
            torch.get_num_threads(),
        )
    return out


def edge_softmax(csr: Csr, score: Tensor, num_src: int, grad: Tensor | None = None) -> Tensor:
    """Softmax over each row; with `grad`, `score` is the softmax and its gradient comes back."""
    return _softmax(_fields(csr, num_src), score, grad)


def segment_softmax(indptr: Tensor, x: Tensor, grad: Tensor | None = None) -> Tensor:
    """The same over consecutive rows of x."""
    return _softmax(_segment_fields(indptr, x.shape[0]), x, grad)


# -- attention -------------------------------------------------------------------------------------


def gat_forward(
    csr: Csr,
    x: Tensor,  # [num_src, H, D]
    score_src: Tensor,  # [num_src, H]
    score_dst: Tensor,  # [num_dst, H]
    edge_score: Tensor | None,  # [E, H]
    negative_slope: float,
    dropout: float,
    seed: Tensor | None,  # int64 [1]
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(out [num_dst, H, D], log_sum_exp [num_dst, H], wide_out).

    wide_out is `out` before it is rounded where `save` asks for it and x is a half, otherwise
    empty. The gradient subtracts <out, grad> from numbers close to it and needs all its digits.
    """
    num_dst = csr.indptr.shape[0] - 1
    _, heads, head_width = x.shape
    out = x.new_empty((num_dst, heads, head_width))
    log_sum_exp = x.new_empty((num_dst, heads), dtype=accumulate_dtype(x.dtype))
    keeps_wide = save and log_sum_exp.dtype != x.dtype
    wide_out = log_sum_exp.new_empty(out.shape if keeps_wide else (0,))
    if log_sum_exp.numel() == 0 or head_width == 0:
        return out, log_sum_exp.fill_(-torch.inf), wide_out
    x, score_src, score_dst = x.contiguous(), score_src.contiguous(), score_dst.contiguous()
    edge_score = None if edge_score is None else edge_score.contiguous()
    _module().gat_forward(
        _fields(csr, x.shape[0]),
        _SCALAR_CODES[x.dtype],
        x.data_ptr(),
        heads,
        head_width,
        score_src.data_ptr(),
        score_dst.data_ptr(),
        _address(edge_score),
        negative_slope,
        dropout,
        0 if seed is None else int(seed) & 0xFFFFFFFFFFFFFFFF,
        out.data_ptr(),
        wide_out.data_ptr() if keeps_wide else 0,
        log_sum_exp.data_ptr(),
        torch.get_num_threads(),
    )
    return out, log_sum_exp, wide_out


def gat_backward(
    rev: Csr,
    x: Tensor,  # [num_src, H, D]
    score_src: Tensor,  # [num_src, H]
    score_dst: Tensor,  # [num_dst, H]
    edge_score: Tensor | None,  # [E, H]
    negative_slope: float,
    dropout: float,
    seed: Tensor | None,
    out: Tensor,  # [num_dst, H, D] in accumulation precision
    log_sum_exp: Tensor,  # [num_dst, H]
    grad: Tensor,  # [num_dst, H, D]
) -> tuple[Tensor, Tensor, Tensor]:
    """(grad_x, grad_score_src, grad_score [E, H] in accumulation precision, caller's order)."""
    num_dst, heads, head_width = grad.shape
    num_edges = rev.indices.shape[0]
    wide = accumulate_dtype(x.dtype)
    grad_x = x.new_empty(x.shape)
    grad_score_src = score_src.new_empty(score_src.shape)
    grad_score = x.new_empty((num_edges, heads), dtype=wide)
    if num_edges == 0 or x.numel() == 0:
        return grad_x.zero_(), grad_score_src.zero_(), grad_score.zero_()
    code, threads = _SCALAR_CODES[x.dtype], torch.get_num_threads()
    x, score_src, score_dst = x.contiguous(), score_src.contiguous(), score_dst.contiguous()
    edge_score = None if edge_score is None else edge_score.contiguous()
    out, grad = out.contiguous(), grad.contiguous()
    packed_dst = x.new_empty((num_dst, 3, heads), dtype=wide)
    _module().gat_pack(
        code,
        num_dst,
        heads,
        head_width,
        score_dst.data_ptr(),
        log_sum_exp.data_ptr(),
        out.data_ptr(),
        grad.data_ptr(),
        packed_dst.data_ptr(),
        threads,
    )
    _module().gat_backward(
        _fields(rev, num_dst),
        code,
        x.data_ptr(),
        heads,
        head_width,
        score_src.data_ptr(),
        packed_dst.data_ptr(),
        _address(edge_score),
        grad.data_ptr(),
        negative_slope,
        dropout,
        0 if seed is None else int(seed) & 0xFFFFFFFFFFFFFFFF,
        grad_x.data_ptr(),
        grad_score_src.data_ptr(),
        grad_score.data_ptr(),
        threads,
    )
    return grad_x, grad_score_src, grad_score
