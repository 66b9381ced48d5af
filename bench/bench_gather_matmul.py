"""gather_matmul: rows times the matrix of their type, few types and many."""

from collections.abc import Callable

from bench.cases import Case, each_case


@each_case("gather_matmul_8", "gather_matmul_2000")
def test_gather_matmul(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
