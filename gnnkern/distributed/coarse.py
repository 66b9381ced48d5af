"""`CoarseSpace`: what sweeps inside blocks leave: a few vectors per block, solved for at once."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnkern.distributed.adjacency import subgraph
from gnnkern.distributed.blocks import Blocks
from gnnkern.distributed.partition import partition
from gnnkern.graph import Graph
from gnnkern.ops.spmm import spmm

__all__ = ["CoarseSpace", "aggregates"]

# Columns of S Z that are computed, and exchanged, at a time.
_COLUMNS = 32


def aggregates(blocks: Blocks, count: int) -> Tensor:  # int64 [n]
    """The coarse vector of each row: its block's only one, or one of `count` clusters in it.

    Clusters are those of Fennel's partition of the block's own edges; the same on every call.
    """
    if count == 1:
        return blocks.block
    out = blocks.block * count
    for block in range(blocks.first_block, blocks.first_block + blocks.local_blocks):
        rows = (blocks.block == block).nonzero().squeeze(1)
        inside = subgraph(blocks.own, rows)
        clusters = partition(inside, count, "fennel").part.to(out.device)
        out[rows] += clusters
    return out


class CoarseSpace:
    """Z: vectors that are zero outside their aggregate, and inside it what S leaves unchanged.

    Where every row of S sums to 1 that is the constant: sweeps inside a block never change the
    block's mean by what its neighbours know. With S = L W R it is 1/R, tested against 1/L.

    For A = (1 + tau) I - tau S, the correction of a residual r is Z c with
    (W^T A Z) c = W^T r, W being the test vectors. The matrix W^T S Z is assembled once and is the
    same on all processes, each of which solves the system for itself; W^T r is a sum over
    processes, of one number per vector and column. A Z c follows from S Z, which is kept: no
    exchange.

    Args:
        blocks: S, or its transpose.
        aggregate: int64 [n] the vector of each row, in [0, size).
        size: How many vectors there are on all processes.
        dtype: Of the residuals.

    Cost: size / 32 exchanges of width 32 once; memory of the non-zeros of S Z and size^2.
    """

    def __init__(self, blocks: Blocks, aggregate: Tensor, size: int, dtype: torch.dtype) -> None:
        self._blocks, self.size = blocks, size
        num_rows, device = len(aggregate), aggregate.device
        rows = torch.arange(num_rows, device=device)
        left, right = blocks.left, blocks.right
        # Rows without edges are no part of any vector: their own equation solves them.
        trial = torch.where(right > 0, 1.0 / right, 0.0).to(dtype)
        test = torch.where(left > 0, 1.0 / left, 0.0).to(dtype)
        there = (left > 0) & (right > 0)
        self._trial, self._test = trial * there, test * there
        self._spread = Graph.from_edge_index(torch.stack([aggregate, rows]), (size, num_rows))
        image_rows, image_columns, values = [], [], []
        for begin in range(0, size, _COLUMNS):
            width = min(_COLUMNS, size - begin)
            inside = (aggregate >= begin) & (aggregate < begin + width)
            columns = torch.zeros(num_rows, width, dtype=dtype, device=device)
            columns[rows[inside], aggregate[inside] - begin] = self._trial[inside]
            image = blocks.propagate(columns)  # [n, width]
            row, column = image.nonzero(as_tuple=True)
            image_rows.append(row)
            image_columns.append(column + begin)
            values.append(image[row, column])
        empty = torch.empty(0, dtype=torch.int64, device=device)
        row, column = torch.cat([empty, *image_rows]), torch.cat([empty, *image_columns])
        value = torch.cat([empty.to(dtype), *values])  # [M]
        self._image, self._image_value = (
            Graph.from_edge_index(torch.stack([column, row]), (size, num_rows)),
            value,
        )
        # One sum over processes for both: W^T S Z and, on the line behind it, W^T Z.
        table = torch.zeros(size + 1, size, dtype=torch.float64, device=device)
        place = aggregate[row] * size + column
        table.view(-1).index_add_(0, place, (self._test[row] * value).double())
        table[size].index_add_(0, aggregate, (self._test * self._trial).double())
        table = blocks.sum(table)
        self._product, self._gram = table[:size], table[size]

    def factor(self, tau: Tensor) -> Factored:  # [1] or [F]
        """Factor W^T A Z for these tau, one matrix for each; vectors of no row are left out."""
        tau = tau.double().view(-1, 1, 1)
        gram = torch.diag(torch.where(self._gram == 0, 1.0, self._gram))
        matrix = (1 + tau) * gram - tau * self._product  # [1 or F, C, C]
        return Factored(self, tau, torch.linalg.lu_factor(matrix))

    def restrict(self, residual: Tensor) -> Tensor:  # [n, F] -> float64 [C, F]
        """W^T r, summed over processes."""
        return self._blocks.sum(spmm(self._spread.reverse, residual, self._test).double())

    def extend(self, c: Tensor) -> tuple[Tensor, Tensor]:  # [C, F] -> [n, F], [n, F]
        """Z c and S Z c."""
        return spmm(self._spread, c, self._trial), spmm(self._image, c, self._image_value)


class Factored:
    """A coarse space with its matrix factored."""

    def __init__(self, space: CoarseSpace, tau: Tensor, factors: tuple[Tensor, Tensor]) -> None:
        self._space, self._tau, self._factors = space, tau.view(-1), factors

    def correct(self, residual: Tensor) -> tuple[Tensor, Tensor]:  # [n, F] -> [n, F], [n, F]
        """The correction z of a residual, and A z."""
        sums = self._space.restrict(residual)  # [C, F]
        lu, pivots = self._factors
        if len(self._tau) == 1:
            c = torch.linalg.lu_solve(lu[0], pivots[0], sums)
        else:
            c = torch.linalg.lu_solve(lu, pivots, sums.T.unsqueeze(2)).squeeze(2).T
        z, image = self._space.extend(c.to(residual.dtype).contiguous())
        tau = self._tau.to(residual.dtype)
        return z, (1 + tau) * z - tau * image
