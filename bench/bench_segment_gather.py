"""segment_gather: rows repeated to the size of their segments."""

from collections.abc import Callable

from bench.cases import Case, each_case


@each_case("segment_gather")
def test_segment_gather(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
