"""Some of the items of every group, drawn at random, for all groups at once."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["all_items", "draw", "draw_weighted"]

# Up to here a group's draws are compared with each other, which takes their square; above, all of
# its items are given a random key and sorted.
_COMPARED = 64


def all_items(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Every item of every group: its group, and its position there; both [sum of counts]."""
    group = torch.arange(counts.shape[0]).repeat_interleave(counts)
    first = counts.cumsum(0) - counts
    return group, torch.arange(group.shape[0]) - first[group]


def draw(counts: Tensor, number: int, replace: bool) -> tuple[Tensor, Tensor]:
    """Uniformly `number` items of every group, from torch's generator.

    Args:
        counts: [G] int64 items of each group.
        number: How many are wanted; negative: all. Without replacement a group of no more items
            gives all of them.
        replace: Whether an item may be drawn again.

    Returns:
        The group of each draw, ascending, and its position there; without replacement positions
        ascend.
    """
    if number < 0:
        return all_items(counts)
    if replace:
        group = torch.arange(counts.shape[0])[counts > 0].repeat_interleave(number)
        return group, _below(counts[group])
    taken = counts.clamp(max=number)
    group, position = all_items(taken)
    large = counts > number
    if number and bool(large.any()):
        sizes = counts[large]
        rows = _subsets(sizes, number) if number <= _COMPARED else _by_keys(sizes, number)
        position[large[group]] = rows.flatten()
    return group, position


def _below(bounds: Tensor) -> Tensor:
    """A random integer below each bound."""
    drawn = (torch.rand(bounds.shape, dtype=torch.float64) * bounds).long()
    return torch.minimum(drawn, bounds - 1)


def _subsets(sizes: Tensor, number: int) -> Tensor:  # [G, number]
    """A subset of `range(size)` for each size, all equally likely.

    Source: Floyd's algorithm, in Bentley, "Programming pearls: a sample of brilliance", 1987.
    """
    rows = torch.empty(sizes.shape[0], number, dtype=torch.int64)
    for i in range(number):
        last = sizes - number + i
        drawn = _below(last + 1)
        again = (rows[:, :i] == drawn.unsqueeze(1)).any(1)
        rows[:, i] = torch.where(again, last, drawn)
    return rows.sort(1).values


def _by_keys(sizes: Tensor, number: int) -> Tensor:  # [G, number]
    """The same by sorting all items of a group in a random order."""
    group, position = all_items(sizes)
    return _smallest(torch.rand(group.shape[0], dtype=torch.float64), group, position, number)


def _smallest(keys: Tensor, group: Tensor, position: Tensor, number: int) -> Tensor:
    """Positions, ascending, of the `number` smallest keys of every group, which has more."""
    order = keys.argsort()
    order = order[group[order].argsort(stable=True)]
    rank = all_items(torch.bincount(group))[1]
    return position[order[rank < number]].view(-1, number).sort(1).values


def draw_weighted(
    counts: Tensor, weight: Tensor, number: int, replace: bool
) -> tuple[Tensor, Tensor]:
    """`draw` with probabilities in proportion to weights; items of weight 0 are never drawn.

    Without replacement one after the other, each in proportion among those that are left.

    Args:
        counts: [G] int64 items of each group.
        weight: [sum of counts] weights, none negative.
        number: How many are wanted; negative: all of a positive weight.
        replace: Whether an item may be drawn again.

    Source: Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006.
    """
    group, position = all_items(counts)
    present = weight > 0
    group, position, weight = group[present], position[present], weight[present].double()
    counts = torch.bincount(group, minlength=counts.shape[0])
    first = counts.cumsum(0) - counts
    if number < 0:
        return group, position
    if replace:
        # Within the sums of all weights before an item and after it.
        after = torch.cat([weight.new_zeros(1), weight.cumsum(0)])
        owner = torch.arange(counts.shape[0])[counts > 0].repeat_interleave(number)
        low, high = after[first[owner]], after[first[owner] + counts[owner]]
        drawn = low + torch.rand(owner.shape[0], dtype=torch.float64) * (high - low)
        item = torch.searchsorted(after, drawn, right=True) - 1
        item = torch.minimum(item.clamp(min=0), first[owner] + counts[owner] - 1)
        return owner, position[torch.maximum(item, first[owner])]
    keys = torch.empty(group.shape[0], dtype=torch.float64).exponential_() / weight
    large = counts > number
    owner, within = all_items(counts.clamp(max=number))
    drawn = position[first[owner] + within]
    if number and bool(large.any()):
        of_large = large[group]
        renumbered = large.cumsum(0)[group[of_large]] - 1
        rows = _smallest(keys[of_large], renumbered, position[of_large], number)
        drawn[large[owner]] = rows.flatten()
    return owner, drawn
