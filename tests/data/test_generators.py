"""Generators give exactly what is asked for, and the same for the same seed."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnnkern.data import grid, hub, power_law, rmat, star, uniform
from gnnkern.data.generators import _rank_exponent


def in_degree(data):
    return np.bincount(data.edge_index[1].numpy(), minlength=data.num_dst)


def out_degree(data):
    return np.bincount(data.edge_index[0].numpy(), minlength=data.num_nodes)


@st.composite
def power_law_sizes(draw):
    nodes = draw(st.integers(1, 300))
    largest = draw(st.integers(1, 200))
    return nodes, draw(st.integers(largest, min(nodes * largest, 5000))), largest


@given(sizes=power_law_sizes(), shuffle=st.booleans(), seed=st.integers(0, 5))
def test_power_law_sizes_are_exact(sizes, shuffle, seed):
    nodes, edges, largest = sizes
    data = power_law(nodes, edges, largest, shuffle=shuffle, seed=seed)
    assert (data.num_nodes, data.num_edges) == (nodes, edges)
    assert in_degree(data).max() == largest


@given(
    sizes=power_law_sizes(),
    fraction=st.floats(0.001, 1.0),
    communities=st.integers(2, 20),
)
def test_power_law_community_fraction_is_exact(sizes, fraction, communities):
    nodes, edges, largest = sizes
    if communities > nodes:
        return
    data = power_law(nodes, edges, largest, fraction, communities)
    assert in_degree(data).max() == largest
    starts = np.arange(1, communities) * nodes // communities
    src, dst = np.searchsorted(starts, data.edge_index.numpy(), side="right")
    assert abs((src == dst).sum() - fraction * edges) <= 0.5 + 1e-9


def test_power_law_is_one():
    data = power_law(20_000, 200_000, 4_000)
    degree = np.sort(in_degree(data))[::-1]
    exponent = _rank_exponent(20_000, 200_000, 4_000)
    expected = 4_000.0 * np.arange(1, 20_001) ** -exponent
    assert np.abs(degree - expected).max() <= 1
    assert data.edge_index[1].diff().min() >= 0
    # Sources are skewed as well: the top percent of them has far more than a percent of the edges.
    out = np.sort(out_degree(data))[::-1]
    assert out[:200].sum() > 0.15 * 200_000
    assert out[0] > 1_000


def test_power_law_destinations_and_sources_are_ranked_apart():
    data = power_law(2_000, 40_000, 1_000)
    assert abs(np.corrcoef(in_degree(data), out_degree(data))[0, 1]) < 0.2


def test_power_law_locality_goes_away_with_shuffle():
    near = power_law(10_000, 100_000, 500, 0.9, 100)
    far = power_law(10_000, 100_000, 500, 0.9, 100, shuffle=True)
    distance = [
        float((d.edge_index[0] - d.edge_index[1]).abs().float().median()) for d in (near, far)
    ]
    assert distance[0] < 100 and distance[1] > 1_000
    assert np.array_equal(np.sort(in_degree(near)), np.sort(in_degree(far)))
    assert np.array_equal(np.sort(out_degree(near)), np.sort(out_degree(far)))


@pytest.mark.parametrize("nodes", [2_000, 1_000_000])
def test_rank_exponent_meets_the_sum(nodes):
    for edges, largest in ((3 * nodes, 1_000), (nodes, 900), (100 * nodes, 1_500)):
        ranks = np.arange(1, nodes + 1, dtype=np.float64)
        total = (largest * ranks ** -_rank_exponent(nodes, edges, largest)).sum()
        assert total == pytest.approx(edges, rel=1e-6)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda **o: power_law(500, 5_000, 100, **o),
        lambda **o: power_law(500, 5_000, 100, 0.7, **o),
        lambda **o: rmat(500, 5_000, **o),
    ],
)
def test_seed_decides_all(make, shuffle):
    first, again = make(seed=3, shuffle=shuffle), make(seed=3, shuffle=shuffle)
    assert first.edge_index.equal(again.edge_index)
    assert not first.edge_index.equal(make(seed=4, shuffle=shuffle).edge_index)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((10, 5, 6), ValueError, r"num_edges must be from max_degree=6 to .*=60, got 5"),
        ((10, 61, 6), ValueError, "=60, got 61"),
        ((10, 20, -1), ValueError, "max_degree must be at least 0, got -1"),
        ((10.0, 20, 3), TypeError, "num_nodes must be an int, got float"),
        ((10, 20, 3, 1.5), ValueError, "community_fraction must be from 0 to 1, got 1.5"),
        ((10, 20, 3, 0.5, 1), ValueError, "num_communities must be from 2 to num_nodes=10, got 1"),
        ((10, 20, 3, 0.5, 11), ValueError, "got 11"),
    ],
)
def test_power_law_rejects(arguments, error, message):
    with pytest.raises(error, match=message):
        power_law(*arguments)


def test_power_law_of_nothing():
    assert power_law(0, 0, 0).num_edges == 0
    assert power_law(5, 0, 0, 0.5).num_edges == 0
    assert power_law(1, 7, 7, 1.0, 1).edge_index.tolist() == [[0] * 7, [0] * 7]


@given(nodes=st.integers(1, 300), edges=st.integers(0, 2000), seed=st.integers(0, 3))
def test_rmat_sizes(nodes, edges, seed):
    data = rmat(nodes, edges, seed=seed)
    assert (data.num_nodes, data.num_edges) == (nodes, edges)


def test_rmat_quadrants():
    src, dst = rmat(1 << 10, 200_000, 0.5, 0.3, 0.15).edge_index.numpy() >= 1 << 9
    shares = [(~src & ~dst).mean(), (~src & dst).mean(), (src & ~dst).mean(), (src & dst).mean()]
    assert shares == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.005)


def test_rmat_is_skewed_and_shuffle_hides_where():
    data, hidden = rmat(4_000, 100_000), rmat(4_000, 100_000, shuffle=True)
    assert in_degree(data).max() > 20 * in_degree(data).mean()
    assert in_degree(data)[:2_000].sum() > 60_000
    assert in_degree(hidden)[:2_000].sum() == pytest.approx(50_000, rel=0.2)


def test_rmat_rejects():
    with pytest.raises(ValueError, match="got a=0.7, b=0.3, c=0.2"):
        rmat(4, 4, 0.7, 0.3, 0.2)
    with pytest.raises(ValueError, match="a must be above 0"):
        rmat(4, 4, 0.0, 0.5, 0.5)
    with pytest.raises(ValueError, match="4 edges need at least one node at each end"):
        rmat(0, 4)


def test_uniform():
    data = uniform(100, 50_000, seed=1)
    assert data.edge_index.equal(uniform(100, 50_000, seed=1).edge_index)
    assert not data.edge_index.equal(uniform(100, 50_000, seed=2).edge_index)
    for degree in (in_degree(data), out_degree(data)):
        assert degree.min() > 350 and degree.max() < 650


def test_uniform_bipartite():
    data = uniform((3, 50), 1_000)
    assert (data.num_nodes, data.num_dst, data.is_bipartite) == (3, 50, True)
    assert (out_degree(data) > 0).all() and (in_degree(data) > 0).all()
    assert uniform((0, 4), 0).num_edges == 0
    with pytest.raises(ValueError, match="2 edges need at least one node at each end"):
        uniform((0, 4), 2)


def test_grid():
    assert grid(2, 3).edge_index.T.tolist() == [
        [1, 0], [3, 0], [0, 1], [2, 1], [4, 1], [1, 2], [5, 2],
        [0, 3], [4, 3], [1, 4], [3, 4], [5, 4], [2, 5], [4, 5],
    ]  # fmt: skip


@given(rows=st.integers(0, 12), cols=st.integers(0, 12))
def test_grid_sizes(rows, cols):
    data = grid(rows, cols)
    pairs = rows * max(cols - 1, 0) + cols * max(rows - 1, 0)
    assert (data.num_nodes, data.num_edges) == (rows * cols, 2 * pairs)
    ids = data.edge_index.numpy()
    if ids.size:
        row, col = np.divmod(ids, cols)
        assert (np.abs(row[0] - row[1]) + np.abs(col[0] - col[1]) == 1).all()


def test_star():
    assert star(3).edge_index.tolist() == [[1, 2, 3], [0, 0, 0]]
    assert star(3, "out").edge_index.tolist() == [[0, 0, 0], [1, 2, 3]]
    assert star(0).num_nodes == 1
    with pytest.raises(ValueError, match="direction must be 'in' or 'out', got 'both'"):
        star(3, "both")
    with pytest.raises(ValueError, match="num_leaves must be at least 0"):
        star(-1)


@pytest.mark.parametrize("sizes", [(5, 30, 10), (6, 6, 1), (1, 7, 7), (4, 9, 0), (0, 0, 0)])
def test_hub(sizes):
    nodes, edges, degree_of_hub = sizes
    graph = hub(*sizes)
    degree = torch.bincount(graph.edge_index[1], minlength=nodes)
    assert (graph.num_nodes, graph.num_edges) == (nodes, edges)
    if nodes:
        middle = (nodes - 1) // 2
        assert degree[middle] == degree_of_hub
        others = torch.cat([degree[:middle], degree[middle + 1 :]])
        assert others.numel() == 0 or others.max() - others.min() <= 1


def test_hub_rejects():
    with pytest.raises(ValueError, match="hub: hub_degree must be at most num_edges=5"):
        hub(3, 5, 6)
    with pytest.raises(ValueError, match="hub: hub_degree must be at most .* of 1 nodes"):
        hub(1, 5, 4)
