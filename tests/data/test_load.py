"""`load` finds the reader by path, by content and by description."""

import gzip

import numpy as np
import pytest

from gnnkern.data import load


@pytest.mark.parametrize(
    ("source", "name", "nodes", "edges"),
    [
        ("powerlaw:100,1_000,50", "powerlaw-100-1000-50", 100, 1_000),
        ("powerlaw:100,1000,50,0.5", "powerlaw-100-1000-50", 100, 1_000),
        ("rmat:100,300", "rmat-100-300", 100, 300),
        ("uniform:100,300", "uniform-100-300", 100, 300),
        ("grid:4,5", "grid-4-5", 20, 62),
        ("star:9", "star-in-9", 10, 9),
    ],
)
def test_descriptions(source, name, nodes, edges):
    data = load(source)
    assert (data.name, data.num_nodes, data.num_edges) == (name, nodes, edges)


def test_digits():
    pytest.importorskip("sklearn")
    assert load("digits").name == "digits"
    assert load("digits", k=2).num_edges < load("digits").num_edges


def test_options_reach_the_generator():
    assert load("star:3", direction="out").edge_index[0].tolist() == [0, 0, 0]
    first, second = load("uniform:50,200", seed=1), load("uniform:50,200", seed=2)
    assert not first.edge_index.equal(second.edge_index)
    with pytest.raises(TypeError, match="colour"):
        load("star:3", colour="red")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("powerlaw", "'powerlaw' should read 'powerlaw:nodes,edges,max_degree"),
        ("powerlaw:1,2", "got 2 numbers"),
        ("powerlaw:1,2,3,4,5", "got 5 numbers"),
        ("rmat:10,many", "'rmat:10,many' should read 'rmat:nodes,edges': .*'many'"),
        ("grid:4.5,2", "should read 'grid:rows,cols'"),
        ("star:", "got 0 numbers"),
        ("digits:3", "should read 'digits', got 1 numbers"),
    ],
)
def test_wrong_descriptions(source, message):
    with pytest.raises(ValueError, match=message):
        load(source)


def save_npz(path):
    with path.open("wb") as file:
        np.savez(file, edges=np.array([[0, 1]]), node_labels=np.zeros(3, dtype=np.int64))


@pytest.mark.parametrize("name", ["g.npz", "g.graph", "g"])
def test_npz(tmp_path, name):
    save_npz(tmp_path / name)
    assert load(tmp_path / name).num_nodes == 3


@pytest.mark.parametrize("name", ["m.mtx", "m.mtx.gz", "m", "m.gz"])
def test_matrix_market(tmp_path, name):
    pytest.importorskip("scipy")
    text = b"%%MatrixMarket matrix coordinate pattern general\n3 3 1\n1 3\n"
    path = tmp_path / name
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    assert load(str(path)).edge_index.tolist() == [[2], [0]]


@pytest.mark.parametrize("suffix", ["txt", "tsv", "csv", "edges", "edgelist", "el", "txt.gz"])
def test_edge_list(tmp_path, suffix):
    path = tmp_path / f"g.{suffix}"
    path.write_bytes(gzip.compress(b"0 2\n") if suffix.endswith("gz") else b"0 2\n")
    data = load(path, undirected=True)
    assert data.name == "g" and data.edge_index.tolist() == [[0, 2], [2, 0]]


def test_folders(tmp_path):
    ogb = tmp_path / "ogb"
    (ogb / "raw").mkdir(parents=True)
    (ogb / "raw" / "edge.csv").write_text("0,1\n")
    (ogb / "raw" / "num-node-list.csv").write_text("2\n")
    assert load(ogb).num_nodes == 2
    planetoid = tmp_path / "planetoid"
    planetoid.mkdir()
    (planetoid / "ind.toy.graph").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"ind\.toy\.x"):
        load(planetoid)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="neither ind.<name>.graph .* nor raw/edge.csv"):
        load(tmp_path / "empty")


def test_a_file_named_like_a_generator(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_npz(tmp_path / "digits")
    assert load("./digits").num_nodes == 3


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.npz \(load reads \.npz, "):
        load(tmp_path / "absent.npz")
    with pytest.raises(FileNotFoundError, match="powerlow:3"):
        load("powerlow:3")


@pytest.mark.parametrize("name", ["g.bin", "g.bin.gz"])
def test_unknown_kind(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x00\x01")
    with pytest.raises(ValueError, match=rf"{name}: unknown kind of file; load reads \.npz"):
        load(tmp_path / name)
