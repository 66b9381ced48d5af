"""Multirate propagation on ranks, beside an emulation of it in one process."""

import torch
import torch.distributed as dist
from rank_checks import assert_near, normal, whole_graph

import gnnkern
from gnnkern.distributed import PartitionedGraph, partition
from gnnkern.distributed.hierarchy import LEVELS
from gnnkern.distributed.multirate import propagate


def matrices(graph, parts, weight):
    """S_in, and S_cut by kind of link, dense."""
    src, dst = graph.edge_index
    part = parts.part.tolist()
    level = [
        parts.hierarchy.level(part[v], part[u])
        for u, v in zip(src.tolist(), dst.tolist(), strict=True)
    ]
    level = torch.tensor(level, dtype=torch.int64)
    size = (graph.num_dst, graph.num_dst)
    return [
        weight.new_zeros(size).index_put((dst, src), weight * (level == k), accumulate=True)
        for k in range(-1, len(LEVELS))
    ]


def emulate(inner, cuts, x, steps, keep, mix, teleport, periods, predictor):
    """The scheme in one process: what each cut multiplies is known from exchanges alone."""
    first, known = x, [[] for _ in cuts]
    for n in range(steps):
        total = inner @ x
        for cut, period, held in zip(cuts, periods, known, strict=True):
            if n % period == 0:
                held.append(x)
            guess = held[-1]
            if predictor == "linear" and len(held) > 1:
                guess = guess + (n % period) / period * (held[-1] - held[-2])
            total = total + cut @ guess
        x = keep * x + mix * total + teleport * first
    return x


def row_stochastic(graph, dtype):
    """Positive weights of the edges whose sum into every node is 1."""
    weight = normal(graph.num_edges, dtype=dtype).abs() + 0.1
    total = weight.new_zeros(graph.num_dst).index_add(0, graph.edge_index[1], weight)
    return weight / total[graph.edge_index[1]]


def hierarchy_of(world):
    return (2, world // 2) if world % 2 == 0 else (1, world)


SCHEMES = {
    "diffusion": {"keep": 0.7, "mix": 0.3},
    "appnp": {"mix": 0.9, "teleport": 0.1},
    "powers": {},
}
PERIODS = [1, 2, 5, 20, {"host": 1, "network": 4}, {"host": 2, "network": 6}]


def setting(group, name, **options):
    graph = whole_graph(name)
    world = dist.get_world_size(group)
    parts = partition(graph, world, "random", hierarchy=hierarchy_of(world))
    mine = PartitionedGraph.from_graph(graph, parts, group, **options)
    return graph, parts, mine


def equals_the_emulation(group, steps=11):
    """Values and gradients for every scheme, period and predictor, recomputed or not."""
    graph, parts, mine = setting(group, "few")
    weight = row_stochastic(graph, torch.float64)
    inputs = [normal(graph.num_dst, 3, dtype=torch.float64), weight]
    mine_of = [mine.owned, mine.local_edges]
    coefficients = normal(graph.num_dst, 3, seed=5, dtype=torch.float64)
    cases = [("diffusion", p, q) for p in PERIODS for q in ("hold", "linear")]
    cases += [(scheme, 4, "linear") for scheme in SCHEMES]
    for scheme, period, predictor in cases:
        options = {"keep": 0.0, "mix": 1.0, "teleport": 0.0} | SCHEMES[scheme]
        by_level = period if isinstance(period, dict) else dict.fromkeys(LEVELS, period)
        periods = [by_level.get(level, 1) for level in LEVELS]
        x, w = (tensor.clone().requires_grad_() for tensor in inputs)
        inner, *cuts = matrices(graph, parts, w)
        whole = emulate(inner, cuts, x, steps, *options.values(), periods, predictor)
        (whole * coefficients).sum().backward()
        for recompute in (False, True):
            what = (scheme, period, predictor, recompute)
            my_x, my_w = (
                tensor[rows].clone().requires_grad_()
                for tensor, rows in zip(inputs, mine_of, strict=True)
            )
            mine.traffic.reset()
            out, _ = propagate(
                mine,
                my_x,
                steps,
                weight=my_w,
                period=period,
                predictor=predictor,
                recompute=recompute,
                **options,
            )
            forward = mine.traffic.exchanges
            assert_near(out.detach(), whole.detach()[mine.owned], 1e-12, what)
            (out * coefficients[mine.owned]).sum().backward()
            # As many reverse exchanges as forward ones.
            assert mine.traffic.exchanges == 2 * forward, what
            assert_near(my_x.grad, x.grad[mine.owned], 1e-12, what)
            assert_near(my_w.grad, w.grad[mine.local_edges], 1e-12, what)
            if isinstance(period, int) and dist.get_world_size(group) > 1:
                assert forward == -(-steps // period), what


def period_one_is_bitwise(group):
    """In float32, beside the same call on the whole graph."""
    for name in ("communities", "star_in", "isolated_ends"):
        graph, _, mine = setting(group, name)
        weight = row_stochastic(graph, torch.float32)
        x = normal(graph.num_dst, 20)
        whole, _ = propagate(graph, x, 6, weight=weight, keep=0.5, mix=0.5, period=7)
        out, _ = propagate(
            mine, x[mine.owned], 6, weight=weight[mine.local_edges], keep=0.5, mix=0.5
        )
        assert torch.equal(whole[mine.owned], out), name


def bound_holds(group, draws, wires=(None,), cover=False):
    """bound >= true error, on graphs, rates, periods and predictors drawn at random."""
    worst = 0.0
    for seed in range(draws):
        generator = torch.Generator().manual_seed(seed)

        def draw(low, high, generator=generator):
            return int(torch.randint(low, high + 1, (1,), generator=generator))

        num_nodes = draw(4, 60)
        edge_index = torch.randint(num_nodes, (2, draw(1, 300)), generator=generator)
        graph = gnnkern.Graph.from_edge_index(edge_index, num_nodes)
        world = dist.get_world_size(group)
        parts = partition(graph, world, "random", hierarchy=hierarchy_of(world), seed=seed)
        mine = PartitionedGraph.from_graph(graph, parts, group, cover=cover)
        # Weights of either sign and any size: not only those that diffuse.
        weight = normal(graph.num_edges, seed=seed, dtype=torch.float64) * 0.3
        if draw(0, 1):
            weight = row_stochastic(graph, torch.float64)
        rate = draw(1, 10) / 10
        options = {"keep": 1.0 - rate, "mix": rate, "teleport": 0.1 * draw(0, 2)}
        x = normal(num_nodes, draw(1, 4), seed=seed, dtype=torch.float64)
        steps = draw(0, 12)
        whole, _ = propagate(graph, x, steps, weight=weight, **options)
        out, drift = propagate(
            mine,
            x[mine.owned],
            steps,
            weight=weight[mine.local_edges],
            period={"host": draw(1, 6), "network": draw(1, 6)},
            predictor=("hold", "linear")[draw(0, 1)],
            wire=wires[seed % len(wires)],
            measure=True,
            **options,
        )
        error = float((mine.collect(out, num_nodes) - whole).abs().max())
        assert error <= drift.bound * (1 + 1e-9) + 1e-12, (seed, error, drift)
        if drift.bound:
            worst = max(worst, error / drift.bound)
    return worst


def errors_by_step(group, predictor, period):
    """Errors of diffusion to a fixed time, at halved steps and as many steps per exchange."""
    graph, _, mine = setting(group, "undirected")
    weight = row_stochastic(graph, torch.float64)
    x = normal(graph.num_dst, 2, dtype=torch.float64)
    errors = []
    for steps in (40, 80, 160, 320):
        rate = 4.0 / steps
        whole, _ = propagate(graph, x, steps, weight=weight, keep=1 - rate, mix=rate)
        out, _ = propagate(
            mine,
            x[mine.owned],
            steps,
            weight=weight[mine.local_edges],
            keep=1 - rate,
            mix=rate,
            period=period,
            predictor=predictor,
        )
        errors.append(float((mine.collect(out, graph.num_dst) - whole).abs().max()))
    return errors
