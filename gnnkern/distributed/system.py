"""`DiffusionSystem`: one graph's equations (1 + tau) x - tau S x = b, ready for any b and tau."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gnnkern.distributed.blocks import Blocks
from gnnkern.distributed.coarse import CoarseSpace, aggregates
from gnnkern.distributed.krylov import ITERATIONS, Stopping
from gnnkern.distributed.partition import Partition
from gnnkern.distributed.propagator import Propagator
from gnnkern.distributed.schwarz import Schwarz, default_sweeps
from gnnkern.graph import Graph
from gnnkern.ops._checks import check_option

__all__ = ["DiffusionSystem", "NotConverged", "SolveStats", "Solver"]

METHODS = ("auto", *ITERATIONS)
PRECONDITIONERS = ("auto", "schwarz", "none")

# The residual that the iteration carries along and the true one differ by rounding: as much is
# passed over.
_ROUNDING = 1.01
_TOL = {torch.float64: 1e-6, torch.float32: 1e-5}
# How often an iteration starts again from its true residual, which halves each time or it ends.
_MOST_RESTARTS = 5


@dataclass(frozen=True)
class Solver:
    """How to solve.

    Attributes:
        tol: Largest residual |b - A x| relative to |b|, of every column; None: 1e-6, and 1e-5 in
            float32, whose rounding alone may leave more than 1e-6 on systems of large tau.
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

    tol: float | None = None
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
        if self.tol is not None and not (isinstance(self.tol, float) and 0 < self.tol < 1):
            raise ValueError(f"Solver: tol must be a float in (0, 1) or None, got {self.tol!r}")
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
        tol = solver.tol or _TOL[b.dtype]
        stop = Stopping(size, tol, solver.max_iter)
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
            stuck = bool((true > torch.clamp(earlier / 2, min=tol)).any())
            if stuck or stop.at_end or bool((true <= _ROUNDING * tol).all()):
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
            true <= _ROUNDING * tol,
        )
        if solver.must_converge and not bool(stats.converged.all()):
            raise NotConverged(
                f"solve_diffusion: a residual of {float(true.max()):.1e} after {stop.iterations} "
                f"iterations of {method} in {b.dtype}, expected at most tol={tol:.1e}",
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
