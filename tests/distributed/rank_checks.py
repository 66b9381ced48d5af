"""What ranks do in the tests: they run something on their part and compare it with the whole."""

import torch
import torch.distributed as dist
from helpers.graphs import EDGE_LISTS

import gnnkern
from gnnkern.data import power_law
from gnnkern.distributed import PartitionedGraph, partition

# Graphs whose sources are their destinations, and one with hubs, communities and long rows.
SQUARE = [name for name, make in EDGE_LISTS.items() if make().num_src == make().num_dst]
NAMES = [*SQUARE, "communities", "undirected"]


def whole_graph(name):
    if name in EDGE_LISTS:
        edges = EDGE_LISTS[name]()
        return gnnkern.Graph.from_edge_index(edges.edge_index, edges.num_src)
    data = power_law(400, 4000, 200, community_fraction=0.8, num_communities=8, seed=1)
    edge_index = data.edge_index
    if name == "undirected":
        edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1)
    return gnnkern.Graph.from_edge_index(edge_index, 400)


def parts_of(graph, world, how):
    """Parts by a method; by `lopsided` all in the last part, so that the others are empty."""
    if how == "lopsided":
        return partition(graph, world, torch.full((graph.num_dst,), world - 1))
    return partition(graph, world, how)


def my_part(group, name, how, **options):
    graph = whole_graph(name)
    parts = parts_of(graph, dist.get_world_size(group), how)
    return graph, PartitionedGraph.from_graph(graph, parts, group, **options)


def normal(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def propagation_is_bitwise(group, how):
    """Sums, weighted sums, means and maxima of float32 rows, several times in a row."""
    for name in NAMES:
        graph, mine = my_part(group, name, how)
        for width in (1, 3, 32, 100):
            x = normal(graph.num_dst, width)
            weight = normal(graph.num_edges, seed=1)
            local = x[mine.owned]
            for reduce in ("sum", "mean", "max"):
                y, z = gnnkern.spmm(graph, x, reduce=reduce), gnnkern.spmm(mine, local, reduce=reduce)
                assert torch.equal(y[mine.owned], z), (name, width, reduce)
                y, z = gnnkern.spmm(graph, y, weight), gnnkern.spmm(mine, z, weight[mine.local_edges])
                assert torch.equal(y[mine.owned], z), (name, width, reduce)
                assert torch.equal(mine.collect(z, graph.num_dst), y)
