"""The bench of trainings on ranks: its summary and its words. Trainings: tests/distributed."""

import pytest

from bench.partitioned_training import communities, main, summarise, table


def test_policies_beside_exact():
    scores = {"exact": (0.80, 0.82), "hold:4": (0.79, 0.79)}
    sent = {"exact": 1000, "hold:4": 300}
    runs = [
        {"policy": policy, "test": test, "bytes": sent[policy]}
        for policy, tests in scores.items()
        for test in tests
    ]
    exact, hold = summarise(runs)
    assert exact["standard_error"] == pytest.approx(0.01)
    assert (hold["bytes_of_exact"], hold["standard_error"]) == (0.3, 0.0)
    assert hold["points_from_exact"] == pytest.approx(-2.0)
    lines = table([{"graph": "ring", "metric": "accuracy", "rows": [exact, hold]}])
    assert lines[-1] == "| ring | accuracy | hold:4 | 79.00 ± 0.00 | -2.00 | 0.0 | 0.30 |"
    # Without exact there is nothing beside it.
    (alone,) = summarise(runs[2:])
    assert alone["bytes_of_exact"] is None


def test_classes_are_those_of_communities():
    data = communities(2_000, 20_000, 100)
    src, dst = data.edge_index
    assert float((data.y[src] == data.y[dst]).float().mean()) > 0.7
    # Every edge in both directions.
    both = data.edge_index.flip(0).T.tolist()
    assert sorted(data.edge_index.T.tolist()) == sorted(both)
    assert int(data.train_mask.sum()) == pytest.approx(200, abs=60)


@pytest.mark.parametrize("text", ["hold", "exact@fp4"])
def test_what_is_wrong_is_said_at_once(text):
    with pytest.raises(ValueError, match=r"policy: must be|wire: rows must be"):
        main(["--policy", text])
