"""Edge lists: every common form is read, and what is wrong is named by file and line."""

import gzip

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnnkern.data import read_edge_list


def write(tmp_path, text, name="web.txt"):
    path = tmp_path / name
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "0 1\n2 0\n2 2\n",
        "# Directed graph\n# FromNodeId\tToNodeId\n0\t1\n2\t0\n2\t2\n",
        "% sym unweighted\n0 1\n\n2 0 % the second\n2 2",
        "0,1\n2, 0\n2,2\n",
        "source,target\n0,1\n2,0\n2,2\n",
        "#comment\nid_1 id_2\n0   1\n  2 0\n2 2  # loop\n",
        "0 1\r\n2 0\r\n2 2\r\n",
    ],
)
@pytest.mark.parametrize("name", ["web.txt", "web.csv.gz"])
def test_forms(tmp_path, text, name):
    data = read_edge_list(write(tmp_path, text, name))
    assert data.name == "web" and data.num_nodes == 3
    assert data.edge_index.tolist() == [[0, 2, 2], [1, 0, 2]]
    assert data.edge_weight is None


def test_weights(tmp_path):
    data = read_edge_list(write(tmp_path, "0 1 0.5\n1 0 -2e3\n"))
    assert data.edge_weight.tolist() == [0.5, -2000.0]
    assert data.edge_weight.dtype == torch.float32
    assert read_edge_list(tmp_path / "web.txt", weighted=False).edge_weight is None


def test_more_columns_need_a_choice(tmp_path):
    path = write(tmp_path, "0 1 0.5 1234\n1 0 2 1235\n")
    with pytest.raises(ValueError, match="the lines have 4 fields: weighted=True"):
        read_edge_list(path)
    assert read_edge_list(path, weighted=True).edge_weight.tolist() == [0.5, 2.0]
    assert read_edge_list(path, weighted=False).edge_weight is None


def test_undirected(tmp_path):
    path = write(tmp_path, "0 1 5\n1 1 6\n2 0 7\n")
    data = read_edge_list(path, undirected=True)
    assert data.edge_index.tolist() == [[0, 1, 2, 1, 0], [1, 1, 0, 0, 2]]
    assert data.edge_weight.tolist() == [5, 6, 7, 5, 7]


def test_relabel_keeps_the_ids(tmp_path):
    path = write(tmp_path, "900000000000 -5\n17 900000000000\n")
    data = read_edge_list(path, relabel=True)
    assert data.num_nodes == 3
    assert data.node_ids.tolist() == [-5, 17, 900000000000]
    assert data.node_ids[data.edge_index].tolist() == [[900000000000, 17], [-5, 900000000000]]


def test_sparse_ids_are_noticed(tmp_path):
    path = write(tmp_path, "0 900000000000\n")
    with pytest.raises(ValueError, match="ids reach 900000000000 with 1 edges: relabel=True"):
        read_edge_list(path)
    path = write(tmp_path, "0 5000000\n")
    assert read_edge_list(path, num_nodes=5_000_001).num_nodes == 5_000_001


def test_num_nodes(tmp_path):
    path = write(tmp_path, "0 1\n")
    assert read_edge_list(path, num_nodes=10).num_nodes == 10
    with pytest.raises(ValueError, match="not both"):
        read_edge_list(path, num_nodes=10, relabel=True)


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "source target\n"])
def test_no_edges(tmp_path, text):
    data = read_edge_list(write(tmp_path, text))
    assert (data.num_nodes, data.num_edges) == (0, 0)
    assert read_edge_list(tmp_path / "web.txt", relabel=True).num_nodes == 0


@pytest.mark.parametrize(
    ("text", "line", "message", "options"),
    [
        ("0 1\n1 x\n", 2, "expected an integer id, got 'x'", {}),
        ("# a\n\n0 1\n1 2.5\n", 4, "expected an integer id, got '2.5'", {}),
        ("0 1\n1\n", 2, "expected 2 fields, got 1", {}),
        ("0 1\n1 2 3\n", 2, "expected 2 fields, got 3", {}),
        ("0 1 1\n1 2\n", 2, "expected 3 fields, got 2", {}),
        ("0 1 1\n1 2 y\n", 2, "expected a weight, got 'y'", {}),
        ("a,b\n0,1\n1,-2\n", 3, "id -2 is negative", {}),
        ("0 1\n1 2\n", 2, r"id 2 is out of range, expected an id in \[0, 2\)", {"num_nodes": 2}),
        ("0 1\n1 99999999999999999999\n", 2, "does not fit 64 bits", {}),
        ("0 1\n1 2\n", 1, "expected 3 fields, got 2", {"weighted": True}),
        ("7\n", 1, "expected 2 fields, got 1", {}),
        ("a b\nc d\n", 2, "expected an integer id, got 'c'", {}),
    ],
)
@pytest.mark.parametrize("name", ["web.txt", "web.txt.gz"])
def test_errors_name_file_and_line(tmp_path, text, line, message, options, name):
    path = write(tmp_path, text, name)
    with pytest.raises(ValueError, match=message) as caught:
        read_edge_list(path, **options)
    assert str(caught.value).startswith(f"{path}:{line}: ")


def test_weight_that_is_not_finite(tmp_path):
    with pytest.raises(ValueError, match=r"web\.txt: .*edge 1 has weight nan"):
        read_edge_list(write(tmp_path, "0 1 1\n1 0 nan\n"))


def test_damaged_gzip(tmp_path):
    path = write(tmp_path, "0 1\n" * 100, "web.txt.gz")
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(ValueError, match=r"web\.txt\.gz: "):
        read_edge_list(path)
    path.write_bytes(b"0 1\n")
    with pytest.raises(ValueError, match=r"web\.txt\.gz: Not a gzipped file"):
        read_edge_list(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.txt"):
        read_edge_list(tmp_path / "absent.txt")
    with pytest.raises(IsADirectoryError, match="expected a file, got a folder"):
        read_edge_list(tmp_path)


@given(
    edges=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=30),
    separator=st.sampled_from([" ", "\t", ",", ", ", "   "]),
)
def test_any_list_survives(tmp_path_factory, edges, separator):
    path = tmp_path_factory.mktemp("edges") / "any.txt"
    path.write_text("".join(f"{src}{separator}{dst}\n" for src, dst in edges))
    data = read_edge_list(path)
    assert list(zip(*data.edge_index.tolist(), strict=True)) == edges
    relabelled = read_edge_list(path, relabel=True)
    assert relabelled.node_ids[relabelled.edge_index].equal(data.edge_index)
