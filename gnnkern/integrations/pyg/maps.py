"""Messages side by side, parts of them, and linear maps of them, unmade.

A linear map of what is gathered is a gather of what was mapped, and of rows side by side it is the
sum of a map of each: `cat([x_i, x_j]) W = x_i W_1 + x_j W_2`. Nodes are fewer than edges, so that
maps are cheaper there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gnnkern.integrations.pyg.expressions import (
    Cat,
    Expression,
    Gather,
    Pair,
    Sum,
    same_form,
    same_index,
    with_leaves,
)
from gnnkern.integrations.pyg.lazy import STAY_LAZY, LazyMessage, expression_of

__all__: list[str] = []

_PLAIN = (Tensor, torch.nn.Parameter)


def _cat(tensors: Any, dim: int = 0, **kwargs: Any) -> Any:
    parts = [_part_of(tensor) for tensor in tensors]
    if kwargs or any(part is None for part in parts):
        return NotImplemented
    whole = Cat(tuple(parts))  # type: ignore[arg-type]
    dims = len(whole.shape)
    shapes = {tuple(part.shape[:-1]) for part in whole.parts}
    kinds = {(leaf.dtype, leaf.device) for leaf in whole.leaves}
    if dims < 2 or dim % dims != dims - 1 or len(shapes) > 1 or len(kinds) > 1:
        return NotImplemented
    return LazyMessage.of(whole)


def _part_of(tensor: Any) -> Gather | Pair | Tensor | None:
    if type(tensor) in _PLAIN:
        return tensor  # type: ignore[no-any-return]
    expression = expression_of(tensor)
    return expression if isinstance(expression, Gather | Pair) else None


def _item(message: Any, key: Any) -> Any:
    """`message[:, i]`: one of the parts of every edge's message."""
    expression = expression_of(message)
    if expression is None or not isinstance(key, tuple) or len(key) != 2:
        return NotImplemented
    if key[0] != slice(None) or not isinstance(key[1], int) or isinstance(key[1], bool):
        return NotImplemented
    sizes = {leaf.shape[1] for leaf in expression.leaves if leaf.dim() > 2}
    if any(leaf.dim() < 3 for leaf in expression.leaves) or len(sizes) > 1:
        return NotImplemented
    if not -min(sizes) <= key[1] < min(sizes):
        return NotImplemented
    return LazyMessage.of(with_leaves(expression, (leaf[key] for leaf in expression.leaves)))


def _stack(tensors: Any, dim: int = 0, **kwargs: Any) -> Any:
    """Messages of one form, each a part of every edge's message."""
    every = [expression_of(tensor) for tensor in tensors]
    first = every[0]
    if kwargs or first is None or isinstance(first, Cat):
        return NotImplemented
    if not all(each is not None and same_form(first, each) for each in every):
        return NotImplemented
    leaves: list[tuple[Tensor, ...]] = [each.leaves for each in every if each is not None]
    kinds = {(leaf.shape[1:], leaf.dtype) for each in leaves for leaf in each}
    dims = len(first.shape)
    if len(kinds) > 1 or dim % (dims + 1) == 0 or not -dims - 1 <= dim <= dims:
        return NotImplemented
    if any(leaf.dim() != dims for each in leaves for leaf in each):
        return NotImplemented
    stacked = (torch.stack(of_each, dim) for of_each in zip(*leaves, strict=True))
    return LazyMessage.of(with_leaves(first, stacked))


# -- linear maps -----------------------------------------------------------------------------------

# A part of a message, and the matrix [M, K] that it is multiplied by.
_Term = tuple[Gather | Tensor, Tensor]


def _linear(message: Any, weight: Any, bias: Any = None) -> Any:
    expression = expression_of(message)
    if expression is None or type(weight) not in _PLAIN or weight.dim() != 2:
        return NotImplemented
    if bias is not None and type(bias) not in _PLAIN:
        return NotImplemented
    shape = expression.shape
    if (
        len(shape) < 2
        or shape[-1] != weight.shape[1]
        or expression.leaves[0].device != weight.device
    ):
        return NotImplemented
    terms = _terms(expression, weight)
    if terms is None:
        return NotImplemented
    gathers = _by_ends([(part, w) for part, w in terms if isinstance(part, Gather)])
    edges = [(part, w) for part, w in terms if isinstance(part, Tensor)]
    # Of more nodes than edges, as there are in a sample, the edges are mapped.
    if not 0 < len(gathers) <= 2 or any(g.x.shape[0] > shape[0] for g, _ in gathers):
        return NotImplemented
    first, *second = [
        gather.over(F.linear(gather.x, w, bias if i == 0 else None))
        for i, (gather, w) in enumerate(gathers)
    ]
    if not edges:
        return LazyMessage.of(Pair("add", first, second[0]) if second else first)
    edge = _sum([F.linear(x, w) for x, w in edges])
    return LazyMessage.of(Sum(first, second[0], edge) if second else Pair("add", first, edge))


def _terms(part: Expression | Tensor, weight: Tensor) -> list[_Term] | None:
    """Parts and matrices whose products add up to the map of `part`; None where it has none."""
    if isinstance(part, Gather | Tensor):
        return [(part, weight)]
    if isinstance(part, Sum):
        return [(part.lhs, weight), (part.rhs, weight), (part.edge, weight)]
    if isinstance(part, Pair):
        if part.op not in ("add", "sub") or tuple(part.lhs.shape) != tuple(part.rhs.shape):
            return None
        return [(part.lhs, weight), (part.rhs, weight if part.op == "add" else -weight)]
    terms, start = [], 0
    for each in part.parts:
        width = each.shape[-1]
        of_part = _terms(each, weight[:, start : start + width])
        if of_part is None:
            return None
        terms += of_part
        start += width
    return terms


def _by_ends(terms: list[_Term]) -> list[tuple[Gather, Tensor]]:
    """Maps of the same features at the same end, as one."""
    found: list[tuple[Gather, Tensor]] = []
    for gather, weight in terms:
        assert isinstance(gather, Gather)
        for i, (other, of_other) in enumerate(found):
            if other.x is gather.x and same_index(other.index, gather.index):
                found[i] = (other, of_other + weight)
                break
        else:
            found.append((gather, weight))
    return found


def _sum(tensors: list[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total


_HANDLERS: dict[Any, Callable[..., Any]] = {
    torch.cat: _cat,
    torch.concat: _cat,
    torch.stack: _stack,
    Tensor.__getitem__: _item,
    F.linear: _linear,
}
STAY_LAZY |= _HANDLERS
