"""sddmm: the dot product of both ends of every edge."""

from collections.abc import Callable

from bench.cases import Case, each_case


@each_case("sddmm_dot")
def test_sddmm(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
