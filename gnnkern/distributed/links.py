"""Exchanges over some kinds of links apart from those over others."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from gnnkern.distributed.exchange import HaloExchange

__all__ = ["divided", "joined"]

_Rule = TypeVar("_Rule", bound=Hashable)


def divided(
    exchange: HaloExchange, rules: Mapping[str, _Rule]
) -> list[tuple[_Rule, HaloExchange, Tensor | None]]:
    """An exchange for the links of each rule, and the places of its ghosts among all, [g'].

    Args:
        exchange: Over all links; its plans were compared.
        rules: Of every kind of link that there is. Kinds of one rule are exchanged together.

    Returns:
        In the order of `rules`; places are None where one rule holds for all.
    """
    levels_of: dict[_Rule, list[str]] = {}
    for level, rule in rules.items():
        levels_of.setdefault(rule, []).append(level)
    if len(levels_of) == 1:
        return [(rule, exchange, None) for rule in levels_of]
    return [(rule, *exchange.over(levels)) for rule, levels in levels_of.items()]


def joined(
    parts: Sequence[list[Tensor]],
    places: Sequence[Tensor | None],  # [g'] each
) -> list[Tensor]:  # [g, ...] for each tensor
    """The ghosts of all links in order, of those that each of the `divided` exchanges brought."""
    if len(parts) == 1 and places[0] is None:
        return parts[0]
    place = torch.cat([each for each in places if each is not None])  # [g]
    order = torch.empty_like(place)
    order[place] = torch.arange(len(place), device=place.device)
    rows = [torch.cat(of_tensor) for of_tensor in zip(*parts, strict=True)]
    return [x.index_select(0, order.to(x.device)) for x in rows]
