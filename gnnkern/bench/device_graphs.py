"""Graphs drawn where they are measured: a hundred million edges in less than a second on a GPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gnnkern.data import GraphData, load
from gnnkern.data.generators import source_skew, zipf_degrees
from gnnkern.data.sources import numbers_of

# Edges drawn at a time, so that temporaries in float64 stay small.
_CHUNK = 1 << 24


def load_on(source: str, device: torch.device) -> GraphData:
    """What `gnnkern.data.load` gives, with its edges on a device.

    On a GPU power-law graphs are drawn there, with the degrees of `gnnkern.data.power_law` and
    sources of the same distribution by another generator of random numbers: as large and as skewed,
    but other edges than on the CPU.
    """
    if device.type == "cpu":
        return load(source)
    numbers = numbers_of(source, "powerlaw")
    if numbers is not None and len(numbers) == 3:
        num_nodes, num_edges, max_degree = (int(number) for number in numbers)
        return _power_law(num_nodes, num_edges, max_degree, device)
    data = load(source)
    return GraphData(data.name, data.edge_index.to(device), data.num_nodes, num_dst=data.num_dst)


def _power_law(num_nodes: int, num_edges: int, max_degree: int, device: torch.device) -> GraphData:
    rng = np.random.default_rng(0)
    degree = rng.permutation(zipf_degrees(num_nodes, num_edges, max_degree))
    by_rank = torch.from_numpy(rng.permutation(num_nodes)).to(device)  # [N] the node of each rank
    rows = torch.arange(num_nodes, device=device)
    edge_index = torch.empty(2, num_edges, dtype=torch.int64, device=device)
    counts = torch.from_numpy(degree).to(device)
    edge_index[1] = torch.repeat_interleave(rows, counts, output_size=num_edges)
    skew = source_skew(num_nodes, num_edges, max_degree)
    generator = torch.Generator(device).manual_seed(0)
    for start in range(0, num_edges, _CHUNK):
        part = edge_index[0, start : start + _CHUNK]
        uniform = torch.rand(len(part), dtype=torch.float64, generator=generator, device=device)
        part.copy_(by_rank[_ranks(uniform, num_nodes, skew)])
    return GraphData(f"powerlaw-{num_nodes}-{num_edges}-{max_degree}", edge_index, num_nodes)


def _ranks(uniform: Tensor, count: int, skew: float) -> Tensor:  # [E] -> [E]
    """Ranks from 0 to count - 1 with probabilities that fall as `(rank + 1)**-skew`."""
    power = max(1.0 - skew, 1e-6)
    # The inverse of the continuous distribution over [1, count + 1).
    top = (count + 1.0) ** power - 1.0
    rank: Tensor = (1.0 + uniform * top) ** (1.0 / power)
    return rank.long().sub_(1).clamp_(0, count - 1)
