"""What kernels on a GPU walk: the rows of a matrix, long ones cut into the chunks of a plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from gnnkern._native import INDEX_CODES, Csr, address

__all__ = ["Walk", "drop_empty", "plan_shape", "walk_segments", "walk_with"]

# A function that makes the plan of an indptr for so many edges, in chunks of so many.
MakePlan = Callable[[Tensor, int, int | None], Tensor]


class Walk(NamedTuple):
    """The rows of a matrix, and the order in which a kernel on a GPU walks their edges."""

    indptr: Tensor  # [num_rows + 1]
    indices: Tensor | None  # [E], None: an edge's own position
    edge_id: Tensor | None  # [E], None: an edge's own position
    plan: Tensor | None  # [1 + num_chunks, 4], None: no row is long
    num_edges: int

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return self.indptr.shape[0] - 1

    @property
    def num_chunks(self) -> int:
        """How many slots for chunks of long rows there are."""
        return 0 if self.plan is None else self.plan.shape[0] - 1

    @property
    def degree(self) -> float:
        """The average number of edges in a row."""
        return self.num_edges / max(self.num_rows, 1)

    def items(self, rows: int) -> int:
        """How many programs walk it: one for each chunk, and one for each group of rows."""
        return self.num_chunks + -(-self.num_rows // rows)

    def fields(self) -> tuple[int, ...]:
        """It as the CUDA launchers take it; whoever passes them on keeps the walk alive."""
        return (
            INDEX_CODES[self.indptr.dtype],
            self.indptr.data_ptr(),
            address(self.indices),
            address(self.edge_id),
            address(self.plan),
            self.num_rows,
            self.num_edges,
            self.num_chunks,
        )


def walk_with(csr: Csr, make_plan: MakePlan) -> Walk:
    """A matrix as the kernels take it.

    A graph on a GPU holds its plan. One on the CPU holds that of the C++ kernels, so that kernels
    which are interpreted or hosted there plan at each call.
    """
    num_edges = csr.indices.shape[0]
    plan = csr.plan
    if plan.dim() != 2:
        plan = drop_empty(make_plan(csr.indptr, num_edges, None))
    return Walk(csr.indptr, csr.indices, csr.edge_id, plan if plan.shape[0] else None, num_edges)


def walk_segments(
    indptr: Tensor, num_edges: int, make_plan: MakePlan, chunk_edges: int | None = None
) -> Walk:
    """Consecutive rows as the kernels take them; None: chunks are as long as the rule says."""
    plan = make_plan(indptr, num_edges, chunk_edges)
    return Walk(indptr, None, None, plan if plan.shape[0] else None, num_edges)


def plan_shape(num_rows: int, num_edges: int, chunk_edges: int) -> tuple[int, int]:
    """The shape of a plan before empty slots are dropped; [0, 4] where no row can be long."""
    if num_rows == 0 or num_edges <= chunk_edges:
        return 0, 4
    return 1 + 2 * -(-num_edges // chunk_edges), 4


def drop_empty(plan: Tensor) -> Tensor:
    """The same plan without empty slots; how many there are is read from the device."""
    if plan.shape[0] == 0:
        return plan
    records = plan[1:]
    taken = records[:, 0] >= 0
    new_slot = taken.cumsum(0) - 1
    kept = records[taken]
    if kept.shape[0] == 0:
        return plan[:0]
    kept[:, 3] = new_slot[kept[:, 3].long()].to(kept.dtype)
    header = plan[:1].clone()
    # Slots of one row follow one another: those in between were empty.
    header[0, 1] = 1
    return torch.cat((header, kept))
