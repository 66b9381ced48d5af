"""scatter_logsumexp: the same with rows in random order."""

from collections.abc import Callable

from bench.cases import Case, each_case


@each_case("scatter_logsumexp")
def test_scatter_logsumexp(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
