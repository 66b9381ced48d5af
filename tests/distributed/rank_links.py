"""Trainings whose kinds of links exchange at steps of their own."""

import torch
import torch.distributed as dist
from rank_checks import assert_near, normal, spmm, whole_graph
from rank_multirate import hierarchy_of, matrices
from rank_training import losses_of, training

from gnnkern.distributed import LEVELS, Hold, LinkSchedule, PartitionedGraph, by_link, partition
from gnnkern.distributed.policies import parse_policy


def equals_the_emulation(group, periods, cover, steps=9):
    """Values and gradients at every step, beside rows of the last exchange over each link."""
    graph = whole_graph("communities")
    world = dist.get_world_size(group)
    parts = partition(graph, world, "random", hierarchy=hierarchy_of(world))
    mine = PartitionedGraph.from_graph(graph, parts, group, cover=cover)
    weight = normal(graph.num_edges, seed=1, dtype=torch.float64)
    inner, *cuts = matrices(graph, parts, weight)
    policies = {level: Hold(period) for level, period in periods.items()}
    schedule = LinkSchedule(mine, policies, steps=steps)
    held = [None] * len(cuts)
    for step in range(steps):
        x = normal(graph.num_dst, 3, seed=step, dtype=torch.float64).requires_grad_()
        coefficients = normal(graph.num_dst, 3, seed=50 + step, dtype=torch.float64)
        whole = inner @ x
        for number, (level, cut) in enumerate(zip(LEVELS, cuts, strict=True)):
            is_due = step % periods.get(level, 1) == 0
            held[number] = x.detach() if is_due else held[number]
            whole = whole + cut @ (x if is_due else held[number])
        (grad,) = torch.autograd.grad((whole * coefficients).sum(), x)
        my_x = x.detach()[mine.owned].requires_grad_()
        out = spmm()(schedule.begin(step), my_x, weight[mine.local_edges])
        (my_grad,) = torch.autograd.grad((out * coefficients[mine.owned]).sum(), my_x)
        assert_near(out.detach(), whole.detach()[mine.owned], 1e-12, (step, "value"))
        assert_near(my_grad, grad[mine.owned], 1e-12, (step, "gradient"))


def rows_by_step(group, period, steps):
    """Rows that travel in each step over each kind of link, and those of an exchange of all."""
    graph = whole_graph("communities")
    world = dist.get_world_size(group)
    parts = partition(graph, world, "metis", hierarchy=hierarchy_of(world))
    mine = PartitionedGraph.from_graph(graph, parts, group)
    schedule = LinkSchedule(
        mine, by_link(parse_policy("exact"), period, parts.hierarchy), steps=steps, warmup=1
    )
    found = []
    for step in range(steps):
        mine.traffic.reset()
        x = normal(mine.num_dst, 2, seed=step).requires_grad_()
        spmm()(schedule.begin(step), x, normal(mine.num_edges)).sum().backward()
        counts = mine.sum_over_ranks(torch.tensor(list(mine.traffic.rows.values())))
        found.append(dict(zip(mine.traffic.rows, counts.tolist(), strict=True)))
    return found, parts.quality.ghosts


def all_links_alike_is_one_policy(group, policy, epochs):
    """Losses with a policy for all links, and with the same for each."""
    world = dist.get_world_size(group)
    expected = losses_of(group, world, "gcn", policy, epochs)
    made = training(group, world, "gcn", dict.fromkeys(LEVELS, policy), epochs)
    made.train()
    assert (made.losses, made.val_scores, made.best.test) == expected
