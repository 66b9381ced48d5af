"""spmm: sum, mean and maximum over in-neighbours, with weights and with a row per edge."""

from collections.abc import Callable

from bench.cases import Case, each_case


@each_case(
    "spmm_sum",
    "spmm_weighted",
    "spmm_mean",
    "spmm_max",
    "spmm_edges",
    "spmm_edge_rows",
    "spmm_add_max",
)
def test_spmm(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
