"""When something breaks: who is named, and that everybody ends."""

import signal
import time

import pytest
import rank_faults
from forked import Forked
from ranks import RankError

from gnnkern.cli import main

pytestmark = pytest.mark.dist

TIMEOUT = 2.0


@pytest.mark.parametrize(
    ("victim", "number"),
    [
        pytest.param(0, signal.SIGKILL, id="0-killed", marks=pytest.mark.slow),
        pytest.param(2, signal.SIGKILL, id="2-killed"),
        pytest.param(0, signal.SIGSTOP, id="0-stopped"),
        pytest.param(2, signal.SIGSTOP, id="2-stopped", marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_is_gone_is_named(victim, number):
    begin = time.monotonic()
    with Forked(3, rank_faults.train_until, victim, number, 3, 2, timeout=TIMEOUT) as ranks:
        answers = ranks.answers()
    seconds = time.monotonic() - begin
    assert answers[victim] is None
    for rank in {0, 1, 2} - {victim}:
        error = answers[rank]
        assert isinstance(error, RankError) and error.kind == "RankLost", error
        assert f"rank {rank}: exchange 2 of step 3 did not end; waited" in error.message
        assert f"Rank {victim} gives no sign of life; its last: it " in error.message
        assert f"rows of ranks {', '.join(str(each) for each in range(3) if each != rank)}. " in (
            error.message
        )
    # A group of three has no more than a timeout to lose; the rest is starting them.
    assert seconds < TIMEOUT + 20


@pytest.mark.parametrize(
    "culprit", [1, *(pytest.param(rank, marks=pytest.mark.slow) for rank in (0, 2))]
)
def test_the_rank_whose_features_are_no_numbers_is_named(culprit):
    """And not those that its rows infected."""
    with Forked(3, rank_faults.bad_features, culprit) as ranks:
        for answer in ranks.answers():
            assert isinstance(answer, RankError) and answer.kind == "NotFinite", answer
            assert f"the features of rank {culprit} are not finite, in step 1" in answer.message


def test_a_torn_part_ends_all_ranks(tmp_path):
    assert main(["partition", "--parts", "3", "--out", str(tmp_path)]) == 0
    part = tmp_path / "part-00001.safetensors"
    part.write_bytes(part.read_bytes()[:-5])
    arguments = ["train", "--parts", "3", "--data", str(tmp_path), "--quiet"]
    with Forked(3, rank_faults.command, arguments) as ranks:
        for rank, (code, said) in enumerate(ranks.values()):
            assert code == 2 and "the file is torn" in said
            assert ("Rank 1 left with ValueError" in said) == (rank != 1), said
