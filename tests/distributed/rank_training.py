"""Trainings on ranks, to be compared with the same in one process."""

import copy
import io
from dataclasses import replace

import torch
import torch.distributed as dist
from rank_checks import normal, parts_of, spmm, whole_graph

from gnnkern.distributed import PartitionedGraph, partition
from gnnkern.distributed.policies import Hold, parse_policy
from gnnkern.distributed.schedule import Schedule
from gnnkern.distributed.training import PartTraining, sum_gradients
from gnnkern.recipes import RECIPES
from gnnkern.train import network, optimizer_for

CLASSES, WIDTH = 3, 10


def whole_rows(graph):
    """Features that say something about classes, and a split."""
    generator = torch.Generator().manual_seed(2)
    num_nodes = graph.num_dst
    y = torch.randint(CLASSES, (num_nodes,), generator=generator)
    x = normal(num_nodes, WIDTH) + torch.nn.functional.one_hot(y, WIDTH)
    kind = torch.randint(4, (num_nodes, 1), generator=generator)
    masks = {"train_mask": kind < 2, "val_mask": kind == 2, "test_mask": kind == 3}
    return {"x": x, "y": y} | masks


def training(group, world, model, policy, epochs, *, attention_dropout=0.0, how="metis", **options):
    graph = whole_graph("undirected")
    mine = PartitionedGraph.from_graph(graph, parts_of(graph, world, how), group)
    rows = {name: x[mine.owned] for name, x in whole_rows(graph).items()}
    recipe = replace(RECIPES[model], epochs=epochs, dropout=0.3, hidden=8)
    torch.manual_seed(0)
    net = network(model, WIDTH, CLASSES, recipe)
    for conv in net.convs:
        # Each rank draws its own masks for attention weights.
        if hasattr(conv, "heads"):
            conv.dropout = attention_dropout
    return PartTraining(
        mine,
        rows,
        net,
        optimizer_for(net, recipe),
        recipe,
        num_nodes=graph.num_dst,
        num_classes=CLASSES,
        policy=parse_policy(policy),
        seed=4,
        **options,
    )


def losses_of(group, world, model, policy, epochs, how="metis"):
    """Losses and scores, and the weights' bits, which all ranks share."""
    made = training(group, world, model, policy, epochs, how=how)
    made.train()
    weights = torch.cat([x.detach().reshape(-1) for x in made.net.parameters()])
    if world > 1:
        largest, smallest = weights.clone(), weights.clone()
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
        dist.all_reduce(smallest, dist.ReduceOp.MIN, group=group)
        assert torch.equal(largest, smallest), "weights differ between ranks"
    return made.losses, made.val_scores, made.best.test


def on_ranks(group, model, policy, epochs, how):
    return losses_of(group, dist.get_world_size(group), model, policy, epochs, how)


def exchanges_of(group, policy, epochs, warmup):
    """Steps that exchange, as the process group sees it: each two layers, there and back."""
    made = training(group, dist.get_world_size(group), "gcn", policy, epochs, warmup=warmup)
    fresh = []
    for step in range(epochs):
        made.graph.traffic.reset()
        made.step(step)
        # The first step exchanges degrees as well.
        expected = 4 * made.schedule.is_fresh + (step == 0)
        assert made.graph.traffic.exchanges == expected, (step, made.graph.traffic)
        fresh.append(made.schedule.is_fresh)
    return fresh


def held_steps_are_those_of_old_ghosts(group):
    """Values with old ghosts, and a gradient that does not reach other ranks."""
    graph = whole_graph("communities")
    parts = partition(graph, dist.get_world_size(group), "random")
    mine = PartitionedGraph.from_graph(graph, parts, group)
    weight = normal(graph.num_edges, seed=1, dtype=torch.float64)
    old, new = (normal(graph.num_dst, 3, seed=seed, dtype=torch.float64) for seed in (2, 3))
    schedule = Schedule(mine, Hold(2), steps=10)
    call = spmm()
    my_weight = weight[mine.local_edges]
    with torch.no_grad():
        call(schedule.begin(0), old[mine.owned], my_weight)
    x = new[mine.owned].requires_grad_()
    out = call(schedule.begin(1), x, my_weight)
    src, dst = graph.edge_index
    inside = (parts.part[src] == parts.part[dst])[:, None]
    whole = new.clone().requires_grad_()
    message = torch.where(inside, whole[src], old[src]) * weight[:, None]
    expected = torch.zeros_like(new).index_add(0, dst, message)
    assert float((out - expected[mine.owned]).abs().max()) < 1e-12
    (grad,) = torch.autograd.grad(out.sum(), x)
    (expected_grad,) = torch.autograd.grad(expected.sum(), whole)
    assert float((grad - expected_grad[mine.owned]).abs().max()) < 1e-12
    # The next step exchanges again.
    out = call(schedule.begin(2), x, my_weight)
    (grad,) = torch.autograd.grad(out.sum(), x)
    exact = torch.zeros_like(new).index_add(0, src, weight[:, None].expand(-1, 3))
    assert float((grad - exact[mine.owned]).abs().max()) < 1e-12


def rows_that_stay_are_exchanged_once(group):
    """An input without a gradient that nobody wrote to."""
    graph = whole_graph("communities")
    mine = PartitionedGraph.from_graph(
        graph, partition(graph, dist.get_world_size(group), "random"), group
    )
    schedule = Schedule(mine, Hold(1), steps=10)
    x = normal(graph.num_dst, 3)[mine.owned]
    weight = normal(graph.num_edges)[mine.local_edges]
    results = []
    for step in range(4):
        if step == 3:
            x.mul_(2)
        results.append(spmm()(schedule.begin(step), x, weight))
    assert mine.traffic.exchanges == 2
    assert torch.equal(results[0], results[2]) and torch.equal(2 * results[0], results[3])


def not_a_number(group, rank):
    """One rank's loss is no number: all stop, and name it."""
    made = training(group, dist.get_world_size(group), "gcn", "exact", 5)
    made.step(0)
    before = copy.deepcopy(made.net.state_dict())
    if dist.get_rank(group) == rank:
        made.x[made.masks["train"]] = float("nan")
    loss = torch.zeros(())
    if dist.get_rank(group) == rank:
        loss = loss * float("nan")
    try:
        sum_gradients(made.net, loss, made.graph, 7)
    finally:
        after = made.net.state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items())


def resumed_is_not_stopped(group, policy, wire):
    """Weights after 6 epochs: in one go, and with a stop after 3."""
    world = dist.get_world_size(group)
    made = [training(group, world, "gat", policy, 6, wire=wire) for _ in range(3)]
    whole, first, second = made
    whole.train()
    for step in range(3):
        first.losses.append(first.step(step))
        first.val_scores.append(first.evaluate().val)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    second.train()
    assert whole.losses == second.losses
    assert whole.records == second.records
    for one, other in zip(whole.net.parameters(), second.net.parameters(), strict=True):
        assert torch.equal(one, other)


def drop_in_one_process(x, nodes, seed, step, p):
    """The masks of the whole, of which a part's are rows."""
    from gnnkern.distributed.dropout import KeyedDropout

    dropout = KeyedDropout(nodes, seed)
    dropout.begin(step)
    return dropout(x, p, True)
