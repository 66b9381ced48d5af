"""Messages as they are meant, before there is one of size edges x width.

    Gather(x, index)       x[index]: what lies at one end of every edge
    Pair(op, lhs, rhs)     two of them, or one and an edge tensor, combined
    Sum(lhs, rhs, edge)    both ends and an edge tensor, added
    Cat(parts)             several side by side, edge tensors among them

Each knows its shape, its leaves (the tensors it is made from), its value, and what it is of other
leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Cat", "Expression", "Gather", "Pair", "Sum", "same_form", "same_index", "with_leaves"]

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
        return _leaves_of((self.lhs, self.rhs))

    def value(self, *leaves: Tensor) -> Tensor:
        """The message, made of these leaves."""
        out: Tensor = OPS[self.op](*_values_of((self.lhs, self.rhs), leaves))
        return out


@dataclass(frozen=True, eq=False)
class Sum:
    """`lhs + rhs + edge`, all of one shape."""

    lhs: Gather
    rhs: Gather
    edge: Tensor  # [E, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """[E, ...]."""
        return tuple(self.edge.shape)

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """Features of both ends, and the edge tensor."""
        return (self.lhs.x, self.rhs.x, self.edge)

    def value(self, *leaves: Tensor) -> Tensor:
        """The message, made of these leaves."""
        lhs, rhs, edge = _values_of((self.lhs, self.rhs, self.edge), leaves)
        return lhs + rhs + edge


@dataclass(frozen=True, eq=False)
class Cat:
    """Messages side by side in their last dimension."""

    parts: tuple[Gather | Pair | Tensor, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """[E, ..., the sum of the widths]."""
        shapes = [tuple(part.shape) for part in self.parts]
        return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """Those of the parts."""
        return _leaves_of(self.parts)

    def value(self, *leaves: Tensor) -> Tensor:
        """The message, made of these leaves."""
        return torch.cat(_values_of(self.parts, leaves), -1)


Expression = Gather | Pair | Sum | Cat
_Part = Expression | Tensor


def _leaves_of(parts: tuple[_Part, ...]) -> tuple[Tensor, ...]:
    each = [(part,) if isinstance(part, Tensor) else part.leaves for part in parts]
    return tuple(leaf for leaves in each for leaf in leaves)


def _values_of(parts: tuple[_Part, ...], leaves: tuple[Tensor, ...]) -> list[Tensor]:
    rest = iter(leaves)
    return [
        next(rest) if isinstance(part, Tensor) else part.value(*(next(rest) for _ in part.leaves))
        for part in parts
    ]


def with_leaves(expression: Expression, leaves: Iterable[Tensor]) -> Expression:
    """The same expression of other leaves."""
    rest = iter(leaves)

    def made(part: Any) -> Any:
        if isinstance(part, Tensor):
            return next(rest)
        if isinstance(part, Gather):
            return part.over(next(rest))
        if isinstance(part, Pair):
            return Pair(part.op, made(part.lhs), made(part.rhs))
        if isinstance(part, Sum):
            return Sum(made(part.lhs), made(part.rhs), made(part.edge))
        return Cat(tuple(made(each) for each in part.parts))

    return made(expression)  # type: ignore[no-any-return]


def same_form(a: Any, b: Any) -> bool:
    """Whether two expressions, or parts of them, differ in their leaves alone."""
    if type(a) is not type(b):
        return isinstance(a, Tensor) and isinstance(b, Tensor)
    if isinstance(a, Gather):
        return same_index(a.index, b.index)
    if isinstance(a, Pair):
        return a.op == b.op and same_form(a.lhs, b.lhs) and same_form(a.rhs, b.rhs)
    if isinstance(a, Sum):
        return same_form(a.lhs, b.lhs) and same_form(a.rhs, b.rhs)
    return isinstance(a, Tensor) or (
        len(a.parts) == len(b.parts) and all(map(same_form, a.parts, b.parts))
    )


def same_index(a: Tensor, b: Tensor) -> bool:
    """Whether two index tensors are views of the same elements."""
    return a is b or (
        a.data_ptr() == b.data_ptr()
        and a.shape == b.shape
        and a.stride() == b.stride()
        and a.dtype == b.dtype
        and a.device == b.device
    )
