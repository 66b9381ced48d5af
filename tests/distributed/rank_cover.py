"""Sums under a vertex cover, on ranks, beside the same sums without one."""

import itertools

import torch
import torch.distributed as dist
from rank_checks import OPS, Case, assert_near, my_part, normal, spmm, whole_graph
from rank_multirate import SCHEMES, row_stochastic, setting

import gnnkern
from gnnkern.distributed import (
    Hold,
    PartitionedGraph,
    Schedule,
    load_part,
    partition,
    propagate,
    with_covered_rows,
)

GRAPHS = ["isolated_ends", "multi_edges", "self_loops", "star_in", "star_out", "no_edges"]
LINEAR = {
    "sum": Case(lambda graph, x: gnnkern.spmm(graph, x), [(7,)]),
    "mean": Case(lambda graph, x: gnnkern.spmm(graph, x, reduce="mean"), [(7,)]),
    "weighted mean": Case(spmm(reduce="mean"), [(7,)], [()]),
    "weights per head": Case(spmm(), [(2, 3)], [(2,)]),
    "weights per element": Case(spmm(), [(4,)], [(4,)]),
    "weights that broadcast": Case(spmm(), [(2, 3)], [(2, 1)]),
    "rows that broadcast": Case(spmm(), [(1,)], [(4,)]),
    "quotients": Case(spmm("div"), [(4,)], [(4,)]),
}


def sums_agree(group, how):
    """Values and all gradients in float64: of linear ops, of others, over the reverse."""
    used = 0
    for name, cases in [("few", LINEAR | OPS), *((name, LINEAR) for name in GRAPHS)]:
        graph, mine = my_part(group, name, how, reverse=True, cover=True)
        for of_whole, of_mine in ((graph, mine), (graph.reverse, mine.reverse)):
            # Weights that change travel at any width: what is served is of interest here.
            of_mine.cover.edges = 0
            for what, case in cases.items():
                case.check(of_whole, of_mine, torch.float64, 1e-12, 1e-12, (name, what))
            used += of_mine.cover.plain_rows - of_mine.cover.rows
    return used


def layers_agree(group, how):
    """Layers whose graphs are derived ones, with self loops."""
    graph, mine = my_part(group, "communities", how, cover=True)
    layers = [gnnkern.nn.GCNConv(5, 3), gnnkern.nn.SAGEConv(5, 3), gnnkern.nn.GATConv(5, 3)]
    for k, layer in enumerate(layers):
        layer.double()
        with torch.no_grad():
            for p in layer.parameters():
                p.copy_(normal(*p.shape, seed=k, dtype=torch.float64))
        case = Case(lambda graph, x, layer=layer: layer(x, graph), [(5,)])
        case.check(graph, mine, torch.float64, 1e-12, 1e-12, type(layer).__name__, [layer])


def rows_are_counted(group):
    """What is sent is what the report says, by link; maxima send what they always do."""
    graph = whole_graph("communities")
    world = dist.get_world_size(group)
    hierarchy = (2, world // 2) if world % 2 == 0 else (1, world)
    parts = partition(graph, world, "random", hierarchy=hierarchy)
    quality = with_covered_rows(graph, parts).quality
    mine = PartitionedGraph.from_graph(graph, parts, group, cover=True)
    x = normal(mine.num_dst, 6)
    for reduce, expected in (("mean", quality.cover), ("max", quality.ghosts)):
        for wire, size in ((None, 24), ("int8", 10)):
            for grad in (False, True):
                view = mine.with_wire(wire)
                _ = mine.cover
                mine.traffic.reset()
                out = gnnkern.spmm(view, x.clone().requires_grad_(grad), reduce=reduce)
                rows = torch.tensor(list(mine.traffic.rows.values()))
                assert sum(mine.traffic.bytes.values()) == int(rows.sum()) * size
                mine.sum_over_ranks(rows)
                assert rows.tolist() == list(expected.values()), (reduce, wire)
                if grad:
                    mine.traffic.reset()
                    out.sum().backward()
                    rows = torch.tensor(list(mine.traffic.rows.values()))
                    mine.sum_over_ranks(rows)
                    assert rows.tolist() == list(expected.values()), (reduce, wire)
    assert mine.cover.rows == sum(quality.cover.values())
    assert mine.cover.plain_rows == sum(quality.ghosts.values())
    return mine.cover.rows, mine.cover.plain_rows


def what_stays_travels_once(group):
    """Weights of edges, and inputs of a schedule; until somebody writes to them."""
    _, mine = my_part(group, "communities", "random", cover=True)
    schedule = Schedule(mine, Hold(1), steps=10)
    x, weight = normal(mine.num_dst, 3), normal(mine.num_edges)
    exchanges = []
    for step in range(6):
        if step == 2:
            x.mul_(2)
        if step == 4:
            weight.mul_(2)
        mine.traffic.reset()
        gnnkern.spmm(schedule.begin(step), x, weight)
        exchanges.append(mine.traffic.exchanges)
    # A table and weights; nothing; another table; nothing; both again.
    assert exchanges == [2, 0, 1, 0, 2, 0], exchanges
    # The same operands of another op are another table.
    out = gnnkern.spmm(schedule.begin(6), x, weight[:, None], op="div")
    plain = my_part(group, "communities", "random")[1]
    assert_near(out, gnnkern.spmm(plain, x, weight[:, None], op="div"), 1e-4, "quotients")
    # A weight of its own gradient does not travel where rows are not to be exchanged.
    schedule = Schedule(mine, Hold(1), steps=10)
    mine.traffic.reset()
    gnnkern.spmm(schedule.begin(0), x, weight.clone().requires_grad_())
    assert mine.traffic.exchanges == 1
    # Narrow rows do not pay for their weights, wide ones do.
    for width, exchanges in ((1, 1), (64, 2)):
        mine.traffic.reset()
        gnnkern.spmm(mine, normal(mine.num_dst, width), weight.clone().requires_grad_())
        assert mine.traffic.exchanges == exchanges, width


def windows_are_those_of_rows(group):
    """Predictions of sums are sums of predictions: the same scheme, values and gradients."""
    (graph, _, mine), (_, _, plain) = (setting(group, "few", cover=each) for each in (True, False))
    weight = row_stochastic(graph, torch.float64)[mine.local_edges]
    x = normal(graph.num_dst, 3, dtype=torch.float64)[mine.owned]
    coefficients = normal(mine.num_dst, 3, seed=5, dtype=torch.float64)
    for (period, recompute), predictor in itertools.product(
        [(1, False), (4, False), (4, True), ({"host": 2, "network": 6}, True)], ("hold", "linear")
    ):
        options = {"period": period, "recompute": recompute, "predictor": predictor}
        results = []
        for each in (mine, plain):
            my_x = x.clone().requires_grad_()
            out, _ = propagate(each, my_x, 11, weight=weight, **options, **SCHEMES["diffusion"])
            (out * coefficients).sum().backward()
            results.append((out.detach(), my_x.grad))
        for one, other in zip(*results, strict=True):
            assert_near(one, other, 1e-12, options)
    # The bound's mass is what ones from everybody do to rows of zeros.
    cover, (first, last) = mine.cover, mine.interior_rows
    ones = x.new_ones(cover.exchange.plan.num_ghosts, 1)
    change = cover.boundary({"x": x.new_zeros(mine.num_src, 1), "weight": weight}, ones).squeeze(1)
    mass = cover.mass(weight)
    assert_near(change, torch.cat([mass[:first], mass[last:]]), 1e-12, "mass")
    assert not mass[first:last].any()


def part_from_disk(group, folder):
    """A part that was written without a thought of covers."""
    part, rows = load_part(folder, dist.get_rank(group))
    mine = PartitionedGraph.from_part(part, group, cover=True)
    graph = whole_graph("communities")
    y = gnnkern.spmm(graph, normal(graph.num_dst, 5))
    assert_near(gnnkern.spmm(mine, rows["x"]), y[mine.owned], 1e-5, "from disk")
    assert mine.cover.rows < mine.cover.plain_rows
