"""What a graph costs in memory: on a rank that reads its part, and whole in one process."""

import ctypes

import torch
import torch.distributed as dist
import torch.nn.functional as F

from gnnkern import Graph
from gnnkern.data import power_law
from gnnkern.distributed import PartitionedGraph, cut, load_part, partition, save_parts
from gnnkern.memory import PeakMemory
from gnnkern.nn.models import gcn

# Of glibc's mallopt.
_M_MMAP_THRESHOLD = -3
WIDTH, HIDDEN, CLASSES = 64, 32, 10


def write_parts(folder, num_nodes, num_edges, ranks):
    """A graph of communities whose edges go both ways, in parts and in one."""
    data = power_law(
        num_nodes, num_edges // 2, num_nodes // 20, 0.9, num_communities=20, shuffle=True, seed=1
    )
    edge_index = torch.cat([data.edge_index, data.edge_index.flip(0)], dim=1)
    graph = Graph.from_edge_index(edge_index, num_nodes)
    rows = {
        "x": torch.randn(num_nodes, WIDTH, generator=torch.Generator().manual_seed(2)),
        "y": torch.arange(num_nodes) % CLASSES,
    }
    ghosts = {}
    for count in {1, ranks}:
        parts = partition(graph, count)
        save_parts(folder / str(count), cut(graph, parts), parts, node_tensors=rows)
        ghosts[count] = sum(parts.quality.part_ghosts)
    return ghosts[ranks] / num_nodes


def added_by(folder, read):
    """Bytes that reading a part, a forward and a backward of two GCN layers add at their peak."""
    # Freed memory goes back at once: what is in use is counted, and no holes in the heap.
    assert ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 16)
    tiny = Graph.from_edge_index(torch.randint(8, (2, 40)), 8)
    _train(tiny, {"x": torch.randn(8, WIDTH), "y": torch.arange(8)})
    read(folder.parent / "warm")
    with PeakMemory() as memory:
        _train(*read(folder))
    return memory.added


def read_part(folder):
    rank = dist.get_rank() if dist.is_initialized() else 0
    part, rows = load_part(folder, rank)
    return PartitionedGraph.from_part(part), rows


def read_whole(folder):
    """The graph of an only part, as one process has it."""
    part, rows = load_part(folder, 0)
    return Graph.from_csr(part.forward.indptr, part.forward.indices), rows


def _train(graph, rows):
    net = gcn(WIDTH, CLASSES, hidden=HIDDEN, dropout=0.0)
    loss = F.cross_entropy(net(rows["x"], graph), rows["y"], reduction="sum")
    loss.backward()
    assert all(torch.isfinite(x.grad).all() for x in net.parameters())
