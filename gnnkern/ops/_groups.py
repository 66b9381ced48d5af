"""Groups that an unsorted index names: contract checks, and the sort by group."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnkern import _native, _sorting
from gnnkern._native import Csr

__all__ = [
    "check_first_bad",
    "check_index",
    "check_positions",
    "check_range",
    "group_sizes",
    "order_by_group",
    "rows_by_group",
]


def check_positions(op: str, name: str, index: Tensor, x: Tensor, rows: str) -> None:
    """`index` must name a group for each row of x."""
    if not isinstance(index, Tensor):
        raise TypeError(f"{op}: {name} must be a tensor, got {type(index).__name__}")
    if index.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"{op}: {name} must be int32 or int64, got {index.dtype}")
    if x.dim() == 0 or tuple(index.shape) != (x.shape[0],):
        raise ValueError(
            f"{op}: {name} must have shape [{rows}] for x of shape [{rows}, ...], got "
            f"{list(index.shape)} and {list(x.shape)}"
        )
    if index.device != x.device:
        raise ValueError(f"{op}: {name} must be on {x.device}, got {index.device}")


def check_index(op: str, x: Tensor, index: Tensor, num_segments: int | None) -> int:
    """The number of groups; errors where index or num_segments are not what they must be."""
    check_positions(op, "index", index, x, "E")
    if num_segments is None:
        num_segments = int(index.max()) + 1 if index.numel() else 0
        num_segments = max(num_segments, 0)
    if not isinstance(num_segments, int | torch.SymInt) or isinstance(num_segments, bool):
        raise TypeError(f"{op}: num_segments must be an int, got {num_segments!r}")
    if num_segments < 0:
        raise ValueError(f"{op}: num_segments must not be negative, got {num_segments}")
    return num_segments


def check_range(
    op: str,
    index: Tensor,
    num_groups: int,
    bad: int | None = None,
    names: tuple[str, str] = ("index", "num_segments"),
) -> None:
    """ValueError where a group is out of range, at position `bad` or, None, anywhere.

    The content is not read while torch.compile traces.
    """
    if bad is None:
        if torch.compiler.is_compiling():
            return
        outside = ((index < 0) | (index >= num_groups)).nonzero()
        bad = int(outside[0]) if outside.numel() else -1
    if bad >= 0:
        raise ValueError(
            f"{op}: {names[0]} must be in [0, {names[1]}={num_groups}), got {int(index[bad])} at "
            f"position {bad}"
        )


def check_first_bad(op: str, index: Tensor, num_groups: int, first_bad: Tensor) -> None:
    """The same of a kernel that found the first position out of range [1], or one beyond E."""
    if index.device.type != "cpu":
        _raise_later(op, first_bad >= index.shape[0], num_groups, ("index", "num_segments"))
    elif first_bad < index.shape[0]:
        check_range(op, index, num_groups, int(first_bad))


def order_by_group(
    op: str, index: Tensor, num_groups: int, names: tuple[str, str]
) -> tuple[Tensor, Tensor]:
    """(indptr [num_groups + 1], positions [E]) of a stable sort, int64; ValueError out of range."""
    return _sort(op, index, num_groups, torch.int64, names)


def rows_by_group(op: str, index: Tensor, num_groups: int) -> Csr:
    """The matrix whose row i names the positions where `index` is i."""
    dtype = torch.int32 if max(index.shape[0], num_groups) < 2**31 - 1 else torch.int64
    indptr, order = _sort(op, index, num_groups, dtype, ("index", "num_segments"))
    return Csr(indptr, order, None, _sorting.make_plan(indptr, index.shape[0]))


def _sort(
    op: str, index: Tensor, num_groups: int, dtype: torch.dtype, names: tuple[str, str]
) -> tuple[Tensor, Tensor]:
    on_cpu = index.device.type == "cpu"
    if on_cpu and _native.native is not None:
        bad, _, indptr, _, order = _native.sort_edges(index, None, num_groups, 0, dtype)
        check_range(op, index, num_groups, bad, names)
        return indptr, order
    if _sorting.sorts_on_device(index, num_groups):
        from gnnkern._cuda.sort_edges import sort_edges

        found = sort_edges(index, None, num_groups, 0, dtype)
        _raise_later(op, found.status[0] >= index.shape[0], num_groups, names)
        return found.indptr, found.edge_id
    in_order, order = torch.sort(index, stable=True)
    if on_cpu:
        check_range(op, index, num_groups, None, names)
    elif index.shape[0]:
        in_range = (in_order[0] >= 0) & (in_order[-1] < num_groups)
        _raise_later(op, in_range, num_groups, names)
    return _sorting.row_begins(in_order, num_groups).to(dtype), order.to(dtype)


def _raise_later(op: str, in_range: Tensor, num_groups: int, names: tuple[str, str]) -> None:
    """As in torch's own ops, the device raises later: nothing is copied to the host.

    Positions of groups that do not exist are in no row.
    """
    torch._assert_async(in_range, f"{op}: {names[0]} must be in [0, {names[1]}={num_groups})")


def group_sizes(index: Tensor, num_groups: int) -> Tensor:  # [num_groups]
    """How many positions name each group; on a GPU without a copy to the host."""
    if index.device.type == "cpu":
        return torch.bincount(index, minlength=num_groups)
    return index.new_zeros(num_groups).index_add(0, index, torch.ones_like(index))
