"""What exactness and multirate propagation are worth: on a real graph, and among communities."""

from pathlib import Path

import pytest
import rank_real_size

pytestmark = [pytest.mark.dist, pytest.mark.slow]

TOLOKERS = Path(__file__).parents[3] / "shared" / "data" / "tolokers.npz"
needs_tolokers = pytest.mark.skipif(not TOLOKERS.is_file(), reason=f"{TOLOKERS} is not here")


@needs_tolokers
def test_propagation_over_tolokers_is_bit_for_bit(four_ranks):
    four_ranks.run(rank_real_size.propagates_bitwise, str(TOLOKERS))


@needs_tolokers
@pytest.mark.parametrize("model", ["gcn", "sage", "gat"])
def test_losses_on_tolokers_are_those_of_one_process(four_ranks, model):
    epochs = 50
    expected = rank_real_size.losses(None, 1, str(TOLOKERS), model, epochs)
    for losses in four_ranks.run(rank_real_size.losses, 4, str(TOLOKERS), model, epochs):
        assert losses == pytest.approx(expected, rel=1e-5)


def test_one_exchange_in_ten_costs_less_than_eulers_own_error(eight_ranks):
    found = eight_ranks.run(rank_real_size.diffusion_errors)[0]
    assert found["linear"] < found["euler"], found
    assert found["linear"] < found["hold"] < found["ten times the step"], found
    for predictor in ("hold", "linear"):
        assert found[predictor + " largest"] <= found[predictor + " bound"], found
    # A tenth of the exchanges.
    assert found["exchanges"] * 10 == found["exact exchanges"]
