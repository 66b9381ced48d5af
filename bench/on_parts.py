"""A process for every part of a graph: how benches of ranks run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

import gnnkern
from gnnkern.data import power_law
from gnnkern.distributed import Partition, PartitionedGraph, cut, load_part, save_parts

__all__ = ["communities", "on_parts"]

# Called on every rank with its part, its rows and further arguments; returns what JSON has.
Work = Callable[..., Any]


def on_parts(
    work: Work,
    graph: gnnkern.Graph,
    parts: Partition,
    node_tensors: Mapping[str, Tensor],
    *arguments: Any,
) -> Any:
    """What `work` returns on the first of as many processes (gloo) as there are parts.

    Each reads its part alone, and has one thread. `work` is a function of a module.
    """
    with tempfile.TemporaryDirectory() as folder:
        save_parts(folder, cut(graph, parts), parts, node_tensors=node_tensors)
        spawn(_rank, (parts.num_parts, folder, work, arguments), nprocs=parts.num_parts)
        return json.loads((Path(folder) / "result.json").read_text())


def _rank(rank: int, world: int, folder: str, work: Work, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    store = f"file://{Path(folder) / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    part, rows = load_part(folder, rank)
    result = work(PartitionedGraph.from_part(part), rows, *arguments)
    if rank == 0:
        (Path(folder) / "result.json").write_text(json.dumps(result))
    dist.destroy_process_group()


def communities(
    nodes: int, edges: int, hub: int, inside: float = 0.8, count: int | None = None
) -> gnnkern.Graph:
    """A power law with communities, every edge in both directions, nodes in random order."""
    data = power_law(nodes, edges, hub, inside, count, shuffle=True, seed=0)
    edge_index = torch.cat([data.edge_index, data.edge_index.flip(0)], dim=1)
    return gnnkern.Graph.from_edge_index(edge_index, nodes)
