"""Iterations that solve A x = b from directions z and their images A z, whoever makes these."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

__all__ = ["ITERATIONS", "Stopping", "System"]


class System(Protocol):
    """What an iteration asks. Every call is made by all processes together."""

    metric: Tensor  # [n], positive: A is self-adjoint in sum metric * u * v, where it is in any

    def direction(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Where to go from a residual [n, F], nearly its error, and A times that."""
        ...

    def square(self, residual: Tensor) -> Tensor:
        """Sums of squares of residuals [n, F], as they are measured: float64 [F]."""
        ...

    def dots(self, *pairs: tuple[Tensor, Tensor]) -> list[Tensor]:
        """Products of tensors [n, F], summed over all rows of all processes: float64 [F] each."""
        ...


class Stopping:
    """When to stop: a residual per column, seen alike by all processes.

    Attributes:
        history: float64 [F] residuals relative to b, the first before the first step.
    """

    def __init__(self, scale: Tensor, tol: float, max_iter: int) -> None:
        # A column of zeros is solved by zeros: its residual is 0 then.
        self._scale = torch.where(scale > 0, scale, 1.0)  # [F]
        self.tol, self.max_iter = tol, max_iter
        self.history: list[Tensor] = []
        self.iterations = 0

    def relative(self, square: Tensor) -> Tensor:  # [F] -> [F]
        """The residual relative to b, from the sum of its squares."""
        return square.clamp(min=0.0).sqrt() / self._scale

    def see(self, relative: Tensor) -> bool:
        """Note the residuals; whether to stop: all small, one not finite, or the last step."""
        self.history.append(relative)
        finite = bool(torch.isfinite(relative).all())
        return not finite or bool((relative <= self.tol).all()) or self.at_end

    @property
    def at_end(self) -> bool:
        """Whether the steps are used up."""
        return self.iterations >= self.max_iter

    @property
    def active(self) -> Tensor:  # bool [F]
        """Columns that go on."""
        return self.history[-1] > self.tol


def stationary(system: System, x: Tensor, r: Tensor, stop: Stopping) -> tuple[Tensor, Tensor]:
    """Go on by x <- x + z, as the direction says: Jacobi's iteration, or Schwarz's by itself."""
    while True:
        z, image = system.direction(r)
        x, r = x + z, r - image
        stop.iterations += 1
        if stop.see(stop.relative(system.square(r))):
            return x, r


def conjugate_gradients(
    system: System, x: Tensor, r: Tensor, stop: Stopping
) -> tuple[Tensor, Tensor]:
    """Flexible conjugate gradients in the system's metric, for every column by itself.

    Each direction is made conjugate to the last one explicitly, so that a preconditioner which is
    symmetric only in exact arithmetic, or only on the residuals that occur, will do.
    """
    metric = system.metric.unsqueeze(1)  # [n, 1]
    p, image_p = torch.zeros_like(r), torch.zeros_like(r)
    curvature = torch.zeros(r.shape[1], dtype=torch.float64, device=r.device)
    while True:
        z, image = system.direction(r)
        weighted = metric * z
        slope, along, fresh = system.dots((weighted, r), (weighted, image_p), (weighted, image))
        share = _ratio(along, curvature)  # [F]
        curvature = fresh - along * share
        p, image_p = z - share.to(z) * p, image - share.to(z) * image_p
        step = torch.where(stop.active, _ratio(slope, curvature), 0.0).to(x)  # [F]
        x, r = x + step * p, r - step * image_p
        stop.iterations += 1
        if stop.see(stop.relative(system.square(r))):
            return x, r


def flexible_gmres(
    system: System, x: Tensor, r: Tensor, stop: Stopping, restart: int = 30
) -> tuple[Tensor, Tensor]:
    """Flexible GMRES, for every column by itself; for any A.

    Memory: 2 `restart` tensors [n, F].
    Source: Saad, "A flexible inner-outer preconditioned GMRES algorithm", SIAM Journal on
    Scientific Computing, 1993.
    """
    while True:
        cycle = _Cycle(system, r, restart)
        done = False
        while not done and len(cycle.directions) < restart:
            residual = cycle.step()
            stop.iterations += 1
            done = stop.see(stop.relative(residual.square()))
        x, r = cycle.finish(x)
        if done:
            return x, r


class _Cycle:
    """The steps of GMRES between two restarts."""

    def __init__(self, system: System, r: Tensor, restart: int) -> None:
        self._system = system
        size = system.dots((r, r))[0].sqrt()  # [F]
        self._basis = [_scaled(r, size)]
        self.directions: list[Tensor] = []
        # The images of the directions in the basis, and what rotations make of them: triangular.
        self._hessenberg = size.new_zeros(len(size), restart + 1, restart)
        self._triangle = torch.zeros_like(self._hessenberg)
        self._size = size
        self._target = size.new_zeros(len(size), restart + 1)
        self._target[:, 0] = size
        self._rotations: list[tuple[Tensor, Tensor]] = []

    def step(self) -> Tensor:  # float64 [F]
        """One more direction; the residual that it leaves."""
        k = len(self.directions)
        z, w = self._system.direction(self._basis[k])
        self.directions.append(z)
        column = torch.zeros_like(self._target)
        # The second time removes what rounding left of the first.
        for _ in range(2):
            *shares, square = self._system.dots(*((v, w) for v in self._basis), (w, w))
            for j, (share, v) in enumerate(zip(shares, self._basis, strict=True)):
                column[:, j] += share
                w = w - share.to(w) * v
            square = square - torch.stack(shares).square().sum(0)
        rest = square.clamp(min=0.0).sqrt()
        rest = torch.where(rest > torch.finfo(w.dtype).eps * column.norm(dim=1), rest, 0.0)
        column[:, k + 1] = rest
        self._basis.append(_scaled(w, rest))
        self._hessenberg[:, :, k] = column
        self._triangle[:, :, k] = self._rotated(column, k)
        return self._target[:, k + 1].abs()

    def _rotated(self, column: Tensor, k: int) -> Tensor:  # [F, restart + 1]
        column = column.clone()
        for j, (cosine, sine) in enumerate(self._rotations):
            upper, lower = column[:, j].clone(), column[:, j + 1].clone()
            column[:, j] = cosine * upper + sine * lower
            column[:, j + 1] = cosine * lower - sine * upper
        length = torch.hypot(column[:, k], column[:, k + 1])
        # A direction that adds nothing leaves the residual as it is.
        cosine = torch.where(length > 0, column[:, k] / length, 0.0)
        sine = torch.where(length > 0, column[:, k + 1] / length, 1.0)
        self._rotations.append((cosine, sine))
        column[:, k], column[:, k + 1] = length, 0.0
        self._target[:, k + 1] = -sine * self._target[:, k]
        self._target[:, k] *= cosine
        return column

    def finish(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The iterate and its residual."""
        steps = len(self.directions)
        upper = self._triangle[:, :steps, :steps].clone()
        diagonal = upper.diagonal(dim1=1, dim2=2)
        diagonal[diagonal == 0] = 1.0
        y = torch.linalg.solve_triangular(
            upper, self._target[:, :steps].unsqueeze(2), upper=True
        )  # [F, steps, 1]
        left = -(self._hessenberg[:, : steps + 1, :steps] @ y).squeeze(2)  # [F, steps + 1]
        left[:, 0] += self._size
        for j, z in enumerate(self.directions):
            x = x + y[:, j, 0].to(x) * z
        r = torch.zeros_like(x)
        for j, v in enumerate(self._basis):
            r = r + left[:, j].to(x) * v
        return x, r


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """The quotient, and 0 where b is not positive."""
    return torch.where(b > 0, a / b, 0.0)


def _scaled(x: Tensor, size: Tensor) -> Tensor:  # [n, F], [F]
    return x * _ratio(torch.ones_like(size), size).to(x)


ITERATIONS = {
    "cg": conjugate_gradients,
    "gmres": flexible_gmres,
    "stationary": stationary,
}
