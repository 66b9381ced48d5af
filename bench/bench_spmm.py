"""spmm: sum, mean and maximum over in-neighbours, and the weighted sum with both gradients."""

from collections.abc import Callable

from bench.cases import Case, each_case


@each_case("spmm_sum", "spmm_weighted", "spmm_mean", "spmm_max")
def test_spmm(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
