"""segment_softmax: over the rows of each segment, column by column."""

from collections.abc import Callable

from bench.cases import Case, each_case


@each_case("segment_softmax")
def test_segment_softmax(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
