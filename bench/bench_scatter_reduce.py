"""scatter_reduce: rows in random order, summed and compared by index."""

from collections.abc import Callable

from bench.cases import Case, each_case


@each_case("scatter_sum", "scatter_max")
def test_scatter_reduce(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
