"""Layers on ranks: the same object takes the whole graph and a part of it."""

import torch
from rank_checks import NAMES, Case, my_part

from gnnkern import nn

WIDTH, EDGE_WIDTH = 6, 3


def plain(layer):
    """A layer of node features alone."""
    return layer, {"nodes": [(WIDTH,)]}


def weighted(layer):
    return layer, {"nodes": [(WIDTH,)], "edges": [()]}


def with_edges(layer):
    return layer, {"nodes": [(WIDTH,)], "edges": [(EDGE_WIDTH,)]}


LAYERS = {
    "gcn": lambda: plain(nn.GCNConv(WIDTH, 4)),
    "gcn without loops": lambda: plain(nn.GCNConv(WIDTH, 4, add_self_loops=False)),
    "gcn weighted": lambda: weighted(nn.GCNConv(WIDTH, 8, improved=True)),
    "sage": lambda: plain(nn.SAGEConv(WIDTH, 4)),
    "sage wide": lambda: plain(nn.SAGEConv(WIDTH, 9, aggr="sum", normalize=True)),
    "sage max": lambda: plain(nn.SAGEConv(WIDTH, 4, aggr="max", project=True)),
    "gat": lambda: plain(nn.GATConv(WIDTH, 4, heads=2)),
    "gat edges": lambda: with_edges(
        nn.GATConv(WIDTH, 4, heads=2, edge_dim=EDGE_WIDTH, residual=True)
    ),
    "gatv2": lambda: plain(nn.GATv2Conv(WIDTH, 4, heads=2, concat=False)),
    "gatv2 edges": lambda: with_edges(nn.GATv2Conv(WIDTH, 4, edge_dim=EDGE_WIDTH)),
    "transformer": lambda: plain(nn.TransformerConv(WIDTH, 4, heads=2, beta=True)),
    "transformer edges": lambda: with_edges(nn.TransformerConv(WIDTH, 4, edge_dim=EDGE_WIDTH)),
}


def case_of(name, dtype):
    torch.manual_seed(1)
    layer, shapes = LAYERS[name]()
    layer = layer.to(dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-1, 1)

    def call(graph, x, *edges):
        # Weights at the edges of a GCN are sums' divisors: away from zero.
        edges = [edge.abs() + 0.5 if edge.dim() == 1 else edge for edge in edges]
        return layer(x, graph, *edges)

    return layer, Case(call, **shapes)


def layers_agree(group, how, dtype, value, gradient):
    """Every layer over a graph: values, gradients of the inputs and of the weights."""
    for graph_name in NAMES:
        graph, mine = my_part(group, graph_name, how)
        for name in LAYERS:
            layer, case = case_of(name, dtype)
            case.check(graph, mine, dtype, value, gradient, (graph_name, name), [layer])


def layers_give_weights_of_attention(group, how):
    """Attention weights of edges, in the local order."""
    graph, mine = my_part(group, "communities", how)
    for name in ("gat", "gatv2", "transformer"):
        layer, _ = case_of(name, torch.float64)
        x = torch.randn(graph.num_dst, WIDTH, dtype=torch.float64)
        torch.distributed.broadcast(x, 0, group=group)
        _, (edges, alpha) = layer(x, graph, return_attention_weights=True)
        _, (my_edges, my_alpha) = layer(x[mine.owned], mine, return_attention_weights=True)
        ids = torch.cat([mine.owned, mine.exchange.plan.ghosts])
        mine_by_edge = {}
        for src, dst, row in zip(*ids[my_edges].tolist(), my_alpha.tolist(), strict=True):
            mine_by_edge.setdefault((src, dst), []).append(row)
        owned = set(mine.owned.tolist())
        whole = {}
        for src, dst, row in zip(*edges.tolist(), alpha.tolist(), strict=True):
            if dst in owned:
                whole.setdefault((src, dst), []).append(row)
        assert mine_by_edge.keys() == whole.keys()
        for edge, rows in whole.items():
            near = torch.tensor(rows) - torch.tensor(mine_by_edge[edge])
            assert float(near.abs().max()) < 1e-12, (name, edge)
