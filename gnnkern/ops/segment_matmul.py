"""segment_matmul: consecutive rows times the matrix of their segment."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gnnkern._cpu.segment_matmul import multiply_segments, sum_outer_products
from gnnkern.backends import (
    Implementation,
    choose,
    cpu_unsupported,
    reference_unsupported,
    triton_unsupported,
)
from gnnkern.ops._checks import check_floats, check_indptr, check_shape, device_of, query_of
from gnnkern.ops._operator import cast_for_autocast, define, needs_gradient
from gnnkern.reference.segment_matmul import segment_matmul_reference

__all__ = ["segment_matmul"]


def segment_matmul_cpu(
    x: Tensor,  # [N, K]
    indptr: Tensor,  # [R + 1]
    weight: Tensor,  # [R, K, M]
    bias: Tensor | None = None,  # [R, M]
    order: Tensor | None = None,  # [N], the rows of the segments where they are not consecutive
) -> Tensor:  # [N, M]
    """The C++ products, tile by tile in registers; of large bfloat16 segments torch's."""
    return multiply_segments(x, indptr, order, weight, bias)


def segment_matmul_triton(
    x: Tensor,  # [N, K]
    indptr: Tensor,  # [R + 1]
    weight: Tensor,  # [R, K, M]
    bias: Tensor | None = None,  # [R, M]
    order: Tensor | None = None,  # [N], the rows of the segments where they are not consecutive
) -> Tensor:  # [N, M]
    """The Triton products, tile by tile over a list of tiles made on the device."""
    from gnnkern._triton.segment_matmul import multiply_segments

    return multiply_segments(x, indptr, order, weight, bias)


IMPLEMENTATIONS = (
    Implementation("cpu", segment_matmul_cpu, cpu_unsupported),
    Implementation("triton", segment_matmul_triton, triton_unsupported),
    Implementation("reference", segment_matmul_reference, reference_unsupported),
)

# -- torch operators -------------------------------------------------------------------------------

_LAUNCH = {"cpu": segment_matmul_cpu, "triton": segment_matmul_triton}


def _outer_triton(x: Tensor, y: Tensor, indptr: Tensor, order: Tensor | None) -> Tensor:
    from gnnkern._triton.segment_matmul import sum_outer_products

    return sum_outer_products(x, y, indptr, order)


_LAUNCH_OUTER = {"cpu": sum_outer_products, "triton": _outer_triton}


def _segment_matmul(
    x: Tensor,
    indptr: Tensor,
    order: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    backend: str,
) -> Tensor:
    return _LAUNCH[backend](x, indptr, weight, bias, order)


_segment_matmul_op = define(
    "segment_matmul",
    "(Tensor x, Tensor indptr, Tensor? order, Tensor weight, Tensor? bias, str backend) -> Tensor",
    _segment_matmul,
    lambda x, indptr, order, weight, bias, backend: x.new_empty((x.shape[0], weight.shape[2])),
)


def _segment_outer(
    x: Tensor, y: Tensor, indptr: Tensor, order: Tensor | None, backend: str
) -> Tensor:
    return _LAUNCH_OUTER[backend](x, y, indptr, order)


_segment_outer_op = define(
    "segment_outer",
    "(Tensor x, Tensor y, Tensor indptr, Tensor? order, str backend) -> Tensor",
    _segment_outer,
    lambda x, y, indptr, order, backend: x.new_empty((indptr.shape[0] - 1, x.shape[1], y.shape[1])),
)

# -- gradients -------------------------------------------------------------------------------------


class _Multiply(torch.autograd.Function):
    """The gradient of x is a product with the transposed matrices, of these a sum over segments."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        indptr: Tensor,
        order: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        backend: str,
    ) -> Tensor:
        ctx.save_for_backward(x, indptr, order, weight)
        ctx.backend = backend
        out: Tensor = _segment_matmul_op(x, indptr, order, weight, bias, backend)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, indptr, order, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = multiply(grad, indptr, order, weight.transpose(1, 2), None, ctx.backend)
        if ctx.needs_input_grad[3]:
            grad_weight = sum_outer(x, grad, indptr, order, ctx.backend)
        if ctx.needs_input_grad[4]:
            ones = grad.new_ones((grad.shape[0], 1))
            grad_bias = sum_outer(ones, grad, indptr, order, ctx.backend).squeeze(1)
        return grad_x, None, None, grad_weight, grad_bias, None


def multiply(
    x: Tensor,  # [N, K]
    indptr: Tensor,  # [R + 1]
    order: Tensor | None,  # [N]
    weight: Tensor,  # [R, K, M]
    bias: Tensor | None,  # [R, M]
    backend: str,
) -> Tensor:  # [N, M]
    """Differentiable product of the rows order[e] of segment r with its matrix, unchecked."""
    if needs_gradient(x, weight, bias):
        out: Tensor = _Multiply.apply(x, indptr, order, weight, bias, backend)
        return out
    out = _segment_matmul_op(x, indptr, order, weight, bias, backend)
    return out


class _SumOuter(torch.autograd.Function):
    """The gradient of either row is the other's product with the gradient of the sum."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, indptr: Tensor, order: Tensor | None, backend: str
    ) -> Tensor:
        ctx.save_for_backward(x, y, indptr, order)
        ctx.backend = backend
        return _segment_outer_op(x, y, indptr, order, backend)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, y, indptr, order = ctx.saved_tensors
        grad_x = grad_y = None
        if ctx.needs_input_grad[0]:
            grad_x = multiply(y, indptr, order, grad.transpose(1, 2), None, ctx.backend)
        if ctx.needs_input_grad[1]:
            grad_y = multiply(x, indptr, order, grad, None, ctx.backend)
        return grad_x, grad_y, None, None, None


def sum_outer(
    x: Tensor,  # [N, K]
    y: Tensor,  # [N, M]
    indptr: Tensor,  # [R + 1]
    order: Tensor | None,  # [N]
    backend: str,
) -> Tensor:  # [R, K, M]
    """Differentiable sum of the outer products x[i]^T y[i] over each segment, unchecked."""
    if needs_gradient(x, y):
        out: Tensor = _SumOuter.apply(x, y, indptr, order, backend)
        return out
    return _segment_outer_op(x, y, indptr, order, backend)  # type: ignore[no-any-return]


# -- public ----------------------------------------------------------------------------------------


def check_matrices(
    op: str, x: Tensor, weight: Tensor, bias: Tensor | None, num_segments: int | None
) -> None:
    """Matrices [R, K, M] and bias None or [R, M] for x [N, K], of one dtype on one device."""
    optional = {} if bias is None else {"bias": bias}
    device = device_of(op, x)
    if not isinstance(weight, Tensor):
        raise TypeError(f"{op}: weight must be a tensor, got {type(weight).__name__}")
    check_floats(op, device, x=x, weight=weight, **optional)
    if x.dim() != 2:
        raise ValueError(f"{op}: x must have shape [N, K], got {list(x.shape)}")
    rows = "R" if num_segments is None else f"R={num_segments}"
    if (
        weight.dim() != 3
        or weight.shape[1] != x.shape[1]
        or (num_segments is not None and weight.shape[0] != num_segments)
    ):
        raise ValueError(
            f"{op}: weight must have shape [{rows}, K={x.shape[1]}, M] for x of shape "
            f"{list(x.shape)}, got {list(weight.shape)}"
        )
    if bias is not None:
        check_shape(op, "bias", bias, R=weight.shape[0], M=weight.shape[2])


def segment_matmul(
    x: Tensor,  # [N, K]
    indptr: Tensor,  # [R + 1]
    weight: Tensor,  # [R, K, M]
    bias: Tensor | None = None,  # [R, M]
    *,
    backend: str | None = None,
) -> Tensor:  # [N, M]
    """Multiply rows `indptr[r]` to `indptr[r + 1]` of x by matrix r: `x[i] @ weight[r] + bias[r]`.

    Args:
        x: [N, K] rows, grouped.
        indptr: [R + 1] int32 or int64, from 0 to N without decreasing.
        weight: [R, K, M] one matrix per segment.
        bias: None, or [R, M] one row per segment.
        backend: Where to run; by default the fastest that can.

    Returns:
        [N, M], the dtype of x. The matrix of an empty segment has gradient 0.

    Numerics: halves are summed in float32 and rounded once. Bitwise repeatable, and the same for
    any number of threads except where torch's products are used: large bfloat16 segments on
    processors with units for them, and gradients of matrices of more than 2^18 elements. On a GPU
    float32 is multiplied in TF32 only where `torch.backends.cuda.matmul` allows it.

    Gradients: of x, weight and bias, by any number of derivatives.

    Cost: x and weight read once, the result written once; 2 N K M operations. One call for all
    segments, however many and however small.

    Raises:
        TypeError: a tensor has a wrong type, or indptr is not of integers.
        ValueError: a shape or device is wrong, or indptr is not valid.
        BackendUnavailable: `backend` cannot run this call.

    Source: segment_matmul of pyg-lib.
    """
    if isinstance(x, Tensor):
        x, weight, bias = cast_for_autocast(x, weight, bias)
    device = device_of("segment_matmul", x)
    if x.dim() != 2:
        raise ValueError(f"segment_matmul: x must have shape [N, K], got {list(x.shape)}")
    indptr = check_indptr("segment_matmul", indptr, device, x.shape[0])
    check_matrices("segment_matmul", x, weight, bias, indptr.shape[0] - 1)
    implementation = choose("segment_matmul", IMPLEMENTATIONS, query_of(x), backend)
    if implementation.backend == "reference":
        return segment_matmul_reference(x, indptr, weight, bias)
    return multiply(x, indptr, None, weight, bias, implementation.backend)
