"""Frames: named features with a row per node or edge, and how a graph shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, Generic, NamedTuple, TypeVar

from torch import Tensor

from gnnkern.integrations.dgl.errors import DGLError

__all__ = ["Frame", "FramesOfTypes", "Gathered", "Space", "SpaceView"]

Key = TypeVar("Key", bound="str | tuple[str, str, str]")


class Frame(MutableMapping[str, Tensor]):
    """A dict of tensors [num_rows, ...].

    Raises:
        TypeError: a value is no tensor.
        DGLError: it has another number of rows.
    """

    def __init__(
        self, num_rows: int, what: str, columns: Mapping[str, Tensor] | None = None
    ) -> None:
        self.num_rows = num_rows
        self.what = what
        self._columns: dict[str, Tensor] = dict(columns or {})

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._columns:
            raise KeyError(f"{name!r} is no field of the {self.what}, which have {list(self)}")
        return self._columns[name]

    def __setitem__(self, name: str, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"{self.what}: {name!r} must be a tensor, got {type(value).__name__}")
        if value.shape[:1] != (self.num_rows,):
            raise DGLError(
                f"{self.what}: {name!r} must have shape [{self.num_rows}, ...], got "
                f"{list(value.shape)}"
            )
        self._columns[name] = value

    def __delitem__(self, name: str) -> None:
        del self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        return repr(self._columns)

    def copied(self) -> Frame:
        """A frame of its own with the same tensors."""
        return Frame(self.num_rows, self.what, self._columns)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Frame:
        """A frame of as many rows with every tensor changed."""
        columns = {name: function(value) for name, value in self._columns.items()}
        return Frame(self.num_rows, self.what, columns)

    def set_rows(self, rows: Tensor | None, values: Mapping[str, Tensor]) -> None:
        """Replace some rows [K], or all; of a field that was not there the other rows become 0."""
        if rows is None:
            self.update(values)
            return
        for name, value in values.items():
            before = self._columns.get(name)
            if before is None:
                before = value.new_zeros(self.num_rows, *value.shape[1:])
            self[name] = before.index_copy(0, rows, value)


class Gathered(Mapping[str, Tensor]):
    """The rows of a frame that a batch sees, gathered when they are asked for."""

    def __init__(self, frame: Mapping[str, Tensor], gather: Callable[[Tensor], Tensor]) -> None:
        self._frame = frame
        self._gather = gather
        self._seen: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._seen:
            self._seen[name] = self._gather(self._frame[name])
        return self._seen[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._frame)

    def __len__(self) -> int:
        return len(self._frame)


class FramesOfTypes(MutableMapping[str, Any], Generic[Key]):
    """The features of several types at once: `data["h"]` is a dict by type of those that have it.

    Assigned are dicts by type.
    """

    def __init__(self, frames: Mapping[Key, Frame], named: Callable[[Any], Key]) -> None:
        self._frames = frames
        self._named = named

    def __getitem__(self, name: str) -> dict[Key, Tensor]:
        found = {kind: frame[name] for kind, frame in self._frames.items() if name in frame}
        if not found:
            raise KeyError(f"{name!r} is no field of any of {list(self._frames)}")
        return found

    def __setitem__(self, name: str, values: Mapping[Any, Tensor]) -> None:
        if not isinstance(values, Mapping):
            raise TypeError(
                f"{name!r} must be a dict by type, of {list(self._frames)}, got "
                f"{type(values).__name__}"
            )
        for kind, value in values.items():
            self._frames[self._named(kind)][name] = value

    def __delitem__(self, name: str) -> None:
        for kind in self[name]:
            del self._frames[kind][name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for frame in self._frames.values() for name in frame))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        return repr({kind: dict(frame) for kind, frame in self._frames.items()})


class Space(NamedTuple):
    """What `g.nodes[ntype]` and `g.edges[etype]` are."""

    data: Frame


class SpaceView(Generic[Key]):
    """`g.nodes`, `g.edges` and the like: indexed by type for its data, called for its ids."""

    def __init__(
        self,
        frames: Mapping[Key, Frame],
        named: Callable[[Any], Key],
        ids: Callable[..., Any],
    ) -> None:
        self._frames = frames
        self._named = named
        self._ids = ids

    def __getitem__(self, kind: Any) -> Space:
        return Space(self._frames[self._named(kind)])

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """The ids, or for edges their ends."""
        return self._ids(*arguments, **options)
