"""gather_matmul: every row times the matrix that its type names."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnkern.backends import (
    Implementation,
    choose,
    cpu_unsupported,
    reference_unsupported,
    triton_unsupported,
)
from gnnkern.ops._checks import device_of, query_of
from gnnkern.ops._groups import check_positions, check_range, order_by_group
from gnnkern.ops._operator import cast_for_autocast, define
from gnnkern.ops.segment_matmul import check_matrices, multiply, segment_matmul_cpu
from gnnkern.reference.gather_matmul import gather_matmul_reference

__all__ = ["gather_matmul"]


def gather_matmul_cpu(
    x: Tensor,  # [N, K]
    weight: Tensor,  # [R, K, M]
    type_index: Tensor,  # [N]
    bias: Tensor | None = None,  # [R, M]
) -> Tensor:  # [N, M]
    """The C++ products of segments, whose rows are read and written where they are."""
    indptr, order = _order_by_type(type_index, weight.shape[0])
    return segment_matmul_cpu(x, indptr, weight, bias, order)


def gather_matmul_triton(
    x: Tensor,  # [N, K]
    weight: Tensor,  # [R, K, M]
    type_index: Tensor,  # [N]
    bias: Tensor | None = None,  # [R, M]
) -> Tensor:  # [N, M]
    """The Triton products of segments, whose rows are read and written where they are."""
    from gnnkern._triton.segment_matmul import multiply_segments

    indptr, order = _order_by_type(type_index, weight.shape[0])
    return multiply_segments(x, indptr, order, weight, bias)


IMPLEMENTATIONS = (
    Implementation("cpu", gather_matmul_cpu, cpu_unsupported),
    Implementation("triton", gather_matmul_triton, triton_unsupported),
    Implementation("reference", gather_matmul_reference, reference_unsupported),
)

# -- torch operator --------------------------------------------------------------------------------

_NAMES = ("type_index", "R")


def _order_by_type(type_index: Tensor, num_types: int) -> tuple[Tensor, Tensor]:
    """Stable counting sort: indptr [R + 1] and the positions [N] of each type's rows."""
    return order_by_group("gather_matmul", type_index, num_types, _NAMES)


_order_by_type_op = define(
    "order_by_type",
    "(Tensor type_index, SymInt num_types) -> (Tensor, Tensor)",
    _order_by_type,
    lambda type_index, num_types: (
        type_index.new_empty(num_types + 1, dtype=torch.int64),
        type_index.new_empty(type_index.shape, dtype=torch.int64),
    ),
)

# -- public ----------------------------------------------------------------------------------------


def gather_matmul(
    x: Tensor,  # [N, K]
    weight: Tensor,  # [R, K, M]
    type_index: Tensor,  # [N]
    bias: Tensor | None = None,  # [R, M]
    *,
    backend: str | None = None,
) -> Tensor:  # [N, M]
    """Multiply row i of x by the matrix of its type: `x[i] @ weight[t] + bias[t]`, t its type.

    Args:
        x: [N, K] rows in any order.
        weight: [R, K, M] one matrix per type.
        type_index: [N] int32 or int64 type of each row, below R.
        bias: None, or [R, M] one row per type.
        backend: Where to run; by default the fastest that can.

    Returns:
        [N, M], the dtype of x. The matrix of a type that never occurs has gradient 0.

    Numerics: those of `segment_matmul`; rows of a type are summed in their order.

    Gradients: of x, weight and bias, by any number of derivatives.

    Cost: a stable counting sort of the types, then `segment_matmul`, which reads and writes each
    row where it is: nothing is permuted.

    Raises:
        TypeError: a tensor has a wrong type, or type_index is not of integers.
        ValueError: a shape or device is wrong, or a type is out of range; the first such position
            is named.
        BackendUnavailable: `backend` cannot run this call.

    Source: gather_mm of DGL.
    """
    if isinstance(x, Tensor):
        x, weight, bias = cast_for_autocast(x, weight, bias)
    device_of("gather_matmul", x)
    check_positions("gather_matmul", "type_index", type_index, x, "N")
    check_matrices("gather_matmul", x, weight, bias, None)
    implementation = choose("gather_matmul", IMPLEMENTATIONS, query_of(x), backend)
    if implementation.backend == "reference":
        check_range("gather_matmul", type_index, weight.shape[0], None, _NAMES)
        return gather_matmul_reference(x, weight, type_index, bias)
    indptr, order = _order_by_type_op(type_index, weight.shape[0])
    return multiply(x, indptr, order, weight, bias, implementation.backend)
