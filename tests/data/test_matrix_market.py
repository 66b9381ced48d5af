"""Matrix Market: rows are destinations, fields and symmetries come out right."""

import builtins
import gzip

import numpy as np
import pytest

from gnnkern.data import read_matrix_market

scipy_io = pytest.importorskip("scipy.io")
scipy_sparse = pytest.importorskip("scipy.sparse")


def dense(data):
    out = np.zeros((data.num_dst, data.num_nodes))
    weight = 1.0 if data.edge_weight is None else data.edge_weight.numpy()
    np.add.at(out, (data.edge_index[1].numpy(), data.edge_index[0].numpy()), weight)
    return out


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3)])
def test_round_trip(tmp_path, shape):
    matrix = scipy_sparse.random(*shape, density=0.4, random_state=0, dtype=np.float32)
    path = tmp_path / "m.mtx"
    scipy_io.mmwrite(path, matrix)
    data = read_matrix_market(path)
    assert data.name == "m"
    assert (data.num_dst, data.num_nodes) == shape
    assert data.is_bipartite == (shape[0] != shape[1])
    np.testing.assert_allclose(dense(data), matrix.toarray(), rtol=1e-6)


def write(tmp_path, text, name="m.mtx"):
    path = tmp_path / name
    content = text.encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


@pytest.mark.parametrize("name", ["m.mtx", "m.mtx.gz"])
def test_pattern_has_no_weights(tmp_path, name):
    text = "%%MatrixMarket matrix coordinate pattern general\n% note\n2 3 2\n1 3\n2 1\n"
    data = read_matrix_market(write(tmp_path, text, name))
    assert data.edge_weight is None
    assert data.edge_index.tolist() == [[2, 0], [0, 1]]


def test_symmetric_gives_both_directions(tmp_path):
    text = "%%MatrixMarket matrix coordinate integer symmetric\n3 3 2\n2 1 5\n3 3 7\n"
    data = read_matrix_market(write(tmp_path, text))
    assert dense(data).tolist() == [[0, 5, 0], [5, 0, 0], [0, 0, 7]]
    assert data.num_edges == 3


def test_dense_array(tmp_path):
    text = "%%MatrixMarket matrix array real general\n2 2\n0\n1.5\n2.5\n0\n"
    assert dense(read_matrix_market(write(tmp_path, text))).tolist() == [[0, 2.5], [1.5, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello\n", "Not a Matrix Market file"),
        (
            "%%MatrixMarket matrix coordinate real general\n2 2 1\n3 1 1.0\n",
            "Row index out of bounds",
        ),
        ("%%MatrixMarket matrix coordinate real general\n2 2 2\n1 1 1.0\n", "Truncated file"),
        (
            "%%MatrixMarket matrix coordinate complex general\n1 1 1\n1 1 1 0\n",
            "complex entries cannot be edge weights",
        ),
        ("%%MatrixMarket matrix coordinate real general\n1 1 1\n1 1 nan\n", "edge 0 has weight"),
    ],
)
def test_rejects(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=message) as caught:
        read_matrix_market(path)
    assert str(caught.value).startswith(str(path))


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.mtx"):
        read_matrix_market(tmp_path / "absent.mtx")


def test_without_scipy(tmp_path, monkeypatch):
    real_import = builtins.__import__

    def no_scipy(name, *rest, **options):
        if name.split(".")[0] == "scipy":
            raise ImportError("no scipy here")
        return real_import(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", no_scipy)
    with pytest.raises(ImportError, match=r"needs scipy: pip install 'gnnkern\[data\]'"):
        read_matrix_market(write(tmp_path, ""))
