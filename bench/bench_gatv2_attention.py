"""gatv2_attention: the op on its own, and in the layer beside PyG's layer."""

from collections.abc import Callable

from bench.cases import Case, each_case


@each_case("gatv2_attention", "gatv2_layer")
def test_gatv2_attention(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
