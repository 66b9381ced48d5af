"""Planetoid's pickles are read without being run, from every version of Python, numpy and scipy."""

import io
import os
import pickle
import struct
from collections import defaultdict

import numpy as np
import pytest

from gnnkern.data import read_planetoid
from gnnkern.data._unpickle import PickledArray, PickledCsr, load_arrays

scipy_sparse = pytest.importorskip("scipy.sparse")

ONE_HOT = np.eye(3, dtype=np.int32)
ALLX = np.array([[1, 0], [0, 1], [1, 1], [0, 0.5]], dtype=np.float32)
TX = np.array([[2, 0], [0, 2]], dtype=np.float32)
# Nodes 0 to 3 are those of allx, 4 and 6 the test nodes; 5 is an isolated test node.
GRAPH = {0: [1, 2, 2], 1: [0], 2: [0], 3: [3, 4], 4: [3, 6], 5: [], 6: [4]}


def dump(value, protocol=2):
    content = pickle.dumps(value, protocol=protocol)
    # The names that numpy 1, older scipy and Python 2 write.
    for new, old in (
        (b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"),
        (b"cscipy.sparse._csr\n", b"cscipy.sparse.csr\n"),
    ):
        content = content.replace(new, old)
    return content


def write(folder, protocol=2, **changes):
    csr = scipy_sparse.csr_matrix
    parts = {
        "x": dump(csr(ALLX[:2]), protocol),
        "y": dump(ONE_HOT[[0, 1]], protocol),
        "allx": dump(csr(ALLX), protocol),
        "ally": dump(ONE_HOT[[0, 1, 2, 1]], protocol),
        "tx": dump(csr(TX), protocol),
        "ty": dump(ONE_HOT[[2, 0]], protocol),
        "graph": dump(defaultdict(list, GRAPH), protocol),
        "test.index": b"6\n4\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    for part, content in (parts | changes).items():
        (folder / f"ind.toy.{part}").write_bytes(content)
    return folder


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_round_trip(tmp_path, protocol):
    data = read_planetoid(write(tmp_path, protocol))
    assert data.name == "toy" and data.num_nodes == 7
    expected = [*ALLX.tolist(), [0, 2], [0, 0], [2, 0]]
    assert data.x.tolist() == expected
    assert data.y.tolist() == [0, 1, 2, 1, 0, -1, 2]
    assert data.edge_index.tolist() == [[1, 2, 0, 0, 4, 3, 6, 4], [0, 0, 1, 2, 3, 4, 4, 6]]
    assert data.train_mask.nonzero()[:, 1].tolist() == [0, 1]
    assert data.val_mask.nonzero()[:, 1].tolist() == [2, 3]
    assert data.test_mask.nonzero()[:, 1].tolist() == [4, 6]


def test_graph_with_one_direction_is_completed(tmp_path):
    graph = dump(defaultdict(list, {0: [1], 4: [0]}))
    data = read_planetoid(write(tmp_path, graph=graph))
    assert data.edge_index.tolist() == [[1, 4, 0, 0], [0, 0, 1, 4]]


def test_raw_folder_and_choice_of_name(tmp_path):
    raw = write(tmp_path / "raw")
    assert read_planetoid(tmp_path).num_nodes == 7
    (raw / "ind.other.graph").write_bytes(b"")
    with pytest.raises(ValueError, match=r"choose one by name=: \['other', 'toy'\]"):
        read_planetoid(tmp_path)
    assert read_planetoid(tmp_path, name="toy").num_nodes == 7


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        read_planetoid(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"ind\.<name>\.graph"):
        read_planetoid(tmp_path)
    (write(tmp_path) / "ind.toy.ty").unlink()
    with pytest.raises(FileNotFoundError, match=r"ind\.toy\.ty"):
        read_planetoid(tmp_path)


@pytest.mark.parametrize(
    ("part", "content", "message"),
    [
        ("graph", dump({0: [1], 3: [7]}), r"node 3 has neighbour 7, expected ids in \[0, 7\)"),
        ("graph", dump({0: [-1]}), "node 0 has neighbour -1"),
        ("graph", dump({0: 1}), "node 0 must be an int with a list"),
        ("graph", dump([1]), "expected a dict from node to neighbours"),
        ("graph", dump(GRAPH)[:-5], "not a readable pickle"),
        ("graph", b"", "not a readable pickle"),
        ("test.index", b"6\n3\n", r"id 3 on line 2, expected ids from 4 on"),
        ("test.index", b"6\n6\n", "id 6 is repeated"),
        ("test.index", b"6\n", "expected 2 ids, one per row of tx, got 1"),
        ("test.index", b"6\nx\n", "could not convert string 'x'"),
        ("ally", dump(ONE_HOT), r"expected shape \[4, 3\], got \[3, 3\]"),
        ("ty", dump(ONE_HOT[:1]), r"expected shape \[2, 3\], got \[1, 3\]"),
        ("tx", dump(np.zeros((2, 5))), r"expected shape \[2, 2\], got \[2, 5\]"),
        ("tx", dump([1, 2]), "expected a matrix"),
        ("y", dump(np.zeros((9, 3))), "9 rows, expected at most 4"),
    ],
)
def test_rejects(tmp_path, part, content, message):
    folder = write(tmp_path, **{part: content})
    with pytest.raises(ValueError, match=message) as caught:
        read_planetoid(folder)
    assert f"ind.toy.{part}" in str(caught.value)


def load(content):
    return load_arrays(io.BytesIO(content))


class Call:
    """Pickles as a call of `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_malicious_pickle_is_refused_and_does_not_run(tmp_path, protocol):
    victim = tmp_path / "ran"
    command = f"touch {victim}"
    name = f"{os.system.__module__}.system"
    content = pickle.dumps({0: [Call(os.system, command)]}, protocol=protocol)
    folder = write(tmp_path / "folder", graph=content)
    with pytest.raises(ValueError, match=rf"ind\.toy\.graph.*refused to load {name}"):
        read_planetoid(folder)
    assert not victim.exists()
    # The same file does run where it is trusted: the test would notice a harmless one.
    pickle.loads(content)
    assert victim.exists()


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Call(eval, "1"), protocol=2),
        pickle.dumps(Call(getattr, [], "append"), protocol=2),
        pickle.dumps(Call(np.load, "file"), protocol=2),
        pickle.dumps(Call(np.memmap, "file"), protocol=2),
        b"cnumpy.core.multiarray\nfromfile\n.",
        # Names with dots, which protocol 4 would follow as attributes.
        b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.",
        b"\x80\x04\x8c\x08builtins\x8c\x0elist.__class__\x93.",
    ],
)
def test_names_outside_the_list_are_refused(content):
    with pytest.raises(ValueError, match="refused to load "):
        load(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (dump(np.array([{}], dtype=object)), "refused dtype 'O8'"),
        (dump(np.array(["text"])), "refused dtype 'U4'"),
        (dump(np.zeros(2, dtype=[("a", "i4")])), "refused dtype 'V4'"),
        (b"cnumpy\ndtype\n(S'i4'\ntR(K\x03S'?'\ntb.", "unknown byte order"),
        # New attributes for a function and for a type: BUILD on `defaultdict` and on `list`.
        (b"\x80\x02ccollections\ndefaultdict\n}U\x01aK\x01sb.", "a function has no state"),
        (b"\x80\x02cbuiltins\nlist\n}U\x01aK\x01sb.", "not a readable pickle"),
        (b"\x80\x02cnumpy\nndarray\n}U\x01aK\x01sb.", "not a readable pickle"),
        (b"\x80\x02cbuiltins\nobject\n)R.", "refused to call object"),
        (b"\x80\x02cbuiltins\nbytes\nK\x05\x85R.", "admitted without arguments only"),
        (b"\x80\x02ccopyreg\n_reconstructor\ncbuiltins\nlist\n\x85R.", "only csr_matrix"),
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncbuiltins\nlist\n\x85R.", "only plain"),
    ],
)
def test_odd_records_are_refused(content, message):
    with pytest.raises(ValueError, match=message):
        load(content)


def test_array_written_by_python_2():
    numbers = struct.pack("<6i", 1, 2, 3, 4, 5, 6)
    content = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85"
        b"U\x01b\x87Rq\x03(K\x01K\x03K\x02\x86cnumpy\ndtype\nq\x04U\x02i4K\x00K\x01\x87Rq\x05"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x18" + numbers + b"tb."
    )
    array = load(content)
    assert isinstance(array, PickledArray)
    assert array.values.tolist() == [[1, 2], [3, 4], [5, 6]]


def test_graph_written_by_python_2():
    content = b"\x80\x02ccollections\ndefaultdict\nc__builtin__\nlist\n\x85RK\x00]K\x01as."
    assert load(content) == {0: [1]}


def test_bytes_above_ascii_survive_python_2():
    content = dump(np.array([200, 255], dtype=np.uint8))
    assert load(content).values.tolist() == [200, 255]


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("dtype", [">f8", "<i2", "?", "f2"])
def test_dtypes_orders_and_scalars(protocol, dtype):
    array = np.asfortranarray(np.array([[0, 1, 0], [1, 0, 1]], dtype=dtype))
    read = load(pickle.dumps(array, protocol=protocol)).values
    assert read.dtype == array.dtype.newbyteorder("=") and (read == array).all()
    assert load(pickle.dumps(np.int64(7), protocol=protocol)) == 7
    assert load(pickle.dumps(np.empty((0, 3)), protocol=protocol)).values.shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indices": np.array([0, 9], dtype=np.int32)}, r"indices\[1\] is 9, expected a column"),
        ({"indices": np.array([0, -1], dtype=np.int32)}, r"indices\[1\] is -1"),
        ({"indptr": np.array([0, 2, 1], dtype=np.int32)}, "do not fit together"),
        ({"indptr": np.array([0, 1, 3], dtype=np.int32)}, "do not fit together"),
        ({"indptr": np.array([1, 1, 2], dtype=np.int32)}, "do not fit together"),
        ({"indptr": np.empty(0, dtype=np.int32)}, "do not fit together"),
        ({"data": np.zeros(1)}, "do not fit together"),
        ({"data": np.zeros((2, 1))}, "data must be an array of one dimension"),
        ({"indices": np.array([0.0, 1.0])}, "must be integers"),
        ({"_shape": 3}, "shape must be"),
    ],
)
def test_inconsistent_matrix_is_refused(change, message):
    matrix = scipy_sparse.csr_matrix(np.eye(2))
    matrix.__dict__.update(change)
    record = load(pickle.dumps(matrix, protocol=2))
    assert isinstance(record, PickledCsr)
    with pytest.raises(ValueError, match=message):
        record.to_dense()


def test_array_of_too_few_bytes_is_refused():
    content = dump(np.arange(4, dtype=np.int64))
    # The shape (4,) becomes (5,).
    changed = content.replace(b"K\x04\x85", b"K\x05\x85")
    assert changed != content
    with pytest.raises(ValueError, match=r"shape \(5,\) and dtype int64 has 32 bytes"):
        load(changed)
