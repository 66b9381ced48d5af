"""Wire types: rows that cross between ranks in fewer bits than they are computed in."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["WIRE_TYPES", "Codec", "Wire", "WireMemory", "as_wire"]

WIRE_TYPES = ("bfloat16", "float16", "int8")

_HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
# Of int8: the largest integer, and the bytes of a row's scale, a float32.
_MOST = 127
_SCALE_BYTES = 4


@dataclass(frozen=True)
class Wire:
    """What rows are rounded to between ranks.

    - "bfloat16": each element within 2^-8 of itself.
    - "float16": within 2^-11 of itself, or 2^-25; elements beyond 65504 arrive as infinities.
    - "int8": each row of a tensor as 8-bit integers times a float32 scale of its own: an element is
      within 1/254 of the row's largest. Rows below 1.5e-36 altogether arrive as zeros. A row with
      an element that is not finite arrives as NaN, all of it.

    What is not finite arrives so in every type. Tensors of integers, and rows that would take no
    fewer bytes, such as single numbers in int8 or bfloat16 rows in bfloat16, go as they are.

    Attributes:
        rows: One of these; None: rows go as they are.
        gradient: The same for the gradients on their way back.
        feedback: Whether what rounding left out of a row is added when the row is sent the next
            time from the same call site, there and back: the mean of what arrives is that of what
            was sent, at an error of each that is up to twice as large. For exchanges that know
            their call site (`WireMemory`); others round each time anew.
    """

    rows: str | None = None
    gradient: str | None = None
    feedback: bool = True

    def __post_init__(self) -> None:
        """Check the types."""
        for name in ("rows", "gradient"):
            value = getattr(self, name)
            if value is not None and value not in WIRE_TYPES:
                raise ValueError(
                    f"wire: {name} must be one of {', '.join(WIRE_TYPES)} or None, got {value!r}"
                )


def as_wire(wire: Wire | str | None) -> Wire | None:
    """The wire of "int8" (gradients go as they are) or "int8,bfloat16" (rows, gradients).

    Raises:
        TypeError: it is no wire.
        ValueError: there is no such type.
    """
    if isinstance(wire, str):
        kinds = wire.split(",")
        if len(kinds) > 2:
            raise ValueError(f"wire: must be TYPE or TYPE,TYPE of the gradient, got {wire!r}")
        wire = Wire(kinds[0], kinds[1] if len(kinds) == 2 else None)
    if wire is not None and not isinstance(wire, Wire):
        raise TypeError(f"wire: must be a Wire, a string or None, got {type(wire).__name__}")
    # One that changes nothing is none.
    return None if wire is None or wire.rows is wire.gradient is None else wire


class Codec:
    """Rows of some tensors of one dtype as a message, and back.

    Args:
        kind: The wire type, or None.
        dtype: Of the rows.
        widths: Elements per row of each tensor.
    """

    def __init__(self, kind: str | None, dtype: torch.dtype, widths: Sequence[int]) -> None:
        self.dtype, self.widths = dtype, list(widths)
        self._kinds = [_kind(kind, dtype, width) for width in widths]

    @property
    def is_exact(self) -> bool:
        """Whether the message is the rows themselves, side by side."""
        return not any(self._kinds)

    def encode(
        self,
        parts: Sequence[Tensor],  # [rows, width] each
        memory: WireMemory | None = None,
        site: str = "",
    ) -> Tensor:  # [rows, W], or uint8 [rows, bytes]
        """The message; with a memory, what it left out under this name is added first."""
        if self.is_exact:
            return (parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)).contiguous()
        if memory is not None:
            parts = memory.added(site, parts)
        message = torch.cat(
            [_encoded(x, kind) for x, kind in zip(parts, self._kinds, strict=True)], dim=1
        )
        if memory is not None:
            memory.remember(site, parts, self.split(self.decode(message)))
        return message

    def decode(self, message: Tensor) -> Tensor:  # [rows, W]
        """The rows that a message stands for: the same bits wherever it is read."""
        if self.is_exact:
            return message
        ends = list(
            itertools.accumulate(
                _row_bytes(kind, self.dtype, width)
                for kind, width in zip(self._kinds, self.widths, strict=True)
            )
        )
        pieces = message.tensor_split(ends[:-1], dim=1)
        parts = [
            _decoded(piece, kind, self.dtype)
            for piece, kind in zip(pieces, self._kinds, strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def split(self, rows: Tensor) -> Sequence[Tensor]:  # [rows, W] -> [rows, width] each
        """The tensors side by side in `rows`."""
        return torch.split(rows, self.widths, dim=1) if len(self.widths) > 1 else [rows]


class WireMemory:
    """What rounding has left out of the rows of one call site.

    Sites within it are named by a direction, "rows" or "gradient", and the tensors' dtype.

    Args:
        feedback: Whether it is added to the next rows.
        believed: Whether to keep the rows that were sent last as their receivers have them.
    """

    def __init__(self, feedback: bool = True, believed: bool = False) -> None:
        self._feedback, self._keep = feedback, believed
        # By site and place among its tensors: [rows, width].
        self.left: dict[str, Tensor] = {}
        self._believed: dict[str, Tensor] = {}
        # By direction: bool [rows], which of them are exchanged; None: all are.
        self._chosen: dict[str, Tensor] | None = None

    def of_rows(self, sends: Tensor, receives: Tensor) -> WireMemory:
        """The same memory for an exchange of some rows alone: bool [s] and [g], which they are."""
        part = copy.copy(self)
        part._chosen = {"rows": sends, "gradient": receives}
        return part

    def added(self, site: str, parts: Sequence[Tensor]) -> list[Tensor]:
        """Rows and what was left out of them the last time."""
        out = []
        for place, x in enumerate(parts):
            left = self.left.get(f"{site} {place}")
            if left is not None and self._chosen is not None:
                left = left[self._chosen[site.split()[0]]]
            out.append(x + left if left is not None and left.shape == x.shape else x)
        return out

    def remember(self, site: str, parts: Sequence[Tensor], decoded: Sequence[Tensor]) -> None:
        """Note what rows were to be, and what their receivers have."""
        for place, (x, arrived) in enumerate(zip(parts, decoded, strict=True)):
            key = f"{site} {place}"
            if self._feedback:
                gap = x - arrived
                # A row that was lost once is not to be lost for ever.
                self._note(self.left, key, torch.where(torch.isfinite(gap), gap, 0.0))
            if self._keep:
                self._note(self._believed, key, arrived)

    def as_believed(self, rows: Sequence[Tensor]) -> list[Tensor]:  # [s, ...] each
        """The rows that were sent last, as their receivers have them."""
        out, count = [], dict.fromkeys((x.dtype for x in rows), 0)
        for x in rows:
            arrived = self._believed.get(f"rows {x.dtype} {count[x.dtype]}")
            count[x.dtype] += 1
            out.append(x if arrived is None else arrived.view(x.shape))
        return out

    def _note(self, notes: dict[str, Tensor], key: str, value: Tensor) -> None:
        if self._chosen is not None:
            chosen = self._chosen[key.split()[0]]
            known = notes.get(key)
            whole = value.new_zeros(len(chosen), value.shape[1]) if known is None else known.clone()
            whole[chosen] = value
            value = whole
        notes[key] = value


def _row_bytes(kind: str | None, dtype: torch.dtype, width: int) -> int:
    if kind is None:
        return width * dtype.itemsize
    return width * 2 if kind in _HALVES else width + _SCALE_BYTES


def _kind(kind: str | None, dtype: torch.dtype, width: int) -> str | None:
    """The type that rows of one tensor really travel in."""
    if kind is None or not dtype.is_floating_point:
        return None
    return kind if _row_bytes(kind, dtype, width) < _row_bytes(None, dtype, width) else None


def _encoded(x: Tensor, kind: str | None) -> Tensor:  # [rows, width] -> uint8 [rows, bytes]
    if kind != "int8":
        return _bytes(x.to(_HALVES.get(kind or "", x.dtype)))
    wide = x if x.dtype is torch.float64 else x.float()
    scale = (wide.abs().amax(1, keepdim=True) / _MOST).float()  # [rows, 1]
    # Below the smallest normal number a scale is too coarse to be one.
    scale = torch.where(scale < torch.finfo(torch.float32).tiny, 0.0, scale)
    scale = torch.where(torch.isfinite(scale), scale, torch.nan)
    steps = wide / torch.where(scale > 0, scale, 1.0)
    steps = torch.where(scale > 0, steps.round().clamp(-_MOST, _MOST), 0.0)
    return torch.cat([_bytes(scale), _bytes(steps.to(torch.int8))], dim=1)


def _decoded(data: Tensor, kind: str | None, dtype: torch.dtype) -> Tensor:
    if kind != "int8":
        return _viewed(data, _HALVES.get(kind or "", dtype)).to(dtype)
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    scale = _viewed(data[:, :_SCALE_BYTES], torch.float32).to(wide)  # [rows, 1]
    steps = data[:, _SCALE_BYTES:].view(torch.int8).to(wide)
    return (steps * scale).to(dtype)


def _bytes(x: Tensor) -> Tensor:  # [rows, width] -> uint8 [rows, bytes]
    # Without rows strides may be anything.
    return (x.contiguous() if len(x) else x.new_empty(x.shape)).view(torch.uint8)


def _viewed(data: Tensor, dtype: torch.dtype) -> Tensor:  # uint8 [rows, bytes] -> [rows, width]
    # From the beginning of a memory of their own: a wider type may begin at its multiples alone.
    return data.reshape(-1).clone().view(dtype).view(len(data), data.shape[1] // dtype.itemsize)
