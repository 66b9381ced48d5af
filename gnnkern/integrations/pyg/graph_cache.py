"""Graphs and other results kept for the index tensors that they were made from.

An entry hangs by a weak reference on the tensor that owns the memory of an index (`edge_index` for
`edge_index[1]`), and holds for exactly the bytes that it was made from: a hit needs the same
version counter, address, shape, strides, dtype and device of every tensor that went in. So a tensor
that was changed in place, through any view of it, or freed and allocated again, gives no stale
result.

What no counter sees are writes past autograd: `edge_index.data[...] = `, and writes through numpy
or DLPack that share its memory. With `check_writes`, a sum over the content is compared as well,
which reads an index once per hit and finds these too, but for changes that leave both sums.

The bound is in bytes; what was used longest ago goes first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from gnnkern.graph import Graph
from gnnkern.integrations.pyg import report

__all__ = ["GraphCache", "Stamp", "stamp_of"]

# Sorting reads and writes about as many bytes per edge as a row of this many floats has: for wider
# rows it pays at once, for narrower ones when a graph is met again.
SORT_PAYS_FROM_WIDTH = 16
# Entries of one tensor.
_MAX_KEYS = 64


@dataclass(frozen=True)
class Stamp:
    """What must be the same for a tensor to have the same content."""

    version: int
    address: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    content: tuple[int, int] | None  # two sums over it, where writes are checked


def stamp_of(tensor: Tensor, check_writes: bool) -> Stamp | None:
    """The stamp of a tensor; None for one without a version counter."""
    if tensor.is_inference():
        return None
    return Stamp(
        tensor._version,
        tensor.data_ptr(),
        tuple(tensor.shape),
        tensor.stride(),
        tensor.dtype,
        tensor.device,
        _content_of(tensor) if check_writes else None,
    )


def _content_of(tensor: Tensor) -> tuple[int, int]:
    flat = tensor.detach().reshape(-1).long()
    # An odd multiplier for each position: a swap of two elements changes the second sum.
    position = torch.arange(flat.shape[0], device=flat.device)
    weight = position.mul_(0x9E3779B97F4A7C15 - 2**64).bitwise_or_(1)
    return int(flat.sum()), int((flat * weight).sum())


@dataclass
class _Entry:
    stamps: tuple[Stamp, ...]
    result: Any = None
    is_made: bool = False
    used: int = 0
    # Stamps of tensors in the result, which callers could change.
    given: tuple[tuple[Tensor, Stamp], ...] = ()
    # When the device has made it, for other streams to wait for.
    event: Any = None


@dataclass
class _Entries:
    by_key: dict[Any, _Entry] = field(default_factory=dict)


class GraphCache:
    """Results by the index tensors that they were made from; see the module.

    Args:
        max_bytes: Bound of what is kept; a larger result is made and not kept.
        check_writes: Compare the content as well.
    """

    def __init__(self, max_bytes: int = 2**30, check_writes: bool = False) -> None:
        self.max_bytes = max_bytes
        self.check_writes = check_writes
        self._lock = threading.RLock()
        self._owners = WeakTensorKeyDictionary()
        self._clock = 0

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._owners = WeakTensorKeyDictionary()

    @property
    def num_bytes(self) -> int:
        """What is kept."""
        with self._lock:
            every = [e for owned in self._owners.values() for e in owned.by_key.values()]
            return sum(_bytes_of(entry.result) for entry in every)

    def graph(
        self,
        dst: Tensor,  # [E]
        src: Tensor | None,  # [E]
        num_dst: int,
        num_src: int,
        width: int,
    ) -> Graph | None:
        """The graph with edges from `src` to `dst`; None where sorting would not pay yet.

        Args:
            dst: Destination of each edge.
            src: Source of each edge; None for a graph that only groups its edges.
            num_dst: Number of destinations.
            num_src: Number of sources, 1 without src.
            width: Elements of an edge that are to be reduced.

        Raises:
            ValueError: an index is out of range.
        """
        tensors = (dst,) if src is None else (dst, src)

        def build() -> Graph:
            sources = torch.zeros_like(dst) if src is None else src
            return Graph.from_edge_index(torch.stack((sources, dst)), (num_src, num_dst))

        key = ("graph", num_dst, num_src)
        pays = width >= SORT_PAYS_FROM_WIDTH
        found: Graph | None = self._get(key, tensors, build, pays)
        return found

    def graph_of_edges(self, dst: Tensor, num_dst: int) -> Graph:
        """The graph in which every edge is a source of its own: for rows of an edge tensor."""

        def build() -> Graph:
            edges = torch.arange(dst.shape[0], dtype=dst.dtype, device=dst.device)
            return Graph.from_edge_index(torch.stack((edges, dst)), (dst.shape[0], num_dst))

        found: Graph = self.remember(("edges", num_dst), (dst,), build)
        return found

    def remember(self, key: Any, tensors: tuple[Tensor, ...], make: Callable[[], Any]) -> Any:
        """The result of `make()` for these tensors: a graph, or a tuple of anything.

        The result must hold none of them, which it would keep for ever.
        """
        return self._get(key, tensors, make, True)

    def _get(
        self,
        key: Any,
        tensors: tuple[Tensor, ...],
        make: Callable[[], Any],
        at_once: bool,
    ) -> Any:
        stamps = [stamp_of(tensor, self.check_writes) for tensor in tensors]
        owners = [_owner(tensor) for tensor in tensors]
        # Tensors of different owners are told apart by their addresses, but only one is watched:
        # the others might be freed. Their owners are part of the result, which keeps them.
        known = tuple(stamp for stamp in stamps if stamp is not None)
        if len(known) < len(tensors):
            return make() if at_once else None
        full_key = (key, tuple((s.address, s.shape, s.stride) for s in known))
        with self._lock:
            self._clock += 1
            entries = self._owners.get(owners[0])
            if entries is None:
                entries = self._owners[owners[0]] = _Entries()
            entry = entries.by_key.get(full_key)
            if entry is not None and (entry.stamps != known or not _untouched(entry)):
                report.graph("stale")
                entry = None
            if entry is None:
                _make_room(entries)
                entry = entries.by_key[full_key] = _Entry(known)
                if not at_once:
                    report.graph("met")
                    return None
            entry.used = self._clock
            if entry.is_made:
                report.graph("hit")
                if entry.event is not None:
                    torch.cuda.current_stream(tensors[0].device).wait_event(entry.event)
                return entry.result
        result = make()
        report.graph("built")
        others = tuple(owner for owner in owners[1:] if owner is not owners[0])
        with self._lock:
            entry.result, entry.is_made = result, True
            entry.given = tuple((owner, _plain_stamp(owner)) for owner in others)
            if isinstance(result, tuple):
                given = [t for t in result if isinstance(t, Tensor) and not t.is_inference()]
                entry.given += tuple((tensor, _plain_stamp(tensor)) for tensor in given)
            if tensors[0].is_cuda:
                entry.event = torch.cuda.current_stream(tensors[0].device).record_event()
            self._drop(keep=entry)
        return result

    def _drop(self, keep: _Entry) -> None:
        """Let go of what was used longest ago until the bound holds."""
        # What layers have added to a graph since, its reverse or its loops, counts as well.
        every = [
            (_bytes_of(entry.result), entries, key, entry)
            for entries in self._owners.values()
            for key, entry in entries.by_key.items()
        ]
        total = sum(size for size, *_ in every)
        every.sort(key=lambda item: (item[3] is keep, item[3].used))
        for size, entries, key, _ in every:
            if total <= self.max_bytes:
                break
            if size:
                total -= size
                del entries.by_key[key]
                report.graph("dropped")


def _make_room(entries: _Entries) -> None:
    """Slices of one tensor are as many keys as batches: what was met long ago is forgotten."""
    if len(entries.by_key) >= _MAX_KEYS:
        del entries.by_key[min(entries.by_key, key=lambda key: entries.by_key[key].used)]


def _owner(tensor: Tensor) -> Tensor:
    """The tensor whose memory this is a view of."""
    base = tensor._base
    return tensor if base is None else base


def _plain_stamp(tensor: Tensor) -> Stamp:
    stamp = stamp_of(tensor, False)
    assert stamp is not None
    return stamp


def _untouched(entry: _Entry) -> bool:
    return all(_plain_stamp(tensor) == stamp for tensor, stamp in entry.given)


def _bytes_of(result: Any, seen: set[int] | None = None) -> int:
    """What a result takes, with everything that hangs on a graph."""
    seen = set() if seen is None else seen
    if id(result) in seen:
        return 0
    seen.add(id(result))
    if isinstance(result, Tensor):
        return result.nbytes
    if isinstance(result, tuple):
        return sum(_bytes_of(item, seen) for item in result)
    if isinstance(result, Graph):
        parts = (*result.csr, result._reverse, *result._cache.values())
        return sum(_bytes_of(part, seen) for part in parts)
    return 0
