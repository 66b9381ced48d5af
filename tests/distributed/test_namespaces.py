"""Ranks on two hosts that a slow link joins: as fast as planned, and the exchange is overlapped."""

import subprocess

import pytest

from bench import namespaces

REASON = namespaces.unavailable()
pytestmark = [
    pytest.mark.dist,
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
]


def names():
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    return [line.split()[0] for line in listed.stdout.splitlines() if "gnnkern" in line]


def test_namespaces_are_removed_after_a_failure(monkeypatch):
    before = names()
    with pytest.raises(RuntimeError, match="now"), namespaces.joined_namespaces(200) as hosts:
        assert set(names()) == {*before, *(name for name, _ in hosts)}
        shaped = ["tc", "-n", hosts[0][0], "qdisc", "show", "dev", hosts[0][1]]
        assert "tbf" in subprocess.run(shaped, capture_output=True, text=True, check=True).stdout
        raise RuntimeError("now")
    assert names() == before
    # And where one cannot be made to its end.
    monkeypatch.setattr(namespaces, "BUCKET", ("burst", "none"))
    with pytest.raises(OSError, match="burst none"), namespaces.joined_namespaces(200):
        pass
    assert names() == before
    with pytest.raises(ValueError, match="mbit must be > 0, got -1"):
        namespaces.joined_namespaces(-1).__enter__()


@pytest.mark.slow
def test_periods_by_link_are_faster_as_planned():
    graph = namespaces.communities(20_000, 200_000, 200, 0.9)
    result = namespaces.measure(graph, mbit=100, period="host:2,network:8", steps=1)
    assert not [name for name in names() if name.startswith(f"gnnkern-{namespaces.os.getpid()}")]
    assert result["events"] == {
        "forward": [
            "start exchange",
            "interior",
            "interior computed",
            "end exchange",
            "boundary",
            "boundary computed",
        ],
        "backward": [
            "gradient of boundary",
            "start gradient",
            "gradient of interior",
            "end gradient",
        ],
    }
    # The bench has the figures of a quiet machine: at least 2, and within a quarter.
    assert result["speedup"]["measured"] > 1.5
    for kind in ("exact", "with_period"):
        assert 0.5 < result[kind]["predicted_over_measured"] < 2.0, (kind, result[kind])
