import pytest
from ranks import TIMEOUT, Ranks

# What others of the same test show as well: the default run has a minute for all of them.
SLOW = (
    "test_layers_agree[3ranks",
    "test_layers_agree[1ranks-lopsided",
    "test_layers_agree[2ranks-lopsided",
    "test_layers_agree[4ranks-lopsided]",
    "test_the_answer_is_scipys[1ranks",
    "test_the_answer_is_scipys[3ranks",
    "test_the_answer_is_scipys[4ranks-gmres",
    "test_the_answer_is_scipys[4ranks-times",
    "test_the_answer_is_scipys[4ranks-plain",
    "test_an_exact_training_is_that_of_one_process[1ranks-lopsided",
    "test_an_exact_training_is_that_of_one_process[2ranks-lopsided",
    "test_an_exact_training_is_that_of_one_process[3ranks-metis",
    "test_an_exact_training_is_that_of_one_process[4ranks-metis-sage",
    "test_gradients_are_those_of_a_dense_solve[2ranks",
    "test_gradients_are_those_of_a_dense_solve[3ranks",
    "test_equals_the_emulation_in_one_process[1ranks",
    "test_equals_the_emulation_in_one_process[3ranks",
    "test_the_same_policy_on_all_links_is_that_policy[1ranks",
    "test_the_same_policy_on_all_links_is_that_policy[3ranks",
    "test_windows_take_the_noise_out[1ranks",
    "test_windows_take_the_noise_out[3ranks",
    "test_all_ranks_decide_alike[1ranks",
    "test_all_ranks_decide_alike[3ranks",
    "test_another_run_repeats_the_steps[1ranks",
    "test_another_run_repeats_the_steps[3ranks",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.name.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("dist"):
            # Ranks give up first, and say what they waited for.
            item.add_marker(pytest.mark.timeout(2 * TIMEOUT))


@pytest.fixture(scope="session")
def four_ranks():
    ranks = Ranks(4)
    yield ranks
    ranks.kill()


@pytest.fixture(scope="session")
def eight_ranks():
    ranks = Ranks(8)
    yield ranks
    ranks.kill()


@pytest.fixture(
    params=[1, 2, 3, 4, pytest.param(8, marks=pytest.mark.slow)], ids=lambda world: f"{world}ranks"
)
def run(request):
    """A function of (function, *arguments): its results on 1, 2, 3, 4 and 8 ranks."""
    world = request.param
    ranks = request.getfixturevalue("four_ranks" if world <= 4 else "eight_ranks")

    def on_ranks(function, *arguments):
        return ranks.run(function, *arguments, world=world)

    on_ranks.world = world
    return on_ranks
