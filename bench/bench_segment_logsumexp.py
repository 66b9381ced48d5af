"""segment_logsumexp: rows of a segment to the log of the sum of their exponentials."""

from collections.abc import Callable

from bench.cases import Case, each_case


@each_case("segment_logsumexp")
def test_segment_logsumexp(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
