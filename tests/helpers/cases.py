"""What a test runs over: backends, dtypes, widths, layouts and one call of one op."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from gnnkern.backends import BackendUnavailable

from .placement import place, runs_here
from .tolerance import DTYPES

OPS = (
    "spmm",
    "sddmm",
    "edge_softmax",
    "gat_attention",
    "gatv2_attention",
    "dot_attention",
    "multi_reduce",
    "segment_reduce",
    "segment_gather",
    "segment_softmax",
    "scatter_reduce",
    "segment_matmul",
    "gather_matmul",
    "segment_logsumexp",
    "scatter_logsumexp",
    "scatter_std",
)
WIDTHS = (0, 1, 3, 8, 31, 32, 33, 64, 100, 129, 192, 500)

# These run wherever gnnkern is built: one that cannot is a failure, not a skip.
ALWAYS_RUN = ("cpu", "reference")


def backends_of(op: str) -> list[str]:
    """Return the backends in an op's table of implementations that run where the tests do."""
    module = importlib.import_module(f"gnnkern.ops.{op}")
    backends = [implementation.backend for implementation in module.IMPLEMENTATIONS]
    return [backend for backend in backends if runs_here(backend)]


def each_backend(op: str) -> pytest.MarkDecorator:
    """Run a test with `backend` = every backend in the op's table of implementations."""
    return pytest.mark.parametrize("backend", backends_of(op))


def each_kernel(op: str) -> pytest.MarkDecorator:
    """The same without the reference, for large products that would compare it with itself."""
    kernels = [backend for backend in backends_of(op) if backend != "reference"]
    return pytest.mark.parametrize("backend", kernels)


each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])
each_width = pytest.mark.parametrize("width", WIDTHS)
each_index_dtype = pytest.mark.parametrize(
    "index_dtype", [torch.int32, torch.int64], ids=["int32", "int64"]
)


@dataclass(frozen=True)
class Call:
    """One op with its graph and options bound: a function of its differentiable tensors."""

    op: Callable[..., Tensor]  # (*tensors, backend=...)
    reference: Callable[..., Tensor]  # (*tensors)
    tensors: tuple[Tensor, ...]

    def run(self, *tensors: Tensor, backend: str) -> Tensor:
        """Run the public op; where the backend cannot run here, skip the test with the reason."""
        try:
            return self.op(*tensors, backend=backend)
        except BackendUnavailable as reason:
            if backend in ALWAYS_RUN:
                raise
            pytest.skip(str(reason))

    def to(self, dtype: torch.dtype) -> "Call":
        """Return the call with the same values in another dtype."""
        return replace(self, tensors=tuple(tensor.to(dtype) for tensor in self.tensors))

    def laid_out(self, layout: str) -> "Call":
        """Return the call with the same values at other addresses: see `LAYOUTS`."""
        return replace(self, tensors=tuple(LAYOUTS[layout](tensor) for tensor in self.tensors))

    def on_grid(self) -> "Call":
        """Return the call on eighths: ties are plentiful, and products exact in every dtype."""
        return replace(self, tensors=tuple(_eighths_like(tensor) for tensor in self.tensors))


def normal(*shape: int) -> Tensor:
    """Return standard normal values in float64, to be rounded to the dtype under test."""
    return place(torch.randn(*shape, dtype=torch.float64))


def _eighths_like(x: Tensor) -> Tensor:
    return torch.randint(-12, 13, x.shape).to(x) / 8


def _transposed(x: Tensor) -> Tensor:
    return x.transpose(0, -1).contiguous().transpose(0, -1)


def _every_second_column(x: Tensor) -> Tensor:
    wide = x.new_full((*x.shape[:-1], 2 * x.shape[-1]), float("nan"))
    wide[..., ::2] = x
    return wide[..., ::2]


def _rows_apart(x: Tensor) -> Tensor:
    # One element in front of each row: rows are whole, and start at odd addresses.
    wide = x.new_full((*x.shape[:-1], x.shape[-1] + 1), float("nan"))
    wide[..., 1:] = x
    return wide[..., 1:]


def _every_second_row(x: Tensor) -> Tensor:
    tall = x.new_full((2 * x.shape[0], *x.shape[1:]), float("nan"))
    tall[::2] = x
    return tall[::2]


def _inside_storage(x: Tensor) -> Tensor:
    return torch.cat([x.new_full((1, *x.shape[1:]), float("nan")), x])[1:]


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": _transposed,
    "every_second_column": _every_second_column,
    "rows_apart": _rows_apart,
    "every_second_row": _every_second_row,
    "inside_storage": _inside_storage,
}
each_layout = pytest.mark.parametrize("layout", LAYOUTS)
