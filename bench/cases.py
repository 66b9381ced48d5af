"""The cases of a bench: kind x width x implementation or peer x direction."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from gnnkern.bench.graphs import bench_graph
from gnnkern.bench.harness import Contender, contenders
from gnnkern.bench.problems import make_problem

WIDTHS = (64, 128)


class Case(NamedTuple):
    """One thing to check and time."""

    kind: str
    width: int
    contender: Contender
    direction: str


def each_case(*kinds: str, widths: tuple[int, ...] = WIDTHS) -> pytest.MarkDecorator:
    """Run a bench with `case` = every implementation and peer of these kinds of problems."""
    cases = []
    for kind in kinds:
        # The smallest problem of its kind tells its op and its directions.
        sample = make_problem(kind, bench_graph("tiny"), 4)
        cases += [
            Case(kind, width, contender, direction)
            for width in widths
            for contender in contenders(sample.op, sample.reduce, backend="all")
            for direction in sample.directions
        ]
    return pytest.mark.parametrize("case", cases, ids=_name)


def _name(case: Case) -> str:
    words = (case.kind, str(case.width), case.contender.name, case.direction)
    return "-".join(words).replace(" + ", "+").replace(" ", "_")
