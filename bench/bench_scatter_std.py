"""scatter_std: rows in random order to the standard deviation of their group."""

from collections.abc import Callable

from bench.cases import Case, each_case


@each_case("scatter_std")
def test_scatter_std(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
