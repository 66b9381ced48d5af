"""What kernels on a GPU walk: the rows of a matrix, long ones cut into the chunks of a plan."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from gnnkern._native import INDEX_CODES, address

__all__ = ["Walk"]


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
