"""Contract checks shared by the ops: who, what, expected, got."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gnnkern import _sorting
from gnnkern.backends import FLOAT_DTYPES, Query
from gnnkern.graph import Graph

__all__ = [
    "check_boundaries",
    "check_floats",
    "check_graph",
    "check_indptr",
    "check_indptr_type",
    "check_number",
    "check_option",
    "check_probability",
    "check_rows",
    "check_shape",
    "device_of",
    "query_of",
]


_OPTIONS = ("weight", "edge_score", "edge_bias", "edge_x")


def check_graph(op: str, graph: object) -> None:
    """TypeError where the first argument is no Graph."""
    if not isinstance(graph, Graph):
        raise TypeError(f"{op}: g must be a gnnkern.Graph, got {type(graph).__name__}")


def check_floats(op: str, device: torch.device, **tensors: Tensor | None) -> None:
    """Floating tensors of one dtype on one device; options may be None."""
    first: tuple[str, torch.dtype] | None = None
    for name, tensor in tensors.items():
        if tensor is None and name in _OPTIONS:
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{op}: {name} must be a tensor, got {type(tensor).__name__}")
        if tensor.dtype not in FLOAT_DTYPES:
            raise TypeError(
                f"{op}: {name} must be float32, float64, bfloat16 or float16, got {tensor.dtype}"
            )
        if tensor.layout != torch.strided:
            raise TypeError(f"{op}: {name} must be a dense tensor, got layout {tensor.layout}")
        if tensor.device != device:
            raise ValueError(f"{op}: {name} must be on {device}, got {tensor.device}")
        if first is None:
            first = (name, tensor.dtype)
        elif tensor.dtype != first[1]:
            raise TypeError(
                f"{op}: {name} must have the dtype of {first[0]}, {first[1]}, got {tensor.dtype}"
            )


def check_rows(op: str, name: str, x: Tensor, count: str, rows: int, forms: Sequence[str]) -> None:
    """`x` must have `rows` rows and one of the forms, such as "F" or "H, D"."""
    dims = [len(form.split(",")) + 1 for form in forms]
    if x.dim() not in dims or x.shape[0] != rows:
        wanted = " or ".join(f"[{count}={rows}, {form}]" for form in forms)
        raise ValueError(f"{op}: {name} must have shape {wanted}, got {list(x.shape)}")


def check_shape(op: str, name: str, x: Tensor, **shape: int) -> None:
    """`x` must have exactly these sizes, in this order."""
    if tuple(x.shape) != tuple(shape.values()):
        wanted = ", ".join(f"{size}={value}" for size, value in shape.items())
        raise ValueError(f"{op}: {name} must have shape [{wanted}], got {list(x.shape)}")


def check_option(op: str, name: str, value: object, allowed: Sequence[str]) -> None:
    """A string option must be one of those known."""
    if value not in allowed:
        raise ValueError(f"{op}: {name} must be one of {', '.join(allowed)}, got {value!r}")


def check_number(op: str, name: str, value: object) -> None:
    """A real number."""
    if not isinstance(value, int | float | torch.SymFloat) or isinstance(value, bool):
        raise TypeError(f"{op}: {name} must be a number, got {value!r}")


def check_probability(op: str, name: str, value: float) -> None:
    """A probability below 1."""
    check_number(op, name, value)
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{op}: {name} must be in [0, 1), got {value}")


def check_indptr(op: str, indptr: Tensor, device: torch.device, num_edges: int | None) -> Tensor:
    """The boundaries of segments, contiguous: from 0 to num_edges without decreasing.

    The content is read on the CPU alone, since on a device it would stall, and not while
    torch.compile traces: there the C++ kernels check it as they plan.
    """
    indptr = check_indptr_type(op, indptr, device)
    check_boundaries(op, indptr, num_edges)
    return indptr


def check_indptr_type(op: str, indptr: Tensor, device: torch.device) -> Tensor:
    """Boundaries of segments, contiguous, of which nothing has been read yet."""
    if not isinstance(indptr, Tensor):
        raise TypeError(f"{op}: indptr must be a tensor, got {type(indptr).__name__}")
    if indptr.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"{op}: indptr must be int32 or int64, got {indptr.dtype}")
    if indptr.dim() != 1 or indptr.shape[0] == 0:
        raise ValueError(f"{op}: indptr must have shape [N + 1], got {list(indptr.shape)}")
    if indptr.device != device:
        raise ValueError(f"{op}: indptr must be on {device}, got {indptr.device}")
    return indptr.contiguous()


def check_boundaries(op: str, indptr: Tensor, num_edges: int | None) -> None:
    """Read what `check_indptr` reads."""
    if indptr.is_cpu and not torch.compiler.is_compiling():
        _sorting.check_indptr(op, indptr, num_edges)


def device_of(op: str, x: object) -> torch.device:
    """Where the first tensor lies, which the others must share."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: x must be a tensor, got {type(x).__name__}")
    return x.device


def query_of(x: Tensor) -> Query:
    """What the chooser asks about a call on `x`."""
    # Asking for the type of a device takes six times as long.
    return Query("cpu" if x.is_cpu else x.device.type, x.dtype)
