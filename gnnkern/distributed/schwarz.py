"""`Schwarz`: directions for a Krylov iteration: sweeps inside blocks, then a coarse correction."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gnnkern.distributed.blocks import Blocks
from gnnkern.distributed.coarse import CoarseSpace

__all__ = ["Schwarz", "default_sweeps"]

# Between fewer, an exchange is hardly worth its price; more leave an exact block solve exact.
_LEAST_SWEEPS, _MOST_SWEEPS = 4, 32


def default_sweeps(tau: float, symmetric: bool) -> int:
    """Sweeps for each exchange.

    The condition of a block is 1 + 2 tau, and Chebyshev's sweeps reduce its error by a factor in
    about the square root of that. Jacobi's need a number in proportion to tau to do as much, and
    eight of them do what sweeps are for: errors inside the neighbourhood of a node.
    """
    if not symmetric:
        return 8
    return min(max(math.ceil(math.sqrt(1 + 2 * tau)), _LEAST_SWEEPS), _MOST_SWEEPS)


class Schwarz:
    """A = (1 + tau) I - tau S, and a cheap inverse of it that is good enough for a direction.

    Each block solves its own equations by itself, nearly, as if its neighbours' errors were zero
    (additive Schwarz, without overlap). Then the coarse space corrects what this leaves. A times
    the direction needs one exchange: that of the sweeps' result, since the image of the coarse
    correction is known without.

    Args:
        blocks: S.
        tau: [1] or [F], not negative.
        sweeps: Of each block; 0: none, the direction is r / (1 + tau).
        coarse: The coarse space, or None.
        chebyshev: Chebyshev's sweeps, for symmetric A; else Jacobi's.
        metric: [n] the inner product in which A is self-adjoint.
        scale: [n, 1] what a residual is multiplied with before it is measured, or None.
    """

    def __init__(
        self,
        blocks: Blocks,
        tau: Tensor,
        sweeps: int,
        coarse: CoarseSpace | None,
        chebyshev: bool,
        metric: Tensor,
        scale: Tensor | None = None,
    ) -> None:
        self._blocks = blocks
        self._tau = tau
        self.sweeps = sweeps
        self._chebyshev = chebyshev
        self._coarse = None if coarse is None else coarse.factor(tau)
        self.num_coarse = 0 if coarse is None else coarse.size
        self.metric = metric
        self._scale = scale

    def apply(self, x: Tensor) -> Tensor:  # [n, F] -> [n, F]
        """A x: an exchange."""
        return (1 + self._tau) * x - self._tau * self._blocks.propagate(x)

    def start(self, x: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """An iterate and its residual with the coarse part corrected, without an exchange.

        Behind it, and behind each direction, the residual has no coarse part left, on which the
        symmetry of the preconditioner rests.
        """
        if self._coarse is None:
            return x, r
        z, image = self._coarse.correct(r)
        return x + z, r - image

    def direction(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """An approximate error z, and A z."""
        z = self._inside(residual)
        image = self.apply(z)
        if self._coarse is None:
            return z, image
        more, more_image = self._coarse.correct(residual - image)
        return z + more, image + more_image

    def dots(self, *pairs: tuple[Tensor, Tensor]) -> list[Tensor]:
        """Products of tensors [n, F], summed over all rows of all processes: float64 [F] each."""
        sums = torch.stack([(a * b).sum(0, dtype=torch.float64) for a, b in pairs])
        return list(self._blocks.sum(sums))

    def square(self, residual: Tensor) -> Tensor:  # [n, F] -> float64 [F]
        """Its sum of squares, as it is measured."""
        measured = residual if self._scale is None else self._scale * residual
        return self.dots((measured, measured))[0]

    def _inside(self, r: Tensor) -> Tensor:
        """An approximate solution inside the blocks."""
        z = r / (1 + self._tau)
        if self.sweeps < 2:
            return z
        return self._by_chebyshev(r, z) if self._chebyshev else self._by_jacobi(r, z)

    def _by_jacobi(self, r: Tensor, z: Tensor) -> Tensor:
        for _ in range(self.sweeps - 1):
            z = (r + self._tau * self._blocks.within(z)) / (1 + self._tau)
        return z

    def _by_chebyshev(self, r: Tensor, z: Tensor) -> Tensor:
        """Chebyshev's iteration for eigenvalues of A between 1 and 1 + 2 tau.

        Source: Saad, "Iterative methods for sparse linear systems", 2003, algorithm 12.1.
        """
        centre = 1 + self._tau
        # With tau = 0 A is the identity, which any interval around 1 serves.
        radius = torch.maximum(self._tau, 1e-3 * centre)
        ratio = centre / radius
        rho, d = 1 / ratio, z
        for _ in range(self.sweeps - 1):
            rest = r - (centre * z - self._tau * self._blocks.within(z))
            rho_next = 1 / (2 * ratio - rho)
            d = rho_next * rho * d + (2 * rho_next / radius) * rest
            z, rho = z + d, rho_next
        return z
