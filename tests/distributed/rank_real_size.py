"""Checks on ranks over graphs of some size."""

from dataclasses import replace

import torch
import torch.distributed as dist
from rank_checks import normal
from rank_multirate import row_stochastic

import gnnkern
from gnnkern.data import load, power_law
from gnnkern.distributed import PartitionedGraph, PartTraining, partition, propagate
from gnnkern.distributed.command import node_tensors_of
from gnnkern.distributed.policies import Exact
from gnnkern.recipes import RECIPES
from gnnkern.train import network, optimizer_for


def propagates_bitwise(group, path):
    graph = load(path).graph()
    mine = PartitionedGraph.from_graph(graph, partition(graph, dist.get_world_size(group)), group)
    x = normal(graph.num_dst, 64)
    whole, _ = propagate(graph, x, 4, weight=graph.gcn_weights())
    out, _ = propagate(mine, x[mine.owned], 4, weight=mine.gcn_weights())
    assert torch.equal(whole[mine.owned], out)


def losses(group, world, path, model, epochs):
    """Of a training without dropout of attention weights, which ranks draw for themselves."""
    data = load(path)
    graph = PartitionedGraph.from_graph(data.graph(), partition(data.graph(), world), group)
    rows = {name: tensor[graph.owned] for name, tensor in node_tensors_of(data).items()}
    recipe = replace(RECIPES[model], epochs=epochs)
    torch.manual_seed(0)
    net = network(model, data.num_features, data.num_classes, recipe)
    for conv in net.convs:
        if hasattr(conv, "heads"):
            conv.dropout = 0.0
    training = PartTraining(
        graph,
        rows,
        net,
        optimizer_for(net, recipe),
        recipe,
        num_nodes=data.num_nodes,
        num_classes=data.num_classes,
        policy=Exact(),
    )
    return [training.step(step) for step in range(epochs)]


def diffusion_errors(group, steps=160, rate=0.1):
    """Relative errors of diffusion to time 16 over a power law with communities."""
    data = power_law(4000, 40_000, 200, 0.8, num_communities=40, shuffle=True, seed=3)
    edge_index = torch.cat([data.edge_index, data.edge_index.flip(0)], dim=1)
    graph = gnnkern.Graph.from_edge_index(edge_index, data.num_nodes)
    mine = PartitionedGraph.from_graph(graph, partition(graph, dist.get_world_size(group)), group)
    weight = row_stochastic(graph, torch.float64)
    x = normal(graph.num_dst, 4, dtype=torch.float64)

    def run(graph, x, weight, steps, rate, **options):
        options = {"weight": weight, "keep": 1 - rate, "mix": rate} | options
        return propagate(graph, x, steps, **options)

    def relative(error, whole):
        return float(error.norm() / whole.norm())

    whole, _ = run(graph, x, weight, steps, rate)
    fine, _ = run(graph, x, weight, 16 * steps, rate / 16)
    coarse, _ = run(graph, x, weight, steps // 10, 10 * rate)
    found = {
        "euler": relative(whole - fine, fine),
        "ten times the step": relative(coarse - whole, whole),
    }
    for predictor in ("hold", "linear"):
        mine.traffic.reset()
        out, drift = run(
            mine,
            x[mine.owned],
            weight[mine.local_edges],
            steps,
            rate,
            period=10,
            predictor=predictor,
            measure=True,
        )
        found["exchanges"] = mine.traffic.exchanges
        error = mine.collect(out, graph.num_dst) - whole
        found[predictor] = relative(error, whole)
        found[predictor + " largest"] = float(error.abs().max())
        found[predictor + " bound"] = drift.bound
    mine.traffic.reset()
    run(mine, x[mine.owned], weight[mine.local_edges], steps, rate)
    found["exact exchanges"] = mine.traffic.exchanges
    return found
