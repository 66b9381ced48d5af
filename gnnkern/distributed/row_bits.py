"""`RowBits`: which rows come, told to their receivers in a bit each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gnnkern.distributed.exchange import HaloExchange, Traffic

__all__ = ["RowBits"]


class RowBits:
    """An exchange of one bit per row of a plan: whole bytes for every pair of ranks.

    Their number is known to both sides, so one collective does, whatever is chosen.

    Args:
        exchange: Whose plan, group and links.
    """

    def __init__(self, exchange: HaloExchange) -> None:
        plan = exchange.plan
        device = plan.send_rows.device
        sends, receives = (
            [-(-count // 8) for count in splits] for splits in (plan.send_splits, plan.recv_splits)
        )
        sent = torch.arange(sum(sends))
        bytes_plan = replace(
            plan,
            num_rows=len(sent),
            send_rows=sent.to(device),
            send_splits=sends,
            ghosts=torch.arange(sum(receives)),
            recv_splits=receives,
            sent=sent,
        )
        self._exchange = exchange.like(bytes_plan, Traffic())
        self._send_places = _places(plan.send_splits).to(device)  # [s]
        self._recv_places = _places(plan.recv_splits).to(device)  # [g]
        self._bit = (2 ** torch.arange(8)).to(device, torch.uint8)

    def tell(self, chosen: Tensor, traffic: Traffic) -> Tensor:  # bool [s] -> bool [g]
        """Which ghosts their owners have chosen; waits for the answer."""
        bits = chosen.new_zeros(self._exchange.plan.num_rows * 8)
        bits[self._send_places] = chosen
        packed = (bits.view(-1, 8) * self._bit).sum(1, dtype=torch.uint8)
        self._exchange.traffic.reset()
        (arrived,) = self._exchange.start([packed]).finish()
        traffic.add_bytes(self._exchange.traffic.bytes)
        told = (arrived.unsqueeze(1) & self._bit) != 0  # [bytes, 8]
        return told.view(-1)[self._recv_places]


def _places(splits: Sequence[int]) -> Tensor:
    """Where the bit of each row is, among those of all pairs."""
    counts = torch.tensor(splits)
    room = 8 * ((counts + 7) // 8)
    shift = room.cumsum(0) - room - (counts.cumsum(0) - counts)  # [P]
    return torch.repeat_interleave(shift, counts) + torch.arange(int(counts.sum()))
