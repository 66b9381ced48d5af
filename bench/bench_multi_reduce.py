"""multi_reduce: the mean, minimum, maximum and standard deviation of a PNA layer."""

from collections.abc import Callable

from bench.cases import Case, each_case


@each_case("multi_reduce_pna")
def test_multi_reduce(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
