import pytest
from ranks import TIMEOUT, Ranks


def pytest_collection_modifyitems(items):
    for item in items:
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
