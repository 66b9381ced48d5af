"""`solve_diffusion`: (1 + tau) x - tau S x = b over all ranks, in few exchanges, differentiable."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gnnkern.distributed.blocks import Blocks
from gnnkern.distributed.coarse import CoarseSpace, aggregates
from gnnkern.distributed.krylov import ITERATIONS, Stopping
from gnnkern.distributed.partition import Partition
from gnnkern.distributed.propagator import NORMS, Propagator, check_square
from gnnkern.distributed.schwarz import Schwarz, default_sweeps
from gnnkern.graph import Graph
from gnnkern.ops._checks import check_floats, check_option

__all__ = ["DiffusionSystem", "NotConverged", "SolveStats", "Solver", "solve_diffusion"]

METHODS = ("auto", *ITERATIONS)
PRECONDITIONERS = ("auto", "schwarz", "none")

# The residual that the iteration carries along and the true one differ by rounding: as much is
# passed over.
_ROUNDING = 1.01
# How often an iteration starts again from its true residual, which halves each time or it ends.
_MOST_RESTARTS = 5


@dataclass(frozen=True)
class Solver:
    """How to solve.

    Attributes:
        tol: Largest residual |b - A x| relative to |b|, of every column.
        max_iter: Most iterations, each with one exchange.
        method: "cg" (conjugate gradients, for weighted edges that are symmetric), "gmres"
            (flexible GMRES, for any), "stationary" (x <- x + the direction: Jacobi's or Schwarz's
            iteration by itself), or "auto": "cg" where the edges are found symmetric, else "gmres".
        preconditioner: "schwarz" (sweeps inside each part), "none" (the diagonal alone), or "auto":
            "schwarz" where there is more than one part.
        sweeps: Sweeps inside a part for each exchange; None: by tau (`default_sweeps`).
        coarse: Coarse vectors per part, behind the sweeps; 0: none. More than one need clusters of
            the part, made once by Fennel, and a dense matrix of all of them on each rank.
        restart: Directions that GMRES keeps.
        must_converge: Whether to raise where `max_iter` was not enough.
    """

    tol: float = 1e-6
    max_iter: int = 1000
    method: str = "auto"
    preconditioner: str = "auto"
    sweeps: int | None = None
    coarse: int = 1
    restart: int = 30
    must_converge: bool = True

    def __post_init__(self) -> None:
        """Check every field."""
        check_option("Solver", "method", self.method, METHODS)
        check_option("Solver", "preconditioner", self.preconditioner, PRECONDITIONERS)
        if not isinstance(self.tol, float) or not 0 < self.tol < 1:
            raise ValueError(f"Solver: tol must be a float in (0, 1), got {self.tol!r}")
        least = {"max_iter": 1, "sweeps": 1, "coarse": 0, "restart": 1}
        for name, low in least.items():
            value = getattr(self, name)
            if name == "sweeps" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ValueError(f"Solver: {name} must be an int >= {low}, got {value!r}")


@dataclass
class SolveStats:
    """What a solve took; the same on every rank, but for the bytes.

    Attributes:
        method: "cg", "gmres" or "stationary".
        symmetric: Whether the weighted edges were found symmetric.
        sweeps: Inside a part for each exchange; 0: none.
        coarse: Coarse vectors of all parts together; 0: none.
        iterations: Directions.
        exchanges: Of halo rows: one for each direction, one for the residual of a guess, one for
            each time that the true residual was computed at the end.
        setup_exchanges: Before the first solve with this system: for the symmetry and the coarse
            matrix. 0 where the system was there already.
        bytes: Sent in `exchanges` by this rank; by all parts together where they are emulated.
        reductions: Sums over ranks of some numbers per column.
        residuals: float64 [iterations + 1 or more, F] relative to b; the last are true residuals.
        converged: bool [F].
        adjoint: The backward's solve, once there was one.
    """

    method: str
    symmetric: bool
    sweeps: int
    coarse: int
    iterations: int
    exchanges: int
    setup_exchanges: int
    bytes: int
    reductions: int
    residuals: Tensor
    converged: Tensor
    adjoint: SolveStats | None = field(default=None, repr=False)


class NotConverged(RuntimeError):
    """The residual is larger than asked for; `x` [n, F] and `stats` say what there is."""

    def __init__(self, message: str, x: Tensor, stats: SolveStats) -> None:
        super().__init__(message)
        self.x, self.stats = x, stats


class DiffusionSystem:
    """(1 + tau) x - tau S x = b on one graph, for any b and tau: what can be prepared once.

    Args:
        graph: A `PartitionedGraph` (all ranks call together) or a `Graph`.
        weight: [E] of the edges, or None. Its gradient is not asked for here.
        norm: "row", "sym" or "none", as in `Propagator`. With "none" no eigenvalue of S may be
            larger than 1 in size.
        partition: Of a `Graph`: solve in one process as its parts would in theirs.
        dtype: Of b.

    Attributes:
        symmetric: Whether the weighted edges are symmetric.
    """

    def __init__(
        self,
        graph: Graph,
        weight: Tensor | None = None,  # [E]
        *,
        norm: str = "row",
        partition: Partition | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        with torch.no_grad():
            propagator = Propagator(graph, weight, norm, dtype=dtype)
            self.blocks = Blocks(propagator, partition)
            self.symmetric = self.blocks.is_symmetric()
        self._norm, self._dtype = norm, dtype
        self._coarse: dict[tuple[bool, int], CoarseSpace] = {}
        self._reported = 0
        left, right = propagator.left, propagator.right
        there = (left > 0) & (right > 0)
        # S is self-adjoint in the inner product that R / L weighs.
        self._metric = torch.where(there, right / left, 1.0)  # [n]

    def image(
        self,
        x: Tensor,  # [n, F]
        tau: Tensor,  # [1] or [F]
        weight: Tensor | None,  # [E]
    ) -> Tensor:  # [n, F]
        """(1 + tau) x - tau S x, differentiable, with other weights of the same edges."""
        graph = self.blocks.propagator.graph
        return (1 + tau) * x - tau * Propagator(graph, weight, self._norm, dtype=x.dtype)(x)

    @torch.no_grad()
    def solve(
        self,
        b: Tensor,  # [n, F]
        tau: Tensor,  # [1] or [F]
        solver: Solver,
        *,
        guess: Tensor | None = None,  # [n, F]
        transposed: bool = False,
    ) -> tuple[Tensor, SolveStats]:
        """Solve for x [n, F], or with S^T in place of S. See `solve_diffusion`."""
        method = solver.method
        if method == "auto":
            method = "cg" if self.symmetric else "gmres"
        elif method == "cg" and not self.symmetric:
            raise ValueError(
                "Solver: method 'cg' needs symmetric weighted edges, which these are not; use "
                "'gmres'"
            )
        if not transposed or not self.symmetric or method == "gmres":
            return self._solve(b, tau, solver, method, guess, transposed, None)
        # S^T = D S D^-1, D being the metric.
        scale = self._metric.unsqueeze(1)
        guess = None if guess is None else guess / scale
        x, stats = self._solve(b / scale, tau, solver, method, guess, False, scale)
        return scale * x, stats

    def _solve(
        self,
        b: Tensor,
        tau: Tensor,
        solver: Solver,
        method: str,
        guess: Tensor | None,
        transposed: bool,
        scale: Tensor | None,
    ) -> tuple[Tensor, SolveStats]:
        system = self._schwarz(tau, solver, transposed, scale)
        counts = self.blocks.counts
        setup, before = counts.exchanges - self._reported, counts.copy()
        size = system.square(b).sqrt()  # [F]
        self._check_finite(size, "b", b)
        stop = Stopping(size, solver.tol, solver.max_iter)
        x = torch.zeros_like(b) if guess is None else guess
        r = b if guess is None else b - system.apply(x)
        options = {"restart": solver.restart} if method == "gmres" else {}
        true = torch.full_like(size, math.inf)
        for _ in range(_MOST_RESTARTS):
            x, r = system.start(x, r)
            if not stop.see(stop.relative(system.square(r))):
                x, r = ITERATIONS[method](system, x, r, stop, **options)
            self._check_finite(stop.history[-1], f"x after {stop.iterations} iterations", x)
            r = b - system.apply(x)
            earlier, true = true, stop.relative(system.square(r))
            stop.history.append(true)
            stuck = bool((true > torch.clamp(earlier / 2, min=solver.tol)).any())
            if stuck or stop.at_end or bool((true <= _ROUNDING * solver.tol).all()):
                break
        added, self._reported = counts.since(before), counts.exchanges
        stats = SolveStats(
            method,
            self.symmetric,
            system.sweeps,
            system.num_coarse,
            stop.iterations,
            added.exchanges,
            setup,
            added.bytes,
            added.reductions,
            torch.stack(stop.history),
            true <= _ROUNDING * solver.tol,
        )
        if solver.must_converge and not bool(stats.converged.all()):
            raise NotConverged(
                f"solve_diffusion: a residual of {float(true.max()):.1e} after {stop.iterations} "
                f"iterations of {method} in {b.dtype}, expected at most tol={solver.tol:.1e}",
                x,
                stats,
            )
        return x, stats

    def _schwarz(
        self, tau: Tensor, solver: Solver, transposed: bool, scale: Tensor | None
    ) -> Schwarz:
        blocks = self.blocks.transposed() if transposed else self.blocks
        kind = solver.preconditioner
        if kind == "none" or (kind == "auto" and blocks.num_blocks == 1):
            return Schwarz(blocks, tau, 0, None, False, self._metric, scale)
        coarse = None
        if solver.coarse > 0:
            key = (transposed, solver.coarse)
            if key not in self._coarse:
                place, size = aggregates(blocks, solver.coarse), solver.coarse * blocks.num_blocks
                self._coarse[key] = CoarseSpace(blocks, place, size, self._dtype)
            coarse = self._coarse[key]
        largest = float(tau.max()) if tau.numel() else 0.0
        sweeps = solver.sweeps or default_sweeps(largest, self.symmetric)
        return Schwarz(blocks, tau, sweeps, coarse, self.symmetric, self._metric, scale)

    def _check_finite(self, size: Tensor, what: str, x: Tensor) -> None:
        """Raise on every rank where a number that all of them have is not finite."""
        bad = ~torch.isfinite(size)
        if not bool(bad.any()):
            return
        blocks = self.blocks
        ranks = torch.zeros(blocks.num_blocks, dtype=torch.int64, device=x.device)
        ranks.index_add_(0, blocks.block, (~torch.isfinite(x)).any(1).long())
        where = blocks.sum(ranks).nonzero().flatten().tolist()
        raise ValueError(
            f"solve_diffusion: {what} is not finite in column {int(bad.nonzero()[0])}, by rows of "
            f"rank {where[0] if where else '?'}"
        )


class _Solve(torch.autograd.Function):
    """The gradient of b solves with S^T; those of tau and the weights follow from its product."""

    @staticmethod
    def forward(
        ctx: Any,
        b: Tensor,  # [n, F]
        tau: Tensor,  # [1] or [F]
        weight: Tensor | None,  # [E]
        system: DiffusionSystem,
        solver: Solver,
        guess: Tensor | None,
        out: list[SolveStats],
    ) -> Tensor:
        x, stats = system.solve(b, tau.to(b.dtype), solver, guess=guess)
        ctx.save_for_backward(x, tau, weight)
        ctx.system, ctx.solver, ctx.stats = system, solver, stats
        out.append(stats)
        return x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, tau, weight = ctx.saved_tensors
        adjoint, ctx.stats.adjoint = ctx.system.solve(
            grad.contiguous(), tau.to(x.dtype), ctx.solver, transposed=True
        )
        grads: list[Tensor | None] = [None, None]
        needed = [place for place in (0, 1) if ctx.needs_input_grad[place + 1]]
        if needed:
            with torch.enable_grad():
                leaves = [None if t is None else t.detach().requires_grad_() for t in (tau, weight)]
                image = ctx.system.image(x, leaves[0].to(x.dtype), leaves[1])
            found = torch.autograd.grad(image, [leaves[place] for place in needed], -adjoint)
            for place, value in zip(needed, found, strict=True):
                grads[place] = value
        return adjoint, *grads, None, None, None, None


def solve_diffusion(
    graph: Graph,
    b: Tensor,  # [n], [n, F] or [n, ...]
    tau: float | Tensor,
    weight: Tensor | None = None,  # [E]
    *,
    norm: str = "row",
    solver: Solver | None = None,
    guess: Tensor | None = None,
    partition: Partition | None = None,
) -> tuple[Tensor, SolveStats]:
    """Solve (1 + tau) x - tau S x = b: a step of length tau of x' = S x - x, backward in time.

    S is the mean over in-neighbours, or as `norm` says. With tau = (1 - a) / a, x is also the
    limit of personalised propagation, x = (1 - a) S x + a b.

    Over a `PartitionedGraph` all ranks call it together; each has its rows of b and gets its rows
    of x. The answer is that of one process, to the tolerance. An iteration is some sweeps inside
    each part, one exchange of halo rows, a correction by a few coarse vectors per part and some
    sums over ranks (`Solver`). Every decision follows from sums that all ranks have: they stop at
    the same iteration.

    Args:
        graph: A `PartitionedGraph` or a `Graph`, with as many sources as destinations.
        b: Rows of the owned nodes, float32 or float64. Columns are solved side by side, each with
            its own step lengths, in shared exchanges.
        tau: Not negative: a number, or a tensor of one, or of one for each column [F].
        weight: [E] of the edges, not negative but with norm "none"; in the caller's order.
        norm: "row", "sym" or "none", as in `Propagator`.
        solver: How to solve.
        guess: The iteration's start, such as the last time's x; costs an exchange. No gradient.
        partition: Of a `Graph`: solve in one process as its parts would in theirs.

    Returns:
        x, like b, and what it took. A node without edges gets b / (1 + tau).

    Numerics: float32 reaches a residual of about 1e-7 * (1 + tau) at best, and says so where this
    is above the tolerance. Results repeat bit for bit with the same parts.

    Gradients: of b, tau and weight, once, by the implicit rule: the backward is one more solve, by
    S^T and to the same tolerance. Those of tau and of shared weights are this rank's share, to be
    summed over ranks as those of any parameter.

    Cost: per iteration `sweeps` + 1 products with S of width F, one exchange and about four sums
    over ranks. Without weights what is prepared is kept on the graph; with weights it is made anew:
    an exchange of width 2 and one of `coarse` * P columns.

    Raises:
        TypeError: an argument has the wrong type or dtype.
        ValueError: a shape or an option is wrong, tau is negative, or b is not finite.
        NotConverged: `max_iter` iterations were not enough; on all ranks.

    Source: Tang, Nabben, Vuik and Erlangga, "Comparison of two-level preconditioners derived from
    deflation, domain decomposition and multigrid methods", Journal of Scientific Computing, 2009
    (A-DEF2).
    """
    check_square("solve_diffusion", graph, weight)
    check_option("solve_diffusion", "norm", norm, NORMS)
    check_floats("solve_diffusion", graph.device, b=b)
    if b.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"solve_diffusion: b must be float32 or float64, got {b.dtype}")
    if b.dim() == 0 or b.shape[0] != graph.num_dst:
        raise ValueError(
            f"solve_diffusion: b must have shape [n={graph.num_dst}, ...], got {list(b.shape)}"
        )
    if guess is not None and (guess.shape != b.shape or guess.dtype != b.dtype):
        raise ValueError(
            f"solve_diffusion: guess must be like b, {b.dtype} {list(b.shape)}, got "
            f"{guess.dtype} {list(guess.shape)}"
        )
    flat = b.reshape(b.shape[0], math.prod(b.shape[1:]))
    times = _times(tau, flat)
    system = _system(graph, weight, norm, partition, b.dtype)
    start = None if guess is None else guess.detach().reshape(flat.shape)
    out: list[SolveStats] = []
    x: Tensor = _Solve.apply(flat, times, weight, system, solver or Solver(), start, out)
    return x.view(b.shape), out[0]


def _times(tau: float | Tensor, b: Tensor) -> Tensor:  # [1] or [F]
    """Tau as a tensor beside b, checked."""
    if isinstance(tau, bool) or not isinstance(tau, int | float | Tensor):
        raise TypeError(
            f"solve_diffusion: tau must be a number or a tensor, got {type(tau).__name__}"
        )
    times = tau if isinstance(tau, Tensor) else torch.tensor(float(tau), dtype=b.dtype)
    times = times.to(b.device)
    if times.dim() > 1 or times.numel() not in (1, b.shape[1]):
        raise ValueError(
            f"solve_diffusion: tau must be a number or have shape [F={b.shape[1]}], got "
            f"{list(times.shape)}"
        )
    if not bool(((times >= 0) & torch.isfinite(times)).all()):
        raise ValueError(f"solve_diffusion: tau must be finite and not negative, got {tau}")
    return times.reshape(-1)


def _system(
    graph: Graph,
    weight: Tensor | None,
    norm: str,
    partition: Partition | None,
    dtype: torch.dtype,
) -> DiffusionSystem:
    """The system; where it is that of the graph alone, it is kept there."""
    options: dict[str, Any] = {"norm": norm, "partition": partition, "dtype": dtype}
    if weight is not None or partition is not None:
        weight = None if weight is None else weight.detach()
        return DiffusionSystem(graph, weight, **options)
    key = f"diffusion {norm} {dtype}"
    kept: DiffusionSystem | None = graph._cache.get(key)
    if kept is None:
        kept = graph._cache[key] = DiffusionSystem(graph, **options)
    return kept
