"""What ranks send, beside what the plan says that they will."""

import torch.distributed as dist
from rank_checks import normal, spmm, whole_graph
from rank_multirate import hierarchy_of

from gnnkern.distributed import LEVELS, PartitionedGraph, partition
from gnnkern.distributed.forecast import Compute, Forecast, LinkSpeeds, Workload
from gnnkern.distributed.loads import Loads


def bytes_are_those_of_the_plan(group, how, width):
    """Bytes of an exchange over each kind of link, counted and predicted; so the gradient's."""
    graph = whole_graph("communities")
    world, rank = dist.get_world_size(group), dist.get_rank(group)
    parts = partition(graph, world, how, hierarchy=hierarchy_of(world))
    mine = PartitionedGraph.from_graph(graph, parts, group)
    compute = Compute((0.0,), (0.0,), 0.0)
    workload = Workload(width, (width,))
    forecast = Forecast(Loads.of(graph, parts), workload, compute, LinkSpeeds())
    x = normal(mine.num_dst, width).requires_grad_()
    out = spmm()(mine, x, normal(mine.num_edges))
    there = dict(mine.traffic.bytes)
    mine.traffic.reset()
    out.sum().backward()
    for level in LEVELS:
        assert there[level] == int(forecast.bytes_sent(level, width)[rank]), level
        received = int(forecast.loads.received(level)[rank])
        assert mine.traffic.bytes[level] == received * width * 4, level
