"""Messages as they are meant, before there is one of size edges x width.

    Gather(x, index)       x[index]: what lies at one end of every edge
    Pair(op, lhs, rhs)     two of them, or one and an edge tensor, combined
    Cat(parts)             several side by side

Each knows its shape, its leaves (the tensors it is made from) and its value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Cat", "Expression", "Gather", "Pair", "same_index"]

OPS: dict[str, Callable[[Any, Any], Any]] = {
    "mul": torch.mul,
    "div": torch.div,
    "add": torch.add,
    "sub": torch.sub,
}


@dataclass(frozen=True, eq=False)
class Gather:
    """`x[index]`, of shape [E, ...]."""

    x: Tensor  # [N, ...]
    index: Tensor  # [E]
    # What gathers, with PyG's errors.
    select: Callable[[Tensor, Tensor], Tensor]

    @property
    def shape(self) -> tuple[int, ...]:
        """[E, ...]."""
        return (self.index.shape[0], *self.x.shape[1:])

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """The features."""
        return (self.x,)

    def value(self, *leaves: Tensor) -> Tensor:
        """The message, made of these leaves."""
        (x,) = leaves
        return self.select(x, self.index)

    def over(self, x: Tensor) -> Gather:
        """The same of other features."""
        return Gather(x, self.index, self.select)


@dataclass(frozen=True, eq=False)
class Pair:
    """`lhs op rhs`: each a `Gather` or an edge tensor, at least one a `Gather`."""

    op: str
    lhs: Gather | Tensor
    rhs: Gather | Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """[E, ...]."""
        return tuple(torch.broadcast_shapes(self.lhs.shape, self.rhs.shape))

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """Features and edge tensor."""
        return tuple(side.x if isinstance(side, Gather) else side for side in (self.lhs, self.rhs))

    def value(self, *leaves: Tensor) -> Tensor:
        """The message, made of these leaves."""
        sides = [
            side.value(leaf) if isinstance(side, Gather) else leaf
            for side, leaf in zip((self.lhs, self.rhs), leaves, strict=True)
        ]
        out: Tensor = OPS[self.op](*sides)
        return out


@dataclass(frozen=True, eq=False)
class Cat:
    """Messages side by side in their last dimension."""

    parts: tuple[Gather | Pair, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """[E, ..., the sum of the widths]."""
        shapes = [part.shape for part in self.parts]
        return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """Those of the parts."""
        return tuple(leaf for part in self.parts for leaf in part.leaves)

    def value(self, *leaves: Tensor) -> Tensor:
        """The message, made of these leaves."""
        values, start = [], 0
        for part in self.parts:
            count = len(part.leaves)
            values.append(part.value(*leaves[start : start + count]))
            start += count
        return torch.cat(values, -1)


Expression = Gather | Pair | Cat


def same_index(a: Tensor, b: Tensor) -> bool:
    """Whether two index tensors are views of the same elements."""
    return a is b or (
        a.data_ptr() == b.data_ptr()
        and a.shape == b.shape
        and a.stride() == b.stride()
        and a.dtype == b.dtype
        and a.device == b.device
    )
