"""`place`: which parts share a host and a device, so that few rows travel far."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gnnkern.distributed.hierarchy import Hierarchy

__all__ = ["place"]

# Greedy placements that are improved, besides that of the parts' own order. On grids and on power
# laws of 32 and 64 parts more of them gain less than a hundredth of the traffic.
_STARTS = 4


def place(
    rows: Tensor,  # [P, P]
    hierarchy: Hierarchy,
    seed: int = 0,
) -> Tensor:  # int64 [P]
    """Parts in the order of ranks: rank r takes part `order[r]`.

    The parts, nodes of the quotient graph, are divided among hosts first and then, host by host,
    among devices: groups grown greedily from several beginnings, and the parts' own order; each is
    improved by swapping the two parts that gain most until none gains, and the best is taken. So
    no more rows go from host to host than in the order that the parts come in.

    Args:
        rows: Rows that an exchange moves from part to part (`Loads.rows`), not negative.
        hierarchy: Of the ranks.
        seed: Of the beginnings; the same seed gives the same order.

    Cost: P^2 for each swap, of which there are about P.

    Raises:
        ValueError: rows are not [P, P] of the hierarchy's P.
    """
    parts = hierarchy.size
    if rows.shape != (parts, parts):
        raise ValueError(f"place: rows must have shape [P={parts}, P], got {list(rows.shape)}")
    both = (rows + rows.T).double().fill_diagonal_(0.0)
    generator = torch.Generator().manual_seed(seed)
    return _arranged(both, torch.arange(parts), list(hierarchy), generator)


def _arranged(
    weight: Tensor,  # [P, P]
    parts: Tensor,  # [p]
    counts: Sequence[int],
    generator: torch.Generator,
) -> Tensor:  # [p]
    """Some parts in order: divided into `counts[0]` groups, each of them by the next count."""
    if len(counts) < 2 or len(parts) < 2:
        return parts
    if counts[0] > 1:
        within = weight[parts][:, parts]
        group = _best_groups(within, counts[0], generator)
        parts = parts[torch.sort(group, stable=True).indices]
    return torch.cat(
        [_arranged(weight, part, counts[1:], generator) for part in parts.chunk(counts[0])]
    )


def _best_groups(weight: Tensor, count: int, generator: torch.Generator) -> Tensor:  # int64 [p]
    """Groups of equal size with little weight between them."""
    size = len(weight) // count
    best = _swapped(weight, torch.arange(len(weight)) // size, count)
    for _ in range(_STARTS if size > 1 else 0):
        first = int(torch.randint(len(weight), (1,), generator=generator))
        group = _swapped(weight, _grown(weight, count, first), count)
        if _between(weight, group) < _between(weight, best):
            best = group
    return best


def _between(weight: Tensor, group: Tensor) -> float:
    return float(weight[group[:, None] != group].sum())


def _grown(weight: Tensor, count: int, first: int) -> Tensor:  # int64 [p]
    """Groups grown one after the other, each by the part that is tied to it most."""
    size = len(weight) // count
    group = torch.full((len(weight),), -1)
    chosen = first
    for number in range(count):
        tie = torch.zeros(len(weight), dtype=weight.dtype)  # [p] to the group
        for place_in_group in range(size):
            if place_in_group or number:
                free = group < 0
                # Between equals, and for the first of a group, the one with least ties elsewhere.
                open_ties = (weight * free).sum(1)
                rank = tie - 1e-6 * open_ties / open_ties.max().clamp(min=1.0)
                chosen = int(rank.masked_fill(~free, -torch.inf).argmax())
            group[chosen] = number
            tie += weight[chosen]
    return group


def _swapped(weight: Tensor, group: Tensor, count: int) -> Tensor:  # int64 [p]
    """Groups after the swaps of two parts that gain most, until none gains."""
    group = group.clone()
    # Weight of each part into each group.
    into = weight @ torch.nn.functional.one_hot(group, count).to(weight.dtype)  # [p, count]
    everybody = torch.arange(len(group))
    # Sums of other orders differ in their last bits.
    least = 1e-9 * float(weight.sum())
    while True:
        leaves = into - into[everybody, group][:, None]  # [p, count] gain of a part that moves
        moved = leaves[:, group]  # [p, p] of each part that moves to another's group
        gain = moved + moved.T - 2.0 * weight
        gain.masked_fill_(group[:, None] == group, 0.0)
        one, other = divmod(int(gain.argmax()), len(group))
        if float(gain[one, other]) <= least:
            return group
        here, there = int(group[one]), int(group[other])
        for part, source, target in ((one, here, there), (other, there, here)):
            into[:, source] -= weight[part]
            into[:, target] += weight[part]
            group[part] = target
