"""segment_matmul: rows times the matrix of their segment, few segments and many."""

from collections.abc import Callable

from bench.cases import Case, each_case


@each_case("segment_matmul_8", "segment_matmul_2000")
def test_segment_matmul(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
