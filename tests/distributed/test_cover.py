"""Vertex covers: none is smaller, and sums under them are the sums."""

import itertools

import pytest
import rank_cover
import rank_multirate
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rank_checks import normal, parts_of, whole_graph

from gnnkern.distributed import cut, partition, save_parts, with_covered_rows
from gnnkern.distributed.vertex_cover import minimum_vertex_cover

on_ranks = pytest.mark.dist
each_division = pytest.mark.parametrize("how", ["random", "lopsided"])


def smallest(edges, num_left, num_right):
    """The size of a minimum vertex cover, by trying all sets."""
    vertices = [("left", k) for k in range(num_left)] + [("right", k) for k in range(num_right)]
    for size in range(len(vertices) + 1):
        for chosen in map(set, itertools.combinations(vertices, size)):
            if all(("left", u) in chosen or ("right", v) in chosen for u, v in edges):
                return size
    raise AssertionError("all vertices are a cover")


def covered(edges, num_left, num_right):
    left, right = torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).unbind(1)
    in_left, in_right = minimum_vertex_cover(left, right, num_left, num_right)
    assert in_left.shape == (num_left,) and in_right.shape == (num_right,)
    assert bool((in_left[left] | in_right[right]).all()), "an edge is not served"
    return int(in_left.sum() + in_right.sum())


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.data())
def test_no_cover_is_smaller(num_left, num_right, data):
    ends = st.tuples(st.integers(0, num_left - 1), st.integers(0, num_right - 1))
    edges = data.draw(st.lists(ends, max_size=15))
    assert covered(edges, num_left, num_right) == smallest(edges, num_left, num_right)


@pytest.mark.parametrize(
    ("edges", "num_left", "num_right", "size"),
    [
        ([], 3, 0, 0),
        ([], 0, 0, 0),
        ([(0, k) for k in range(50)], 1, 50, 1),
        ([(k, 0) for k in range(50)], 50, 1, 1),
        ([(u, v) for u in range(9) for v in range(4)], 9, 4, 4),
        # A path of many alternations, begun at an end that nothing is matched to.
        ([(k, k) for k in range(300)] + [(k + 1, k) for k in range(300)], 301, 300, 300),
    ],
    ids=["no edges", "nothing", "star out", "star in", "complete", "path"],
)
def test_covers_that_are_known(edges, num_left, num_right, size):
    assert covered(edges, num_left, num_right) == size


@pytest.mark.parametrize("name", ["communities", "few", "star_in", "no_edges", "isolated_ends"])
def test_the_report_is_that_of_each_pair_alone(name):
    graph = whole_graph(name)
    made = with_covered_rows(graph, parts_of(graph, 3, "random"))
    part = made.part.tolist()
    by_pair = {}
    for u, v in zip(*graph.edge_index.tolist(), strict=True):
        if part[u] != part[v]:
            by_pair.setdefault((part[u], part[v]), []).append((u, v))
    total = sum(covered(edges, graph.num_dst, graph.num_dst) for edges in by_pair.values())
    assert sum(made.quality.cover.values()) == total
    rows = sum(made.quality.ghosts.values())
    assert total <= rows
    assert made.quality.saved == pytest.approx(1 - total / max(rows, 1))
    assert made.quality.to_dict()["cover"] == made.quality.cover


@on_ranks
@pytest.mark.parametrize(
    ("run", "how"),
    [(1, "random"), (2, "random"), (4, "random"), (3, "lopsided")],
    indirect=["run"],
)
def test_sums_agree(run, how):
    spared = run(rank_cover.sums_agree, how)[0]
    assert spared > 0 or run.world == 1 or how == "lopsided"


@on_ranks
@pytest.mark.parametrize("run", [3], indirect=True)
@each_division
def test_layers_agree(run, how):
    run(rank_cover.layers_agree, how)


@on_ranks
def test_rows_are_counted(run):
    rows, plain = run(rank_cover.rows_are_counted)[0]
    assert rows < plain or run.world == 1


@on_ranks
@pytest.mark.parametrize("run", [3], indirect=True)
def test_what_stays_travels_once(run):
    run(rank_cover.what_stays_travels_once)


@on_ranks
@pytest.mark.parametrize("run", [4], indirect=True)
def test_windows_are_those_of_rows(run):
    run(rank_cover.windows_are_those_of_rows)


@on_ranks
@pytest.mark.parametrize("run", [4], indirect=True)
@pytest.mark.parametrize("wires", [(None,), ("int8", "bfloat16")], ids=["exact", "rounded"])
def test_the_bound_is_never_below_the_error(run, wires):
    worst = run(rank_multirate.bound_holds, 15, wires, True)[0]
    assert worst > 0.1


@on_ranks
@pytest.mark.parametrize("run", [2], indirect=True)
def test_a_part_from_the_disk_has_a_cover(run, tmp_path):
    graph = whole_graph("communities")
    parts = partition(graph, run.world, "random")
    rows = {"x": normal(graph.num_dst, 5)}
    save_parts(tmp_path, cut(graph, parts), parts, node_tensors=rows)
    run(rank_cover.part_from_disk, str(tmp_path))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "scipy.sparse", None)
    with pytest.raises(ImportError, match="a vertex cover needs scipy: pip install"):
        covered([(0, 0)], 1, 1)
