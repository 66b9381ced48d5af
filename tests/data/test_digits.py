"""The digits graph: true nearest neighbours, a stratified split, the same graph for every seed."""

import builtins

import pytest
import torch

from gnnkern.data import digits_graph

pytest.importorskip("sklearn")


def test_sizes_and_scale():
    data = digits_graph()
    assert (data.name, data.num_nodes, data.num_features, data.num_classes) == (
        "digits",
        1797,
        64,
        10,
    )
    assert data.x.min() == 0 and data.x.max() == 1
    assert [int(mask.sum()) for mask in (data.train_mask, data.val_mask, data.test_mask)] == [
        100,
        300,
        1397,
    ]


def test_edges_are_symmetric_sorted_and_without_loops():
    src, dst = digits_graph().edge_index
    keys = dst * 1797 + src
    assert (keys.diff() > 0).all()
    assert (src != dst).all()
    assert (src * 1797 + dst).sort().values.equal(keys)


@pytest.mark.parametrize("k", [1, 8])
def test_neighbours_are_the_nearest(k):
    data = digits_graph(k=k)
    pixels = data.x.double() * 16
    distance = torch.cdist(pixels, pixels).square().round()
    distance.fill_diagonal_(float("inf"))
    joined = torch.zeros(1797, 1797, dtype=torch.bool)
    joined[data.edge_index[1], data.edge_index[0]] = True
    kth = distance.sort(dim=1).values[:, k - 1 : k]
    # All that are closer than the k-th are joined, and every edge is short seen from one end.
    assert joined[distance < kth].all()
    short = distance <= kth
    assert (short | short.T)[joined].all()
    assert (joined.sum(dim=1) >= k).all()


def test_splits_are_stratified_disjoint_and_complete():
    data = digits_graph(num_splits=3)
    train, val, test = data.train_mask, data.val_mask, data.test_mask
    assert data.num_splits == 3
    assert (train.int() + val.int() + test.int() == 1).all()
    for split in range(3):
        assert data.y[train[split]].bincount().tolist() == [10] * 10
        share = data.y[val[split]].bincount() / (data.y.bincount() - 10)
        assert share.max() - share.min() < 0.01
    assert not train[0].equal(train[1])


def test_seed():
    first, again, other = digits_graph(), digits_graph(seed=0), digits_graph(seed=1)
    assert first.train_mask.equal(again.train_mask) and first.val_mask.equal(again.val_mask)
    assert not first.train_mask.equal(other.train_mask)
    assert first.edge_index.equal(other.edge_index)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be from 1 to 1796, got 0"),
        ({"k": 1797}, "k must be from 1 to 1796"),
        ({"num_splits": 0}, "num_splits must be at least 1"),
        ({"train_per_class": 500}, "train_per_class must be from 0 to 178"),
        ({"num_val": 1698}, "num_val must be from 0 to 1697, got 1698"),
    ],
)
def test_rejects(options, message):
    with pytest.raises(ValueError, match=message):
        digits_graph(**options)


def test_without_scikit_learn(monkeypatch):
    real_import = builtins.__import__

    def no_sklearn(name, *rest, **options):
        if name.split(".")[0] == "sklearn":
            raise ImportError("no scikit-learn here")
        return real_import(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", no_sklearn)
    with pytest.raises(ImportError, match=r"needs scikit-learn: pip install 'gnnkern\[data\]'"):
        digits_graph()
