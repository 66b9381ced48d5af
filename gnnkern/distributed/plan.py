"""`HaloPlan`: which rows a rank sends to whom and receives from whom, fixed before the first."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.distributed as dist
from torch import Tensor

from gnnkern.distributed.cut import Edges, LocalPart
from gnnkern.distributed.hierarchy import LEVELS, Hierarchy
from gnnkern.distributed.waiting import all_reduce, waiting_for
from gnnkern.graph import Graph

__all__ = ["HaloPlan", "PlanMismatch"]


class PlanMismatch(ValueError):
    """The ranks' plans are not those of one partition; nothing was exchanged."""


@dataclass(frozen=True, eq=False)
class HaloPlan:
    """The static side of an exchange, in the order of ranks on both sides.

    Attributes:
        rank: Whose plan.
        hierarchy: Of all ranks.
        fingerprint: Of the partition that the plan was made from.
        num_rows: n, owned rows.
        send_rows: [s] owned rows to send, by receiver.
        send_splits: [P] rows for each rank.
        ghosts: [g] global ids of what is received, by owner.
        recv_splits: [P] rows from each rank.
        sent: [s] global ids of what is sent.
    """

    rank: int
    hierarchy: Hierarchy
    fingerprint: int
    num_rows: int
    send_rows: Tensor
    send_splits: list[int]
    ghosts: Tensor
    recv_splits: list[int]
    sent: Tensor

    @classmethod
    def of(cls, part: LocalPart, edges: Edges) -> HaloPlan:
        """The plan of one direction of a rank's part."""
        return cls(
            part.rank,
            part.hierarchy,
            part.fingerprint,
            len(part.owned),
            edges.send_rows,
            edges.send_splits.tolist(),
            edges.ghosts,
            edges.ghost_splits.tolist(),
            part.owned[edges.send_rows],
        )

    @property
    def num_ghosts(self) -> int:
        """g, rows received."""
        return sum(self.recv_splits)

    @property
    def num_sent(self) -> int:
        """s, rows sent: a row counts once for every rank that receives it."""
        return sum(self.send_splits)

    @cached_property
    def levels(self) -> list[int]:
        """The level of the link to every rank, -1 to itself."""
        return self.hierarchy.levels_from(self.rank)

    @cached_property
    def returning(self) -> Graph:
        """Edges from what comes back to the rows that it belongs to."""
        rows = self.send_rows
        edge_index = torch.stack([torch.arange(len(rows), device=rows.device), rows])
        return Graph.from_edge_index(edge_index, (len(rows), self.num_rows))

    def rows_by_level(self, splits: Sequence[int]) -> dict[str, int]:
        """Rows of `splits` per kind of link."""
        rows = dict.fromkeys(LEVELS, 0)
        for level, count in zip(self.levels, splits, strict=True):
            if level >= 0:
                rows[LEVELS[level]] += count
        return rows

    def over(self, levels: Sequence[str]) -> tuple[HaloPlan, Tensor]:
        """The plan of links of some kinds alone, and the places of its ghosts among all, [g']."""
        kept = torch.tensor([level >= 0 and LEVELS[level] in levels for level in self.levels])
        receives = torch.repeat_interleave(kept, torch.tensor(self.recv_splits))
        sends = torch.repeat_interleave(kept, torch.tensor(self.send_splits))
        return self.of_rows(sends, receives), receives.nonzero().squeeze(1)

    def of_rows(self, sends: Tensor, receives: Tensor) -> HaloPlan:
        """The plan of some of the rows alone.

        Args:
            sends: bool [s] which of the rows to send.
            receives: bool [g] which of the ghosts to receive: those that their owners send.
        """
        here, there = sends.to(self.send_rows.device), receives.cpu()
        sends = sends.cpu()
        return replace(
            self,
            send_rows=self.send_rows[here],
            send_splits=_counts(sends, self.send_splits),
            ghosts=self.ghosts[there],
            recv_splits=_counts(there, self.recv_splits),
            sent=self.sent[sends],
        )

    def to(self, device: torch.device) -> HaloPlan:
        """The same with the rows to send on another device; ids stay where they are."""
        there = self.send_rows.device == device
        return self if there else replace(self, send_rows=self.send_rows.to(device))

    def check(self, group: dist.ProcessGroup | None, device: torch.device, wire: str = "") -> None:
        """Compare this plan with those of the other ranks; all of them must call it.

        Every pair compares how many rows go from one to the other and a digest of their ids, and
        everybody the fingerprint of the partition and the wire types, as `wire` says them. Cost:
        an exchange of 40 bytes per pair.

        Raises:
            PlanMismatch: on every rank, where any pair disagrees.
        """
        world = dist.get_world_size(group)
        fits = self.hierarchy.size == world and self.rank == dist.get_rank(group)
        mine = torch.zeros(world, 5, dtype=torch.int64)
        expected = torch.zeros(world, 5, dtype=torch.int64)
        for table, splits, ids in (
            (mine, self.send_splits, self.sent),
            (expected, self.recv_splits, self.ghosts),
        ):
            for other, of_pair in enumerate(torch.split(ids.cpu(), splits) if fits else ()):
                table[other, 0] = splits[other]
                table[other, 1] = _digest(of_pair)
            table[:, 2] = self.fingerprint
            table[:, 3] = self.hierarchy.size
            table[:, 4] = _digest_bytes(wire.encode())
        got = torch.empty_like(mine, device=device)
        with waiting_for("comparison of plans", group):
            dist.all_to_all_single(got, mine.to(device), group=group)
        differs = got.cpu() != expected
        wrong = differs.any(1).nonzero().flatten().tolist()
        verdict = torch.tensor([world if fits and not wrong else dist.get_rank(group)])
        verdict = verdict.to(device)
        all_reduce(verdict, group, dist.ReduceOp.MIN)
        first = int(verdict)
        if first == world:
            return
        if not fits:
            detail = (
                f"this plan is rank {self.rank}'s of {self.hierarchy.size}, the process group has "
                f"{world} ranks and this is {dist.get_rank(group)}"
            )
        elif wrong and not bool(differs[:, :4].any()):
            detail = f"this rank's wire is {wire}, that of rank {wrong[0]} is another"
        elif wrong:
            detail = f"this rank's plan disagrees with that of rank {wrong[0]}"
        else:
            detail = f"rank {first} found that its plan disagrees with another's"
        raise PlanMismatch(
            f"HaloPlan: the plans are not of one partition: {detail}; cut all parts from the same "
            "graph and partition"
        )


def _digest(ids: Tensor) -> int:
    return _digest_bytes(ids.long().numpy().tobytes())


def _digest_bytes(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") >> 1


def _counts(chosen: Tensor, splits: Sequence[int]) -> list[int]:
    """How many of the rows of each split are chosen."""
    before = torch.cat([torch.zeros(1, dtype=torch.int64), chosen.cumsum(0)])
    ends: list[int] = before[torch.tensor([0, *splits]).cumsum(0)].diff().tolist()
    return ends
