"""The `.npz` layout: what is written is what is read, and errors name file, field and element."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gnnkern.data import read_npz

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"


def fields(**changes):
    values = {
        "node_features": np.arange(8, dtype=np.float16).reshape(4, 2),
        "node_labels": np.array([0, 1, -1, 1]),
        "edges": np.array([[0, 1], [3, 1]], dtype=np.int32),
        "train_masks": np.array([[1, 0, 0, 0], [0, 1, 0, 0]], dtype=bool),
        "val_masks": np.array([[0, 1, 0, 0], [1, 0, 0, 0]], dtype=bool),
        "test_masks": np.array([[0, 0, 0, 1], [0, 0, 0, 1]], dtype=bool),
    }
    return {name: value for name, value in (values | changes).items() if value is not None}


def write(tmp_path, **changes):
    path = tmp_path / "toy.npz"
    np.savez(path, **fields(**changes))
    return path


def test_round_trip(tmp_path):
    data = read_npz(write(tmp_path))
    assert data.name == "toy"
    assert data.edge_index.tolist() == [[1, 0, 3, 1], [0, 1, 1, 3]]
    assert data.x.dtype == torch.float32
    assert data.x.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert data.y.tolist() == [0, 1, -1, 1]
    assert data.num_splits == 2
    assert data.test_mask.tolist() == [[False, False, False, True]] * 2


def test_name_and_str_path(tmp_path):
    assert read_npz(str(write(tmp_path)), name="other").name == "other"


def test_repeated_pairs_and_loops_are_stored_once(tmp_path):
    edges = np.array([[0, 1], [1, 0], [0, 1], [2, 2]])
    assert read_npz(write(tmp_path, edges=edges)).edge_index.tolist() == [[1, 0, 2], [0, 1, 2]]


def test_only_edges_and_labels(tmp_path):
    masks = dict.fromkeys(("train_masks", "val_masks", "test_masks"))
    data = read_npz(write(tmp_path, node_features=None, **masks))
    assert data.x is None and data.train_mask is None and data.num_nodes == 4


def test_single_split_may_be_flat(tmp_path):
    mask = np.array([True, False, False, False])
    masks = {"train_masks": mask, "val_masks": None, "test_masks": None}
    assert read_npz(write(tmp_path, **masks)).train_mask.shape == (1, 4)


def test_no_edges(tmp_path):
    data = read_npz(write(tmp_path, edges=np.empty((0, 2), dtype=np.int64)))
    assert data.num_edges == 0 and data.num_nodes == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edges": None}, "field 'edges' is missing"),
        ({"node_features": None, "node_labels": None}, "node_features or node_labels is required"),
        ({"edges": np.zeros((2, 3), int)}, r"edges must have shape \[E, 2\], got \[2, 3\]"),
        ({"edges": np.zeros((2, 2))}, "edges must hold integers, got float64"),
        (
            {"edges": np.array([[0, 1], [2, 4], [9, 9]])},
            r"edges\[1\] is \[2, 4\], expected ids in \[0, 4\)",
        ),
        ({"edges": np.array([[0, -1]])}, r"edges\[0\] is \[0, -1\]"),
        ({"node_labels": np.zeros(4)}, "node_labels must hold integers, got float64"),
        ({"node_labels": np.array([0, 0, -7, 0])}, "node 2 has label -7"),
        ({"node_labels": np.zeros(3, int)}, r"y must have shape \[num_dst\] = \[4\], got \[3\]"),
        ({"node_features": np.full((4, 1), np.nan)}, r"x\[0, 0\] is nan"),
        ({"node_features": np.array(["a"] * 4)}, "node_features must hold numbers"),
        ({"train_masks": np.zeros((2, 3), bool)}, "train_mask must have shape"),
        ({"train_masks": np.zeros((1, 4), bool)}, "val_mask has 2 splits, expected 1"),
        ({"train_masks": np.zeros((2, 4))}, "train_masks must be bool, got float64"),
        ({"edges": np.array([[0, "a"]], dtype=object)}, "allow_pickle=False"),
    ],
)
def test_rejects(tmp_path, changes, message):
    path = write(tmp_path, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        read_npz(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 but no more"])
def test_not_an_archive(tmp_path, content):
    path = tmp_path / "broken.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.npz: not a readable \.npz file"):
        read_npz(path)


def test_damaged_archive(tmp_path):
    path = write(tmp_path)
    content = bytearray(path.read_bytes())
    at = content.index(b"edges.npy") + 150
    content[at : at + 8] = b"\xff" * 8
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"toy\.npz: "):
        read_npz(path)


def test_single_array(tmp_path):
    path = tmp_path / "array.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match="expected an .npz archive, got a single array"):
        read_npz(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.npz"):
        read_npz(tmp_path / "absent.npz")


@pytest.mark.parametrize(
    ("name", "nodes", "pairs", "features", "classes", "splits"),
    [
        ("cora", 2708, 5278, 1433, 7, 1),
        ("citeseer", 3327, 4552, 3703, 6, 1),
        ("tolokers", 11758, 519000, 10, 2, 10),
        ("minesweeper", 10000, 39402, 7, 2, 10),
    ],
)
def test_real_files(name, nodes, pairs, features, classes, splits):
    path = REAL / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    data = read_npz(path)
    assert (data.num_nodes, data.num_edges) == (nodes, 2 * pairs)
    assert (data.num_features, data.num_classes) == (features, classes)
    assert data.num_splits == splits
    assert not (data.train_mask & data.test_mask).any()
