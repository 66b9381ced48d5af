"""What the examples share: their option, digits, a training loop with a clock, and its line."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gnnkern.data import digits_graph


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


class Nodes(NamedTuple):
    """A graph whose nodes are to be classified, some of them known."""

    x: Tensor  # [N, F]
    y: Tensor  # [N]
    edge_index: Tensor  # [2, E]
    known: Tensor  # [N] which nodes' classes a model may see
    test: Tensor  # [N] which nodes it is judged by


def digits(k: int = 8, train_per_class: int = 10) -> Nodes:
    """Handwritten digits, each joined to those whose pixels are nearest; see `digits_graph`."""
    data = digits_graph(k=k, train_per_class=train_per_class)
    assert data.x is not None and data.y is not None
    assert data.train_mask is not None and data.test_mask is not None
    return Nodes(data.x, data.y, data.edge_index, data.train_mask[0], data.test_mask[0])


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
