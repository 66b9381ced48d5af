"""edge_softmax: with 1 head and with 4."""

from collections.abc import Callable

from bench.cases import Case, each_case


@each_case("edge_softmax", widths=(1, 4))
def test_edge_softmax(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
