"""What a rank needs in memory, beside one process with the same graph."""

import shutil

import pytest
import rank_memory
from forked import Forked

pytestmark = pytest.mark.dist

MOST = 0.4


@pytest.mark.parametrize(
    ("num_nodes", "num_edges"),
    [(40_000, 1_200_000), pytest.param(200_000, 2_000_000, marks=pytest.mark.slow)],
    ids=["many edges", "many rows"],
)
def test_a_rank_of_four_needs_at_most_two_fifths_of_one_process(tmp_path, num_nodes, num_edges):
    """Of resident memory that reading, a forward and a backward add at their peak."""
    replicas = rank_memory.write_parts(tmp_path / "whole", num_nodes, num_edges, 4)
    rank_memory.write_parts(tmp_path / "tiny", 400, 4000, 4)
    added = {}
    for ranks, read in ((1, rank_memory.read_whole), (4, rank_memory.read_part)):
        folder = tmp_path / "whole" / str(ranks)
        shutil.move(tmp_path / "tiny" / str(ranks), folder.parent / "warm")
        with Forked(None if ranks == 1 else ranks, rank_memory.added_by, folder, read) as forked:
            added[ranks] = max(forked.values())
        shutil.rmtree(folder.parent / "warm")
    ratio = added[4] / added[1]
    print(
        f"{num_nodes} nodes, {num_edges} edges, {replicas:.2f} ghosts per node: a rank of four "
        f"adds {added[4] / 2**20:.1f} MiB, one process {added[1] / 2**20:.1f}: {ratio:.3f}"
    )
    assert ratio <= MOST
