"""Implicit diffusion on ranks, beside SciPy's direct solve of the whole."""

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
import torch.distributed as dist
from rank_checks import NAMES, assert_near, normal, parts_of, whole_graph

import gnnkern
from gnnkern.data import grid, power_law
from gnnkern.distributed import NotConverged, PartitionedGraph, Solver, solve_diffusion
from gnnkern.nn import Diffusion, PersonalizedPropagation

DOUBLE = torch.float64
TIGHT = Solver(tol=1e-11)


def graph_of(name):
    """Those of the other tests, a grid, and communities that hardly know of each other."""
    if name == "grid":
        return gnnkern.Graph.from_edge_index(grid(12, 12).edge_index, 144)
    if name == "islands":
        data = power_law(600, 5000, 100, community_fraction=0.99, num_communities=8, seed=1)
        edge_index = torch.cat([data.edge_index, data.edge_index.flip(0)], dim=1)
        return gnnkern.Graph.from_edge_index(edge_index, 600)
    return whole_graph(name)


def positive_weights(graph, symmetric):
    """Weights of the edges, the same for both directions where `symmetric`."""
    if not symmetric:
        return normal(graph.num_edges, dtype=DOUBLE).abs() + 0.1
    src, dst = graph.edge_index.to(DOUBLE)
    return 1.1 + torch.sin(src + dst) * torch.cos(src - dst)


def matrix_of(graph, weight=None, norm="row"):
    """S as SciPy has it."""
    src, dst = graph.edge_index.numpy()
    value = np.ones(graph.num_edges) if weight is None else weight.detach().numpy()
    size = (graph.num_dst, graph.num_dst)
    matrix = scipy.sparse.coo_array((value, (dst, src)), shape=size).tocsc()
    degree = np.asarray(matrix.sum(axis=1)).ravel()
    share = np.divide(1.0, degree, out=np.zeros_like(degree), where=degree > 0)
    if norm == "row":
        return scipy.sparse.diags_array(share) @ matrix
    root = scipy.sparse.diags_array(np.sqrt(share))
    return root @ matrix @ root if norm == "sym" else matrix


def direct(graph, b, tau, weight=None, norm="row", transposed=False):
    """SciPy's answer, column by column where tau differs."""
    if graph.num_dst == 0:
        return torch.zeros_like(b)
    s = matrix_of(graph, weight, norm)
    s = s.T if transposed else s
    taus = np.broadcast_to(np.asarray(tau, dtype=np.float64), b.shape[1])
    one = scipy.sparse.eye_array(graph.num_dst, format="csc")
    columns = [
        scipy.sparse.linalg.spsolve(((1 + t) * one - t * s).tocsc(), b[:, k].numpy())
        for k, t in enumerate(taus)
    ]
    return torch.from_numpy(np.stack(columns, axis=1)).to(b.dtype)


def part_of(group, graph, how):
    parts = parts_of(graph, dist.get_world_size(group), how)
    return PartitionedGraph.from_graph(graph, parts, group)


def summary(stats):
    """What must be the same on all ranks."""
    return (
        stats.method,
        stats.sweeps,
        stats.coarse,
        stats.iterations,
        stats.exchanges,
        stats.setup_exchanges,
        stats.reductions,
        stats.residuals.tolist(),
    )


# A directed chain takes hundreds of steps where its nodes are dealt at random.
ALL = [*(name for name in NAMES if name != "chain"), "grid", "islands"]
FEW = ["isolated_ends", "communities", "undirected"]


def answers(group, names, how, solver, norm, tau):
    """Every graph's answer is SciPy's, and what is counted is what was exchanged."""
    out = []
    for name in names:
        graph = graph_of(name)
        mine = part_of(group, graph, how)
        width = 3 if np.ndim(tau) == 0 else len(tau)
        b = normal(graph.num_dst, width, dtype=DOUBLE)
        before = mine.traffic.exchanges
        time = tau if np.ndim(tau) == 0 else torch.tensor(tau, dtype=DOUBLE)
        x, stats = solve_diffusion(mine, b[mine.owned], time, norm=norm, solver=solver)
        assert_near(x, direct(graph, b, tau, norm=norm)[mine.owned], 1e-8, name)
        counted = stats.exchanges + stats.setup_exchanges
        assert mine.traffic.exchanges - before == counted, name
        # A direction each, and the residual at the end.
        assert stats.iterations <= stats.exchanges <= stats.iterations + 2, (name, stats)
        if name in FEW:
            again, repeated = solve_diffusion(mine, b[mine.owned], time, norm=norm, solver=solver)
            assert torch.equal(x, again) and repeated.setup_exchanges == 0
        out.append((name, *summary(stats)))
    return out


def gradients(group, how, name, norm, symmetric):
    """Of b, tau and the weights, beside those of a dense inverse of the whole."""
    graph = graph_of(name)
    mine = part_of(group, graph, how)
    weight = positive_weights(graph, symmetric) / (40 if norm == "none" else 1)
    b = normal(graph.num_dst, 2, dtype=DOUBLE)
    tau = torch.tensor([0.7, 5.0], dtype=DOUBLE)
    coefficients = normal(graph.num_dst, 2, seed=5, dtype=DOUBLE)
    given = [b[mine.owned], tau, weight[mine.local_edges]]
    leaves = [x.clone().requires_grad_() for x in given]
    x, stats = solve_diffusion(mine, *leaves, norm=norm, solver=TIGHT)
    (x * coefficients[mine.owned]).sum().backward()
    assert stats.method == ("cg" if symmetric else "gmres"), stats
    assert stats.adjoint is not None and stats.adjoint.exchanges <= stats.exchanges + 5
    grad_b, grad_tau, grad_weight = (leaf.grad for leaf in leaves)
    mine.sum_over_ranks(grad_tau)
    expected = dense_gradients(graph, b, tau, weight, norm, coefficients)
    assert_near(grad_b, expected[0][mine.owned], 1e-8, "b")
    assert_near(grad_tau, expected[1], 1e-8, "tau")
    assert_near(grad_weight, expected[2][mine.local_edges], 1e-8, "weight")


def dense_gradients(graph, b, tau, weight, norm, coefficients):
    leaves = [x.clone().requires_grad_() for x in (b, tau, weight)]
    b, tau, weight = leaves
    src, dst = graph.edge_index
    size = (graph.num_dst, graph.num_dst)
    s = torch.zeros(size, dtype=DOUBLE).index_put((dst, src), weight, accumulate=True)
    degree = s.sum(1)
    # Rows of zeros stay zeros, with a gradient of zero.
    degree = torch.where(degree > 0, degree, 1.0)
    if norm == "row":
        s = s / degree[:, None]
    elif norm == "sym":
        s = s / (degree[:, None] * degree[None]).sqrt()
    one = torch.eye(graph.num_dst, dtype=DOUBLE)
    x = torch.linalg.solve((1 + tau[:, None, None]) * one - tau[:, None, None] * s, b.T[:, :, None])
    (x.squeeze(2).T * coefficients).sum().backward()
    return [leaf.grad for leaf in leaves]


def layers(group, how):
    """The layers on parts are those on the whole: values, and the gradients of x and the time."""
    graph = graph_of("communities")
    mine = part_of(group, graph, how)
    x = normal(graph.num_dst, 3, dtype=DOUBLE)
    made = {
        "implicit": Diffusion(20.0, 10.0, learn_time=True, solver=TIGHT),
        "euler": Diffusion(2.0, 0.5, "euler", learn_time=True),
        "ab2": Diffusion(2.0, 0.25, "ab2", "sym", learn_time=True),
        "rk4": Diffusion(2.0, 0.5, "rk4", learn_time=True),
        "dopri5": Diffusion(2.0, None, "dopri5", learn_time=True),
        "appnp": PersonalizedPropagation(0.1, solver=TIGHT),
    }
    for kind, layer in made.items():
        layer = layer.double()
        results = []
        for place, rows in ((graph, x), (mine, x[mine.owned])):
            leaf = rows.clone().requires_grad_()
            out = layer(leaf, place)
            (out**2).sum().backward()
            time = getattr(layer, "time", None)
            results.append((out.detach(), leaf.grad, None if time is None else time.grad))
            layer.zero_grad()
        (out, grad, of_time), (my_out, my_grad, my_of_time) = results
        assert_near(my_out, out[mine.owned], 1e-8, kind)
        assert_near(my_grad, grad[mine.owned], 1e-8, (kind, "x"))
        if of_time is not None:
            mine.sum_over_ranks(my_of_time)
            assert_near(my_of_time, of_time, 1e-8, (kind, "time"))


def multirate_steps(group, how):
    """Explicit steps with fewer exchanges: near the exact ones, and with fewer exchanges."""
    graph = graph_of("islands")
    mine = part_of(group, graph, how)
    x = normal(graph.num_dst, 2, dtype=DOUBLE)
    exact = Diffusion(4.0, 0.25, "euler")(x, graph)
    size = float(exact.abs().max())
    before = mine.traffic.exchanges
    out = Diffusion(4.0, 0.25, "euler", period=4)(x[mine.owned], mine)
    exchanges = mine.traffic.exchanges - before
    return float((out - exact[mine.owned]).abs().max()) / size if len(out) else 0.0, exchanges


def not_finite(group, where):
    """A NaN on the last rank."""
    graph = graph_of("grid")
    mine = part_of(group, graph, "fennel")
    b = normal(len(mine.owned), 2)
    if dist.get_rank(group) == dist.get_world_size(group) - 1:
        b[0, 1] = float(where)
    try:
        solve_diffusion(mine, b, 3.0)
    except ValueError as error:
        return str(error)
    return "no error"


def too_few(group):
    """Where the steps do not suffice every rank says so, after as many."""
    graph = graph_of("grid")
    mine = part_of(group, graph, "fennel")
    b = normal(len(mine.owned), 1, dtype=DOUBLE)
    try:
        solve_diffusion(mine, b, 100.0, solver=Solver(max_iter=3))
    except NotConverged as error:
        assert error.x.shape == b.shape and not error.stats.converged.any()
        return str(error), error.stats.iterations
    return "no error", 0


def two_partitions(group):
    """A part is given a partition."""
    graph = graph_of("grid")
    parts = parts_of(graph, dist.get_world_size(group), "fennel")
    mine = PartitionedGraph.from_graph(graph, parts, group)
    solve_diffusion(mine, normal(len(mine.owned), 1), 1.0, partition=parts)
