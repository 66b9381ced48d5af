"""Layers on ranks: the same object takes the whole graph and a part of it."""

import torch
from rank_checks import SOME, Case, my_part

from gnnkern import nn

WIDTH, EDGE_WIDTH = 6, 3


def plain(layer):
    """A layer of node features alone."""
    return layer, {"nodes": [(WIDTH,)]}


def weighted(layer):
    return layer, {"nodes": [(WIDTH,)], "edges": [()]}


def with_edges(layer):
    return layer, {"nodes": [(WIDTH,)], "edges": [(EDGE_WIDTH,)]}


def mlp(width):
    """A linear map, a curve, a linear map."""
    return torch.nn.Sequential(
        torch.nn.Linear(width, 5), torch.nn.Tanh(), torch.nn.Linear(5, WIDTH)
    )


class Typed(torch.nn.Module):
    """A layer of relations, which the edges' numbers stand for."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, graph, number):
        return self.layer(x, graph, (number * 1000).long() % self.layer.num_relations)


class Gated(nn.MessagePassing):
    """A layer of a user's own: rows of sources, gated by destinations and edges."""

    def __init__(self, width, edge_width):
        super().__init__(aggr="mean")
        self.lin = torch.nn.Linear(edge_width, width)

    def forward(self, x, graph, edge_attr):
        return self.propagate(graph, x=x, edge_attr=edge_attr)

    def message(self, x_i, x_j, edge_attr):
        return x_j * torch.sigmoid(x_i + self.lin(edge_attr))


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
    "gin": lambda: plain(nn.GINConv(mlp(WIDTH), train_eps=True)),
    "gine": lambda: with_edges(nn.GINEConv(mlp(WIDTH), edge_dim=EDGE_WIDTH)),
    "graph": lambda: weighted(nn.GraphConv(WIDTH, 4)),
    "graph several": lambda: plain(nn.SAGEConv(WIDTH, 4, aggr=["mean", "max", "std"])),
    "appnp": lambda: plain(nn.APPNP(3, 0.1)),
    "edge": lambda: plain(nn.EdgeConv(mlp(2 * WIDTH))),
    "edge max": lambda: plain(nn.EdgeConv(torch.nn.Linear(2 * WIDTH, 4), aggr="max")),
    "pna": lambda: with_edges(
        nn.PNAConv(
            WIDTH,
            4,
            aggregators=["mean", "max", "std"],
            scalers=["identity", "amplification"],
            deg=torch.tensor([1, 5, 9, 3, 1]),
            edge_dim=EDGE_WIDTH,
        )
    ),
    "rgcn": lambda: weighted(Typed(nn.RGCNConv(WIDTH, 4, 3))),
    "rgcn bases": lambda: weighted(Typed(nn.RGCNConv(WIDTH, 4, 3, num_bases=2, aggr="max"))),
    "message passing": lambda: with_edges(Gated(WIDTH, EDGE_WIDTH)),
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
    for graph_name in SOME:
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
