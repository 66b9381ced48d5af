"""segment_reduce: a stream of rows, summed and compared."""

from collections.abc import Callable

from bench.cases import Case, each_case


@each_case("segment_sum", "segment_max")
def test_segment_reduce(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
