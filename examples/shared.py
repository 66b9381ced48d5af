"""What the examples share: their option, a training loop with a clock, and a line of results."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Run(NamedTuple):
    """A training: the loss of every step, and what a step took."""

    losses: list[float]
    seconds: float

    def compared(self, what: str, other: Run) -> str:
        """A line of results: how long a step took in both, and how far the losses are apart."""
        first, last = (abs(self.losses[i] - other.losses[i]) for i in (0, -1))
        return (
            f"{what}: {1e3 * other.seconds:.1f} ms -> {1e3 * self.seconds:.1f} ms per step, "
            f"{other.seconds / self.seconds:.2f} times as fast; "
            f"the first losses differ by {first:.1e}, the last by {last:.1e}"
        )


def endless(loader: Iterable[Any]) -> Iterator[Any]:
    """The batches of a loader, epoch after epoch."""
    while True:
        yield from loader


def steps(full: int, quick: int, doc: str | None) -> int:
    """How many steps to train: `--quick` is for tests, and changes nothing else."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{quick} steps, not {full}")
    return quick if parser.parse_args().quick else full


def train(
    parameters: Iterable[torch.nn.Parameter], loss: Callable[[], Tensor], count: int, lr: float
) -> Run:
    """Minimise a loss with Adam; the time is the median, so that first calls do not count."""
    optimizer = torch.optim.Adam(parameters, lr=lr)
    losses, seconds = [], []
    for _ in range(count):
        start = time.perf_counter()
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
        losses.append(float(value.detach()))
    return Run(losses, statistics.median(seconds))
