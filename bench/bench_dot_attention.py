"""dot_attention: the op on its own, and in the layer beside PyG's layer."""

from collections.abc import Callable

from bench.cases import Case, each_case


@each_case("dot_attention", "transformer_layer")
def test_dot_attention(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
