"""Nested states as flat tensors and JSON: what a checkpoint holds, without pickled objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["pack", "unpack"]

_SKELETON = "skeleton"


def pack(state: Any, prefix: str) -> dict[str, Tensor]:
    """Tensors by name, of a nest of dicts, lists, tuples, tensors, numbers, strings and None.

    Args:
        state: The nest.
        prefix: Of every name.

    Returns:
        The nest's tensors, which are not copied, and under "{prefix}.skeleton" what is around them,
        as the bytes of JSON.

    Raises:
        TypeError: there is something else in it.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = _packed(state, prefix, tensors)
    data = bytearray(json.dumps(skeleton).encode())
    return tensors | {f"{prefix}.{_SKELETON}": torch.frombuffer(data, dtype=torch.uint8)}


def unpack(tensors: Mapping[str, Tensor], prefix: str) -> Any:
    """The nest that `pack` took apart."""
    data = tensors[f"{prefix}.{_SKELETON}"]
    return _unpacked(json.loads(bytes(data.tolist())), tensors)


def _packed(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        # A key may contain a dot, and so read like a nest.
        while name in tensors:
            name += "'"
        tensors[name] = value.detach()
        return {"tensor": name}
    if isinstance(value, Mapping):
        # Keys may be numbers, which JSON's own objects would turn into strings.
        items = [[key, _packed(each, f"{name}.{key}", tensors)] for key, each in value.items()]
        return {"dict": items}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_packed(each, f"{name}.{k}", tensors) for k, each in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"checkpoint: {name} must be of tensors, numbers and strings, got {value!r}")


def _unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _unpacked(each, tensors) for key, each in content}
    items = [_unpacked(each, tensors) for each in content]
    return tuple(items) if kind == "tuple" else items
