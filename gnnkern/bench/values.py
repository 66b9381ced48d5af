"""The values that are measured: the same for the same seed, where the graph is."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnkern.bench.graphs import BenchGraph


def normal(graph: BenchGraph, *shape: int, seed: int) -> Tensor:
    """Values where the graph is."""
    generator = torch.Generator(graph.device).manual_seed(seed)
    return torch.randn(*shape, generator=generator, device=graph.device)


def permuted(values: Tensor, seed: int) -> Tensor:
    generator = torch.Generator(values.device).manual_seed(seed)
    return values[torch.randperm(len(values), generator=generator, device=values.device)]


def distinct(graph: BenchGraph, rows: int, width: int) -> Tensor:  # [rows, width]
    """Values in (-2, 2) that never repeat in a column: a maximum has one winner in any precision.

    A bijection of the row's number on as many bits as it needs, at most the 24 that float32 holds.
    None is 0, which the gradient of torch's amax takes for the value that its result started from.
    """
    bits = max((max(rows, 2) - 1).bit_length(), 4)
    if bits > 24:
        raise ValueError(f"more rows than float32 has distinct values: {rows:,}")
    mask = (1 << bits) - 1
    row = torch.arange(rows, device=graph.device)
    x = torch.empty(rows, width, device=graph.device)
    for column in range(width):
        mixed = (row * (2 * column + 0x9E3779B1) + 77 * column) & mask
        mixed = mixed ^ (mixed >> (bits // 2))
        mixed = (mixed * 0x85EBCA6B) & mask
        x[:, column] = ((mixed - (1 << (bits - 1))).float() + 0.5) * 2.0 ** (2 - bits)
    return x


def rows_of(graph: BenchGraph, rows: int, width: int, reduce: str) -> Tensor:  # [rows, width]
    """What a sum or a maximum takes: for the latter nothing twice."""
    if reduce == "max":
        return distinct(graph, rows, width)
    return normal(graph, rows, width, seed=1)
