"""OGB's CSV folders: plain or gzipped, with and without features, labels and splits."""

import gzip

import pytest

from gnnkern.data import read_ogb

TABLES = {
    "raw/edge.csv": "0,1\n2,0\n3,3\n",
    "raw/num-node-list.csv": "4\n",
    "raw/node-feat.csv": "0.5,1\n0,0\n-1,2\n3,4e-1\n",
    "raw/node-label.csv": "0\n2\n1\n0\n",
    "split/time/train.csv": "0\n2\n",
    "split/time/valid.csv": "1\n",
    "split/time/test.csv": "3\n",
}


def write(tmp_path, packed=False, **changes):
    folder = tmp_path / "ogbn_toy"
    for name, text in (TABLES | changes).items():
        if text is None:
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if packed:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(text.encode()))
        else:
            path.write_text(text)
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_round_trip(tmp_path, packed):
    data = read_ogb(write(tmp_path, packed))
    assert data.name == "ogbn_toy" and data.num_nodes == 4
    assert data.edge_index.tolist() == [[0, 2, 3], [1, 0, 3]]
    assert data.edge_index.is_contiguous()
    assert data.x[:3].tolist() == [[0.5, 1], [0, 0], [-1, 2]]
    assert data.x[3].tolist() == pytest.approx([3, 0.4])
    assert data.y.tolist() == [0, 2, 1, 0]
    assert data.train_mask.tolist() == [[True, False, True, False]]
    assert data.val_mask.nonzero()[:, 1].tolist() == [1]
    assert data.test_mask.nonzero()[:, 1].tolist() == [3]


def test_undirected(tmp_path):
    data = read_ogb(write(tmp_path), undirected=True)
    assert data.edge_index.tolist() == [[0, 2, 3, 1, 0], [1, 0, 3, 0, 2]]


def test_only_edges(tmp_path):
    optional = [name for name in TABLES if "node-" in name and "list" not in name]
    absent = dict.fromkeys(optional + [name for name in TABLES if name.startswith("split")])
    data = read_ogb(write(tmp_path, **absent))
    assert data.x is None and data.y is None and data.train_mask is None


def test_single_column_of_features(tmp_path):
    assert read_ogb(write(tmp_path, **{"raw/node-feat.csv": "1\n2\n3\n4\n"})).x.shape == (4, 1)


def test_unlabelled(tmp_path):
    labels = {"raw/node-label.csv": "0.0\n2.0\n1.0\nnan\n", "split/time/test.csv": ""}
    data = read_ogb(write(tmp_path, **labels))
    assert data.y.tolist() == [0, 2, 1, -1]
    assert not data.test_mask.any()


def test_no_edges(tmp_path):
    assert read_ogb(write(tmp_path, **{"raw/edge.csv": ""})).num_edges == 0


def test_choice_of_split(tmp_path):
    other = {f"split/random/{part}.csv": "0\n" for part in ("train", "valid", "test")}
    folder = write(tmp_path, **other)
    with pytest.raises(ValueError, match=r"choose one by split=: \['random', 'time'\]"):
        read_ogb(folder)
    assert read_ogb(folder, split="random").train_mask.sum() == 1
    with pytest.raises(ValueError, match=r"no split 'x', there is \['random', 'time'\]"):
        read_ogb(folder, split="x")


@pytest.mark.parametrize(
    ("table", "text", "message"),
    [
        ("raw/edge.csv", "0,1\n2,4\n", r"edge\[1\] is \[2, 4\], expected ids in \[0, 4\)"),
        ("raw/edge.csv", "0,1\n-1,0\n", r"edge\[1\] is \[-1, 0\]"),
        ("raw/edge.csv", "0,1,2\n", "expected 2 columns, source and destination, got 3"),
        ("raw/edge.csv", "0,1\n0,x\n", "could not convert string 'x' to int64 at row 1"),
        ("raw/edge.csv", "0,1\n0\n", "number of columns changed"),
        ("raw/num-node-list.csv", "4\n5\n", r"number of nodes of one graph, got \[4, 5\]"),
        ("raw/node-feat.csv", "1\n2\n", "expected 4 rows, one per node, got 2"),
        ("raw/node-label.csv", "1\n2\n", "expected 4 rows, one per node, got 2"),
        ("raw/node-label.csv", "1,0\n" * 4, "expected one label per node, got 2 columns"),
        ("raw/node-label.csv", "1\n0\n0.5\n0\n", r"row 2 is 0\.5, expected a whole number"),
        ("split/time/test.csv", "3\n4\n", r"test\[1\] is 4, expected ids in \[0, 4\)"),
    ],
)
def test_rejects(tmp_path, table, text, message):
    folder = write(tmp_path, **{table: text})
    with pytest.raises(ValueError, match=message) as caught:
        read_ogb(folder)
    assert str(caught.value).startswith(str(folder / table))


def test_features_and_labels_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"ogbn_toy: .*x\[1, 0\] is nan"):
        read_ogb(write(tmp_path, **{"raw/node-feat.csv": "1\nnan\n3\n4\n"}))
    labels = {"raw/node-feat.csv": "1\n2\n3\n4\n", "raw/node-label.csv": "-3\n0\n0\n0\n"}
    with pytest.raises(ValueError, match="ogbn_toy: .*node 0 has label -3"):
        read_ogb(write(tmp_path, **labels))


@pytest.mark.parametrize("table", ["raw/edge.csv", "raw/num-node-list.csv", "split/time/valid.csv"])
def test_missing_table(tmp_path, table):
    folder = write(tmp_path, **{table: None})
    with pytest.raises(FileNotFoundError, match=table.rsplit("/", 1)[-1]):
        read_ogb(folder)


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        read_ogb(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="expected a folder, got a file"):
        read_ogb(tmp_path / "file")
