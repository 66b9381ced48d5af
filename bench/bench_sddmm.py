"""sddmm: the dot product of both ends of every edge, by heads too, and their sum."""

from collections.abc import Callable

from bench.cases import Case, each_case


@each_case("sddmm_dot", "sddmm_heads", "sddmm_add")
def test_sddmm(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
