"""Diffusion over a graph, x' = S x - x, in explicit, adaptive or implicit steps; its limits."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from gnnkern.distributed.graph import PartitionedGraph
from gnnkern.distributed.hierarchy import Hierarchy
from gnnkern.distributed.multirate import multirate
from gnnkern.distributed.propagator import NORMS, Propagator
from gnnkern.distributed.solver import solve_diffusion
from gnnkern.distributed.system import Solver, SolveStats
from gnnkern.distributed.window import Period, check_period
from gnnkern.graph import Graph
from gnnkern.nn.inputs import as_graph, sparse_values
from gnnkern.ops._checks import check_option

# Methods of torchdiffeq: with a fixed step, and with one that follows from the error.
_FIXED = ("midpoint", "heun2", "heun3", "rk4")
_ADAPTIVE = ("dopri5", "bosh3", "adaptive_heun", "fehlberg2", "dopri8")
# One evaluation of S x for each step, so that exchanges can be counted in steps.
_MULTIRATE = ("euler", "ab2")
METHODS = ("implicit", *_MULTIRATE, *_FIXED, *_ADAPTIVE)


class Diffusion(nn.Module):
    """x(time) of x' = S x - x from x(0) = x, S being the graph's normalised adjacency.

    It takes a `Graph` or, on every rank, a `PartitionedGraph`: explicit steps exchange halo rows at
    every evaluation of S x, implicit ones as `solve_diffusion` does. Explicit steps are stable up
    to a length of 1 (Euler; half of that for "ab2"), implicit ones of any length. A node without
    edges decays as exp(-t).

    Args:
        time: How long; not negative.
        step: The longest step: the time is divided evenly. None: one implicit step, or explicit
            ones of at most 0.25. Adaptive methods choose it themselves.
        method: "implicit" (backward Euler), "euler", "ab2" (Adams-Bashforth of order 2, its first
            step Euler's), or one of torchdiffeq: "midpoint", "heun2", "heun3", "rk4" with fixed
            steps, "dopri5", "bosh3", "adaptive_heun", "fehlberg2", "dopri8" with adaptive ones.
        norm: "row" (S x is the mean over in-neighbours), "sym" (1 / sqrt(d_u d_v)) or "none" (the
            edge weights as they are).
        learn_time: Whether `time` is a parameter. Its gradient is this rank's share, like that of
            any parameter.
        rtol: Tolerance of adaptive steps, relative.
        atol: Likewise, absolute.
        solver: Of implicit steps.
        period: Steps of "euler" and "ab2" between exchanges, for all links or by kind
            (`gnnkern.distributed.multirate`); 1: exact.
        predictor: What stands for other ranks' rows between: "hold" or "linear".

    Attributes:
        time: The time, a tensor of one element.
        stats: What the implicit solves of the last forward took, one for each step.

    Accuracy: Euler and implicit steps are of first order, "ab2" of second.
    """

    def __init__(
        self,
        time: float = 1.0,
        step: float | None = None,
        method: str = "implicit",
        norm: str = "row",
        *,
        learn_time: bool = False,
        rtol: float = 1e-4,
        atol: float = 1e-5,
        solver: Solver | None = None,
        period: Period = 1,
        predictor: str = "linear",
    ) -> None:
        super().__init__()
        check_option("Diffusion", "method", method, METHODS)
        check_option("Diffusion", "norm", norm, NORMS)
        if not 0.0 <= time < math.inf:
            raise ValueError(f"Diffusion: time must be finite and not negative, got {time}")
        if step is not None and not 0.0 < step < math.inf:
            raise ValueError(f"Diffusion: step must be finite and positive, got {step}")
        if step is not None and method in _ADAPTIVE:
            raise ValueError(f"Diffusion: method {method!r} chooses its steps, got step={step}")
        if period != 1 and method not in _MULTIRATE:
            raise ValueError(
                f"Diffusion: a period other than 1 needs one of {', '.join(_MULTIRATE)}, got "
                f"method={method!r}"
            )
        check_period(period, Hierarchy(1, 1))
        self.period, self.predictor = period, predictor
        self.step = step
        self.method = method
        self.norm = norm
        self.rtol, self.atol = rtol, atol
        self.solver = Solver() if solver is None else solver
        self.stats: list[SolveStats] = []
        value = torch.tensor(float(time))
        if learn_time:
            self.time = nn.Parameter(value)
        else:
            self.register_buffer("time", value)

    def forward(
        self,
        x: Tensor,  # [N, F]
        edge_index: Graph | Tensor,
        edge_weight: Tensor | None = None,  # [E]
    ) -> Tensor:  # [N, F]
        """Return x(time).

        Args:
            x: Node features.
            edge_index: A `Graph`, an integer tensor [2, E], or a torch sparse matrix [N, N] whose
                values are the edge weights.
            edge_weight: Weight of each edge, in the caller's edge order.
        """
        graph, weight = _inputs(x, edge_index, edge_weight)
        self.stats = []
        longest = self.step
        if longest is None:
            longest = math.inf if self.method == "implicit" else 0.25
        count = max(math.ceil(float(self.time.detach()) / longest - 1e-6), 1)
        step = self.time.to(x.dtype) / count
        if self.method == "implicit":
            return self._implicit(x, graph, weight, step, count)
        if self.period != 1:
            graph = multirate(graph, self.period, self.predictor)
        propagate = Propagator(graph, weight, self.norm, dtype=x.dtype)
        if self.method == "euler":
            for _ in range(count):
                x = x + step * (propagate(x) - x)
            return x
        if self.method == "ab2":
            before = None
            for _ in range(count):
                slope = propagate(x) - x
                x = x + step * (slope if before is None else 1.5 * slope - 0.5 * before)
                before = slope
            return x
        return self._torchdiffeq(x, propagate, step)

    def _implicit(
        self, x: Tensor, graph: Graph, weight: Tensor | None, step: Tensor, count: int
    ) -> Tensor:
        for _ in range(count):
            x, stats = solve_diffusion(
                graph, x, step, weight, norm=self.norm, solver=self.solver, guess=x
            )
            self.stats.append(stats)
        return x

    def _torchdiffeq(self, x: Tensor, propagate: Propagator, step: Tensor) -> Tensor:
        """The time runs from 0 to 1, so that it is a factor of the slope and has its gradient."""
        try:
            from torchdiffeq import odeint
        except ImportError as error:
            raise ImportError(
                f"Diffusion: method {self.method!r} needs torchdiffeq: pip install gnnkern[ode] "
                f"({error})"
            ) from error
        time = self.time.to(x.dtype)

        def slope(_: Tensor, x: Tensor) -> Tensor:
            return time * (propagate(x) - x)

        options: dict[str, Any] = {}
        if self.method in _FIXED:
            length = float(self.time.detach())
            options["step_size"] = float(step.detach()) / length if length > 0 else 1.0
        else:
            options["norm"] = _norm_over_ranks(propagate.graph)
        ends = torch.tensor([0.0, 1.0], dtype=x.dtype, device=x.device)
        out: Tensor = odeint(
            slope, x, ends, rtol=self.rtol, atol=self.atol, method=self.method, options=options
        )
        return out[-1]

    def __repr__(self) -> str:
        """Return e.g. `Diffusion(100.0, method='implicit', norm='row')`."""
        step = "" if self.step is None else f", step={self.step}"
        return (
            f"Diffusion({float(self.time):.6g}{step}, method={self.method!r}, norm={self.norm!r})"
        )


class PersonalizedPropagation(nn.Module):
    """The fixed point of x = (1 - alpha) S x + alpha x_0: APPNP with as many steps as it takes.

    By the solver of implicit diffusion with tau = (1 - alpha) / alpha, which has the same linear
    system; so few exchanges are needed over a `PartitionedGraph`, and the backward keeps no steps.
    `APPNP` does a given number of steps.

    Args:
        alpha: Share of the first features, in (0, 1].
        norm: As in `Diffusion`.
        solver: How to solve.

    Attributes:
        stats: What the last forward took.

    Source: Klicpera, Bojchevski and Guennemann, "Predict then propagate: graph neural networks meet
    personalized PageRank", 2019.
    """

    def __init__(self, alpha: float, norm: str = "sym", solver: Solver | None = None) -> None:
        super().__init__()
        if not 0.0 < alpha <= 1.0:
            raise ValueError(f"PersonalizedPropagation: alpha must be in (0, 1], got {alpha}")
        check_option("PersonalizedPropagation", "norm", norm, NORMS)
        self.alpha = alpha
        self.norm = norm
        self.solver = Solver() if solver is None else solver
        self.stats: list[SolveStats] = []

    def forward(
        self,
        x: Tensor,  # [N, F]
        edge_index: Graph | Tensor,
        edge_weight: Tensor | None = None,  # [E]
    ) -> Tensor:  # [N, F]
        """Return the propagated features; the arguments are those of `Diffusion`."""
        graph, weight = _inputs(x, edge_index, edge_weight)
        tau = (1.0 - self.alpha) / self.alpha
        out, stats = solve_diffusion(graph, x, tau, weight, norm=self.norm, solver=self.solver)
        self.stats = [stats]
        return out

    def __repr__(self) -> str:
        """Return e.g. `PersonalizedPropagation(alpha=0.1, norm='sym')`."""
        return f"PersonalizedPropagation(alpha={self.alpha}, norm={self.norm!r})"


def _inputs(
    x: Tensor, edge_index: Graph | Tensor, edge_weight: Tensor | None
) -> tuple[Graph, Tensor | None]:
    graph = as_graph(edge_index, x.shape[0], x.shape[0])
    return graph, sparse_values(edge_index) if edge_weight is None else edge_weight


def _norm_over_ranks(graph: Graph) -> Any:
    """The root mean square over all rows of all ranks, so that they take the same steps."""

    def norm(x: Tensor) -> Tensor:
        square = x.detach().double().square().sum()
        sums = torch.stack([square, square.new_tensor(float(x.numel()))])
        if isinstance(graph, PartitionedGraph):
            sums = graph.sum_over_ranks(sums)
        return (sums[0] / sums[1].clamp(min=1.0)).sqrt().to(x.dtype)

    return norm
