"""Implicit diffusion over parts: SciPy's answer, in few exchanges, with gradients."""

import math

import pytest
import rank_solver
import torch
from rank_checks import assert_near, normal
from rank_solver import ALL, DOUBLE, FEW, TIGHT, direct, graph_of, matrix_of, positive_weights
from ranks import RankError

import gnnkern
from gnnkern.data import star
from gnnkern.distributed import DiffusionSystem, NotConverged, Solver, partition, solve_diffusion
from gnnkern.nn import APPNP, Diffusion, PersonalizedPropagation

pytestmark = pytest.mark.dist

SOLVERS = {
    "default": TIGHT,
    "gmres": Solver(tol=1e-11, method="gmres", restart=7, coarse=2),
    "plain": Solver(tol=1e-11, preconditioner="none"),
}


@pytest.mark.parametrize(
    ("names", "how", "solver", "norm", "tau"),
    [
        (ALL, "metis", "default", "row", 100.0),
        (FEW, "lopsided", "default", "sym", 10.0),
        (FEW, "random", "default", "row", [0.0, 3.0, 50.0]),
        (FEW, "metis", "gmres", "sym", 20.0),
        (FEW, "random", "plain", "row", 5.0),
        pytest.param(["chain"], "random", "default", "row", 100.0, marks=pytest.mark.slow),
    ],
    ids=["all", "lopsided", "times", "gmres", "plain", "chain"],
)
def test_the_answer_is_scipys(run, names, how, solver, norm, tau):
    by_rank = run(rank_solver.answers, names, how, SOLVERS[solver], norm, tau)
    # All ranks stop at the same iteration, having seen the same residuals.
    assert all(of_rank == by_rank[0] for of_rank in by_rank)


@pytest.mark.parametrize(
    ("name", "norm", "symmetric"),
    [
        ("undirected", "row", True),
        ("undirected", "sym", True),
        ("isolated_ends", "row", False),
        ("communities", "row", False),
        ("communities", "sym", False),
        ("grid", "none", False),
    ],
)
def test_gradients_are_those_of_a_dense_solve(run, name, norm, symmetric):
    run(rank_solver.gradients, "metis", name, norm, symmetric)


@pytest.mark.parametrize("how", ["metis", "lopsided"])
def test_layers_agree(run, how):
    run(rank_solver.layers, how)


def test_multirate_steps_exchange_less(run):
    for error, exchanges in run(rank_solver.multirate_steps, "metis"):
        # One part has nothing to exchange, and does so at every step.
        assert exchanges == (16 if run.world == 1 else 4)
        assert error <= (1e-12 if run.world == 1 else 0.05)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_every_rank_says_which_rank_has_no_number(run, value):
    wanted = f"b is not finite in column 1, by rows of rank {run.world - 1}"
    assert all(wanted in message for message in run(rank_solver.not_finite, value))


def test_every_rank_says_that_the_steps_did_not_suffice(run):
    answers = run(rank_solver.too_few)
    assert all("after 3 iterations of cg" in message for message, _ in answers)
    assert {iterations for _, iterations in answers} == {3}


# -- parts in one process --------------------------------------------------------------------------


def solved(graph, solver, tau=100.0, parts=8, transposed=False, how="metis"):
    """The statistics of a solve in parts, whose answer was compared."""
    system = DiffusionSystem(graph, partition=partition(graph, parts, how), dtype=DOUBLE)
    b = normal(graph.num_dst, 2, dtype=DOUBLE) + 1.0
    x, stats = system.solve(b, torch.tensor([tau], dtype=DOUBLE), solver, transposed=transposed)
    # As large as the residual may be, times the condition.
    largest = 400 * (solver.tol or 1e-6) * tau
    assert_near(x, direct(graph, b, tau, transposed=transposed), largest, solver)
    return stats


def test_parts_in_one_process_take_the_exchanges_of_ranks(run):
    (counts, *_) = run(rank_solver.answers, ["grid", "islands"], "metis", TIGHT, "row", 100.0)
    for name, method, _, _, iterations, exchanges, *_ in counts:
        graph = graph_of(name)
        system = DiffusionSystem(
            graph, partition=partition(graph, run.world, "metis"), dtype=DOUBLE
        )
        b = normal(graph.num_dst, 3, dtype=DOUBLE)
        _, stats = system.solve(b, torch.tensor([100.0], dtype=DOUBLE), TIGHT)
        assert (stats.method, stats.iterations, stats.exchanges) == (method, iterations, exchanges)


# Exchanges to 1e-6 in 8 parts with tau = 100, and as many as are wanted at most.
@pytest.mark.parametrize(
    ("name", "solver", "most"),
    [
        ("undirected", Solver(), 12),
        ("islands", Solver(), 12),
        ("islands", Solver(method="gmres"), 12),
        ("communities", Solver(), 25),
        ("grid", Solver(), 25),
        ("grid", Solver(coarse=8), 20),
    ],
)
@pytest.mark.parametrize("transposed", [False, True])
def test_exchanges_are_few(name, solver, most, transposed):
    assert solved(graph_of(name), solver, transposed=transposed).exchanges <= most


@pytest.mark.parametrize("method", ["cg", "gmres", "stationary"])
def test_the_coarse_space_saves_exchanges(method):
    options = {"method": method, "max_iter": 3000}
    graph = graph_of("undirected" if method == "stationary" else "islands")
    with_it, without = (
        solved(graph, Solver(**options, coarse=count)).exchanges for count in (1, 0)
    )
    assert with_it <= (0.2 if method == "stationary" else 0.75) * without, (with_it, without)


def test_schwarz_saves_exchanges_of_conjugate_gradients():
    for name in ("undirected", "islands", "grid"):
        graph = graph_of(name)
        plain = solved(graph, Solver(preconditioner="none")).exchanges
        assert solved(graph, Solver()).exchanges <= 0.55 * plain, name


def test_jacobi_is_jacobi():
    graph, tau = graph_of("undirected"), 3.0
    b = normal(graph.num_dst, 2, dtype=DOUBLE)
    solver = Solver(method="stationary", preconditioner="none", max_iter=5, must_converge=False)
    x, _ = DiffusionSystem(graph, dtype=DOUBLE).solve(b, torch.tensor([tau], dtype=DOUBLE), solver)
    expected = torch.zeros_like(b)
    for _ in range(5):
        expected = (b + tau * gnnkern.spmm(graph, expected, reduce="mean")) / (1 + tau)
    assert_near(x, expected, 1e-13, "five steps")


def test_a_guess_saves_exchanges():
    graph = graph_of("grid")
    b = normal(graph.num_dst, 2)
    x, first = solve_diffusion(graph, b, 10.0)
    again, second = solve_diffusion(graph, b, 10.0, guess=x)
    assert second.iterations == 0 < first.iterations
    assert_near(again, x, 0.0, "the guess was right")


@pytest.mark.parametrize("norm", ["row", "sym", "none"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_gradcheck(norm, symmetric):
    # A self loop, a repeated edge, a node without edges.
    ends = torch.tensor([[0, 1, 1, 2, 2, 0, 3, 3, 1], [1, 0, 2, 1, 0, 2, 3, 1, 3]])
    graph = gnnkern.Graph.from_edge_index(ends, 5)
    weight = positive_weights(graph, symmetric) / (4 if norm == "none" else 1)
    parts = partition(graph, 2, torch.tensor([0, 0, 1, 1, 0]))
    solver = Solver(tol=1e-14, must_converge=False)

    def function(b, tau, weight):
        return solve_diffusion(graph, b, tau, weight, norm=norm, solver=solver, partition=parts)[0]

    b = normal(5, 2, seed=2, dtype=DOUBLE).requires_grad_()
    tau = torch.tensor(1.7, dtype=DOUBLE).requires_grad_()
    assert torch.autograd.gradcheck(function, (b, tau, weight.requires_grad_()))
    square = function(b, tau, weight).square().sum()
    (grad,) = torch.autograd.grad(square, b, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_float32_reaches_its_tolerance_or_says_so():
    graph = graph_of("islands")
    b = normal(graph.num_dst, 2)
    x, stats = solve_diffusion(graph, b, 20.0)
    assert float(stats.residuals[-1].max()) <= 1.01e-5
    assert_near(x, direct(graph, b.double(), 20.0).float(), 1e-4, "float32")
    with pytest.raises(NotConverged, match="of cg in torch.float32, expected at most tol=1.0e-12"):
        solve_diffusion(graph, b, 20.0, solver=Solver(tol=1e-12))


@pytest.mark.parametrize("shape", [(144,), (144, 0), (144, 2, 3)])
def test_shapes_of_b(shape):
    graph = graph_of("grid")
    b = normal(*shape, dtype=DOUBLE)
    x, _ = solve_diffusion(graph, b, 2.0, solver=TIGHT)
    assert x.shape == b.shape
    if b.numel():
        flat = b.reshape(144, -1)
        assert_near(x.reshape(144, -1), direct(graph, flat, 2.0), 1e-9, shape)


def test_a_column_of_zeros_is_solved_by_zeros():
    b = normal(144, 2, dtype=DOUBLE)
    b[:, 1] = 0.0
    x, stats = solve_diffusion(graph_of("grid"), b, 2.0)
    assert not x[:, 1].any() and stats.converged.all()


# -- layers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "step", "order"),
    [("euler", 0.1, 1), ("implicit", 0.1, 1), ("ab2", 0.1, 2), ("rk4", 0.2, 4)],
)
def test_the_order_in_the_step(method, step, order):
    graph = graph_of("undirected")
    x = normal(graph.num_dst, 2, dtype=DOUBLE)
    s = torch.from_numpy(matrix_of(graph).toarray())
    exact = torch.linalg.matrix_exp(2.0 * (s - torch.eye(len(s), dtype=DOUBLE))) @ x
    errors = [
        float((Diffusion(2.0, h, method, solver=TIGHT)(x, graph) - exact).norm())
        for h in (step, step / 2)
    ]
    assert order - 0.2 < math.log2(errors[0] / errors[1]) < order + 0.3, errors


def test_adaptive_steps_keep_their_tolerance():
    graph = graph_of("undirected")
    x = normal(graph.num_dst, 2, dtype=DOUBLE)
    s = torch.from_numpy(matrix_of(graph).toarray())
    exact = torch.linalg.matrix_exp(5.0 * (s - torch.eye(len(s), dtype=DOUBLE))) @ x
    errors = [
        float((Diffusion(5.0, None, "dopri5", rtol=t, atol=t)(x, graph) - exact).abs().max())
        for t in (1e-4, 1e-9)
    ]
    assert errors[0] < 1e-3 and errors[1] < 1e-8, errors


def test_personalised_propagation_is_the_limit_of_appnp():
    graph = graph_of("undirected").add_self_loops()
    x = normal(graph.num_dst, 3, dtype=DOUBLE)
    limit = PersonalizedPropagation(0.2, solver=TIGHT)(x, graph)
    assert_near(APPNP(150, 0.2)(x, graph), limit, 1e-10, "150 steps")


def test_no_time_is_no_diffusion():
    graph, x = graph_of("grid"), normal(144, 2, dtype=DOUBLE)
    for method in ("implicit", "euler", "ab2", "rk4", "dopri5"):
        assert_near(Diffusion(0.0, method=method)(x, graph), x, 1e-12, method)


# -- bad input -------------------------------------------------------------------------------------

GRID = graph_of("grid")
B = normal(144, 2)
STAR = gnnkern.Graph.from_edge_index(star(3).edge_index, (4, 5))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: solve_diffusion(None, B, 1.0), TypeError, "graph must be a gnnkern.Graph"),
        (lambda: solve_diffusion(STAR, B, 1.0), ValueError, "num_src == num_dst, got 4 and 5"),
        (lambda: solve_diffusion(GRID, B[:3], 1.0), ValueError, r"\[n=144, ...\], got \[3, 2\]"),
        (lambda: solve_diffusion(GRID, B.half(), 1.0), TypeError, "float32 or float64, got"),
        (lambda: solve_diffusion(GRID, B.tolist(), 1.0), TypeError, "b must be a tensor"),
        (lambda: solve_diffusion(GRID, B, "1"), TypeError, "tau must be a number"),
        (lambda: solve_diffusion(GRID, B, -1.0), ValueError, "finite and not negative, got -1.0"),
        (lambda: solve_diffusion(GRID, B, math.nan), ValueError, "finite and not negative"),
        (lambda: solve_diffusion(GRID, B, torch.ones(3)), ValueError, r"\[F=2\], got \[3\]"),
        (lambda: solve_diffusion(GRID, B, 1.0, B[:, 0]), ValueError, r"\[E=528\], got \[144\]"),
        (lambda: solve_diffusion(GRID, B, 1.0, 3), TypeError, "weight must be a tensor"),
        (
            lambda: solve_diffusion(GRID, B, 1.0, norm="col"),
            ValueError,
            "row, sym, none, got 'col'",
        ),
        (lambda: solve_diffusion(GRID, B, 1.0, guess=B[:2]), ValueError, "guess must be like b"),
        (
            lambda: solve_diffusion(GRID, B, 1.0, partition=partition(graph_of("islands"), 2)),
            ValueError,
            "partition must be of 144 nodes, got one of 600",
        ),
        (
            lambda: solve_diffusion(graph_of("communities"), normal(400, 1), 1.0, solver=CG),
            ValueError,
            "method 'cg' needs symmetric weighted edges",
        ),
        (lambda: Solver(tol=0.0), ValueError, r"tol must be a float in \(0, 1\) or None, got 0.0"),
        (lambda: Solver(max_iter=0), ValueError, "max_iter must be an int >= 1, got 0"),
        (lambda: Solver(sweeps=True), ValueError, "sweeps must be an int >= 1, got True"),
        (lambda: Solver(coarse=-1), ValueError, "coarse must be an int >= 0, got -1"),
        (lambda: Solver(method="sor"), ValueError, "method must be one of auto, cg"),
        (lambda: Solver(preconditioner="ilu"), ValueError, "preconditioner must be one of"),
        (lambda: Diffusion(-1.0), ValueError, "time must be finite and not negative, got -1.0"),
        (lambda: Diffusion(1.0, 0.0), ValueError, "step must be finite and positive, got 0.0"),
        (lambda: Diffusion(1.0, 0.1, "dopri5"), ValueError, "chooses its steps, got step=0.1"),
        (lambda: Diffusion(1.0, method="rk5"), ValueError, "method must be one of implicit"),
        (lambda: Diffusion(1.0, method="rk4", period=2), ValueError, "needs one of euler, ab2"),
        (lambda: Diffusion(1.0, norm="l2"), ValueError, "norm must be one of row"),
        (lambda: PersonalizedPropagation(0.0), ValueError, r"in \(0, 1\], got 0.0"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


CG = Solver(method="cg")


def test_a_partition_belongs_to_a_whole_graph(four_ranks):
    with pytest.raises(RankError, match="a PartitionedGraph has its own"):
        four_ranks.run(rank_solver.two_partitions, world=2)
