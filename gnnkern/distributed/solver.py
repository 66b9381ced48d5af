"""`solve_diffusion`: (1 + tau) x - tau S x = b over all ranks, in few exchanges, differentiable."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gnnkern.distributed.graph import PartitionedGraph
from gnnkern.distributed.partition import Partition
from gnnkern.distributed.propagator import NORMS, check_square
from gnnkern.distributed.system import DiffusionSystem, Solver, SolveStats
from gnnkern.graph import Graph
from gnnkern.ops._checks import check_floats, check_option

__all__ = ["solve_diffusion"]


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
                time = tau.detach().requires_grad_()
                of_edges = None if weight is None else weight.detach().requires_grad_()
                image = ctx.system.image(x, time.to(x.dtype), of_edges)
            leaves = [leaf for place, leaf in enumerate((time, of_edges)) if place in needed]
            found = torch.autograd.grad(image, leaves, -adjoint)
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
    if isinstance(graph, PartitionedGraph) and graph.exchange is not graph.exact:
        raise ValueError("solve_diffusion: graph must exchange exact rows, got a multirate view")
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
