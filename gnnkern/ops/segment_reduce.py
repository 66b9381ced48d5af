"""segment_reduce: consecutive rows become one row per segment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gnnkern._cpu.row_reduce import reduce_segments
from gnnkern._cpu.select_backward import segment_select_backward
from gnnkern.backends import (
    Implementation,
    choose,
    cpu_unsupported,
    cuda_unsupported,
    reference_unsupported,
    triton_unsupported,
)
from gnnkern.ops._checks import check_floats, check_indptr, check_option, device_of, query_of
from gnnkern.ops._device import launchers, select_backward_of
from gnnkern.ops._linear import divide_by_count
from gnnkern.ops._operator import define, first_derivative_only, is_tracked, needs_gradient
from gnnkern.ops._segments import mul_gradient
from gnnkern.ops._transforms import Linear, batch_first, transformed, transforms_active
from gnnkern.ops.segment_gather import gather_segments
from gnnkern.reference.segment_reduce import segment_reduce_reference

__all__ = ["segment_reduce"]

REDUCES = ("sum", "mean", "max", "min", "mul")


def segment_reduce_cpu(
    x: Tensor, indptr: Tensor, reduce: str, argument: torch.dtype | None = None
) -> tuple[Tensor, Tensor | None]:
    """The C++ row reduction over consecutive rows; with `argument` who won, too."""
    return reduce_segments(indptr, x, reduce, argument)


def segment_reduce_triton(
    x: Tensor, indptr: Tensor, reduce: str, argument: torch.dtype | None = None
) -> tuple[Tensor, Tensor | None]:
    """The Triton row reduction over consecutive rows; with `argument` who won, too."""
    from gnnkern._triton.row_reduce import reduce_segments

    return reduce_segments(indptr, x, reduce, argument)


def segment_reduce_cuda(
    x: Tensor, indptr: Tensor, reduce: str, argument: torch.dtype | None = None
) -> tuple[Tensor, Tensor | None]:
    """The CUDA row reduction over consecutive rows; with `argument` who won, too."""
    from gnnkern._cuda.row_reduce import reduce_segments

    return reduce_segments(indptr, x, reduce, argument)


IMPLEMENTATIONS = (
    Implementation("cpu", segment_reduce_cpu, cpu_unsupported),
    Implementation("triton", segment_reduce_triton, triton_unsupported),
    Implementation("cuda", segment_reduce_cuda, cuda_unsupported),
    Implementation("reference", segment_reduce_reference, reference_unsupported),
)

# -- torch operators -------------------------------------------------------------------------------

_LAUNCH = {"cpu": segment_reduce_cpu, "triton": segment_reduce_triton, "cuda": segment_reduce_cuda}


def _segment_reduce(x: Tensor, indptr: Tensor, reduce: str, backend: str) -> Tensor:
    return _LAUNCH[backend](x, indptr, reduce)[0]


_segment_reduce_op = define(
    "segment_reduce",
    "(Tensor x, Tensor indptr, str reduce, str backend) -> Tensor",
    _segment_reduce,
    lambda x, indptr, reduce, backend: x.new_empty((indptr.shape[0] - 1, *x.shape[1:])),
)


def _segment_select(x: Tensor, indptr: Tensor, reduce: str, backend: str) -> tuple[Tensor, Tensor]:
    out, argument = _LAUNCH[backend](x, indptr, reduce, torch.int32)
    assert argument is not None
    return out, argument


_segment_select_op = define(
    "segment_select",
    "(Tensor x, Tensor indptr, str reduce, str backend) -> (Tensor, Tensor)",
    _segment_select,
    lambda x, indptr, reduce, backend: (
        x.new_empty((indptr.shape[0] - 1, *x.shape[1:])),
        x.new_empty((indptr.shape[0] - 1, *x.shape[1:]), dtype=torch.int32),
    ),
)


def _segment_select_backward(
    grad: Tensor, indptr: Tensor, argument: Tensor, num_edges: int, backend: str
) -> Tensor:
    return _LAUNCH_BACKWARD[backend](indptr, grad, argument, num_edges)


def _backward_device(backend: str, *arguments: Any) -> Tensor:
    out: Tensor = select_backward_of(backend).segment_select_backward(*arguments)
    return out


_LAUNCH_BACKWARD = launchers(segment_select_backward, _backward_device)


_segment_select_backward_op = define(
    "segment_select_backward",
    "(Tensor grad, Tensor indptr, Tensor argument, SymInt num_edges, str backend) -> Tensor",
    _segment_select_backward,
    lambda grad, indptr, argument, num_edges, backend: grad.new_empty((num_edges, *grad.shape[1:])),
)

# -- gradients -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _SegmentSum(Linear):
    """The gradient of a segment's sum is that sum's, repeated along the segment."""

    indptr: Tensor
    reduce: str
    backend: str

    def __call__(self, *tensors: Tensor | None) -> Tensor:
        (x,) = tensors
        assert x is not None
        return sum_segments(x, self.indptr, self.reduce, self.backend)

    def value(self, *tensors: Tensor | None) -> Tensor:
        out: Tensor = _segment_reduce_op(*tensors, self.indptr, self.reduce, self.backend)
        return out

    def gradients(
        self, grad: Tensor, needs: Sequence[bool], *tensors: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        (x,) = tensors
        assert x is not None
        if self.reduce == "mean":
            grad = divide_by_count(grad, self.indptr)
        return (gather_segments(grad, self.indptr, x.shape[0], self.backend),)

    def batched(
        self, size: int, tensors: Sequence[Tensor | None], dims: Sequence[int | None]
    ) -> tuple[Tensor, int]:
        """A batch widens the rows."""
        (x,) = tensors
        assert x is not None
        return self(batch_first(x, dims[0], size)), 1


class _SumSegments(torch.autograd.Function):
    """`_SegmentSum` where nothing but backward derivatives is asked for."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, indptr: Tensor, reduce: str, backend: str) -> Tensor:
        ctx.save_for_backward(indptr)
        ctx.num_edges = x.shape[0]
        ctx.reduce = reduce
        ctx.backend = backend
        return _segment_reduce_op(x, indptr, reduce, backend)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (indptr,) = ctx.saved_tensors
        if ctx.reduce == "mean":
            grad = divide_by_count(grad, indptr)
        return gather_segments(grad, indptr, ctx.num_edges, ctx.backend), None, None, None


def sum_segments(x: Tensor, indptr: Tensor, reduce: str, backend: str) -> Tensor:
    """Differentiable sum or mean of segments, without contract checks."""
    if is_tracked(x):
        if transforms_active():
            return transformed(_SegmentSum(indptr, reduce, backend), x)
        out: Tensor = _SumSegments.apply(x, indptr, reduce, backend)
        return out
    return _segment_reduce_op(x, indptr, reduce, backend)  # type: ignore[no-any-return]


class _SelectSegments(torch.autograd.Function):
    """Only the row that won a maximum or minimum receives its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, indptr: Tensor, reduce: str, backend: str) -> Tensor:
        out, argument = _segment_select_op(x, indptr, reduce, backend)
        ctx.save_for_backward(x, indptr, argument)
        ctx.backend = backend
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, indptr, argument = ctx.saved_tensors
        grad_x = _segment_select_backward_op(grad, indptr, argument, x.shape[0], ctx.backend)
        (guarded,) = first_derivative_only("segment_reduce with max or min", (grad_x,), (grad, x))
        return guarded, None, None, None


class _MulSegments(torch.autograd.Function):
    """The gradient of a product is the product of the others."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, indptr: Tensor, backend: str) -> Tensor:
        ctx.save_for_backward(x, indptr)
        ctx.backend = backend
        return _segment_reduce_op(x, indptr, "mul", backend)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, indptr = ctx.saved_tensors
        with torch.no_grad():
            grad_x = mul_gradient(
                x,
                grad,
                lambda values, reduce: _segment_reduce_op(values, indptr, reduce, ctx.backend),
                lambda rows: gather_segments(rows, indptr, x.shape[0], ctx.backend),
            )
        (guarded,) = first_derivative_only("segment_reduce with mul", (grad_x,), (grad, x))
        return guarded, None, None


# -- public ----------------------------------------------------------------------------------------


def segment_reduce(
    x: Tensor,  # [E, ...]
    indptr: Tensor,  # [N + 1]
    *,
    reduce: str = "sum",
    backend: str | None = None,
) -> Tensor:  # [N, ...]
    """Reduce rows `indptr[i]` to `indptr[i + 1]` of x into row i.

    Args:
        x: [E, ...] rows, grouped.
        indptr: [N + 1] int32 or int64, from 0 to E without decreasing.
        reduce: "sum", "mean", "max", "min" or "mul".
        backend: Where to run; by default the fastest that can.

    Returns:
        [N, ...], the dtype of x. An empty segment gets 0, or 1 for "mul".

    Numerics: halves are reduced in float32 and rounded once. NaN propagates; of equal values the
    first wins a max or min and takes the whole gradient. Bitwise repeatable.

    Gradients: of x, by any number of derivatives for sum and mean, otherwise once.

    Transforms: forward mode and torch.func (grad, vjp, jvp, vmap) for sum and
    mean.

    Cost: one stream over x and one write of the result.

    Raises:
        TypeError: x is not floating or indptr not of integers.
        ValueError: a shape, device or option is wrong, or indptr is not valid.
        BackendUnavailable: `backend` cannot run this call.

    Source: segment_csr of torch_scatter.
    """
    check_floats("segment_reduce", device_of("segment_reduce", x), x=x)
    if x.dim() == 0:
        raise ValueError("segment_reduce: x must have shape [E, ...], got []")
    indptr = check_indptr("segment_reduce", indptr, x.device, x.shape[0])
    check_option("segment_reduce", "reduce", reduce, REDUCES)
    linear = reduce in ("sum", "mean")
    implementation = choose("segment_reduce", IMPLEMENTATIONS, query_of(x), backend, linear)
    if implementation.backend == "reference":
        return segment_reduce_reference(x, indptr, reduce)
    name = implementation.backend
    if linear:
        return sum_segments(x, indptr, reduce, name)
    if not needs_gradient(x):
        return _segment_reduce_op(x, indptr, reduce, name)  # type: ignore[no-any-return]
    if reduce == "mul":
        out: Tensor = _MulSegments.apply(x, indptr, name)
    else:
        out = _SelectSegments.apply(x, indptr, reduce, name)
    return out
