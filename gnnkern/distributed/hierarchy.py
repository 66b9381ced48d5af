"""`Hierarchy`: which ranks share a device and which a host, and so what a link between two is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["LEVELS", "Hierarchy", "as_hierarchy"]

# Kinds of links between two ranks, the cheapest first.
LEVELS = ("device", "host", "network")


class Hierarchy(NamedTuple):
    """Ranks numbered by host, then by device, then by place on the device."""

    hosts: int
    devices: int
    ranks: int = 1

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return self.hosts * self.devices * self.ranks

    @property
    def levels(self) -> tuple[str, ...]:
        """The kinds of links that there are."""
        counts = (self.ranks, self.devices, self.hosts)
        return tuple(level for level, count in zip(LEVELS, counts, strict=True) if count > 1)

    def level(self, one: int, other: int) -> int:
        """The position in `LEVELS` of the link between two ranks; -1 from a rank to itself."""
        if one == other:
            return -1
        if one // self.ranks == other // self.ranks:
            return 0
        per_host = self.devices * self.ranks
        return 1 if one // per_host == other // per_host else 2

    def levels_from(self, rank: int) -> list[int]:
        """The level of the link from a rank to each."""
        return [self.level(rank, other) for other in range(self.size)]


def as_hierarchy(who: str, parts: int, hierarchy: Sequence[int] | None) -> Hierarchy:
    """The hierarchy of `parts` ranks: by default one host, with a device for each.

    Raises:
        TypeError: not two or three ints.
        ValueError: their product is not `parts`.
    """
    if hierarchy is None:
        return Hierarchy(1, parts)
    counts = tuple(hierarchy)
    if len(counts) not in (2, 3) or not all(type(count) is int for count in counts):
        raise TypeError(
            f"{who}: hierarchy must be (hosts, devices) or (hosts, devices, ranks per device), "
            f"got {hierarchy!r}"
        )
    made = Hierarchy(*counts)
    if min(counts) < 1 or made.size != parts:
        raise ValueError(
            f"{who}: hierarchy must be of positive ints whose product is parts={parts}, "
            f"got {counts}"
        )
    return made
