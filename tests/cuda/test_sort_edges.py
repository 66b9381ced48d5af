"""Edges sorted on the device, beside the sort of the CPU."""

import pytest
import torch
from helpers.devices import DEVICE, NAMES, device_graph, edge_list, small_tiles

import gnnkern
from gnnkern import Graph, _native, _sorting
from gnnkern._cuda.sort_edges import reverse_csr, sort_edges
from gnnkern._sorting import row_begins

# What no edge's position is.
NONE = torch.iinfo(torch.int64).max


def equal_on_cpu(actual, expected):
    return all(torch.equal(a.cpu(), b) for a, b in zip(actual, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("name", NAMES)
def test_sort_and_reverse(name, dtype, cuda):
    edges = edge_list(name)
    # Columns of a transposed array: every other element is another's.
    source, destination = edges.edge_index.t().contiguous().to(DEVICE, dtype).unbind(1)
    arguments = (destination, source, edges.num_dst, edges.num_src, torch.int32)
    sorted_edges = sort_edges(*arguments)
    _, was_sorted, *expected = _native.sort_edges(
        *(x.cpu() if isinstance(x, torch.Tensor) else x for x in arguments)
    )
    assert equal_on_cpu(sorted_edges[:3], expected)
    assert sorted_edges.status.tolist() == [NONE, 0 if was_sorted else 1]
    for edge_id in (None, sorted_edges.edge_id):
        actual = reverse_csr(*sorted_edges[:2], edge_id, edges.num_src)
        numbers = None if edge_id is None else edge_id.cpu()
        assert equal_on_cpu(actual, _native.reverse_csr(*expected[:2], numbers, edges.num_src))


@pytest.mark.parametrize(
    "rows, cols, first_bad",
    [([0, 3, 2, -1], None, 1), ([0, 1, 2, -1], None, 3), ([1, 1], [0, 9], 1)],
)
def test_an_edge_out_of_range_is_told_and_in_no_row(rows, cols, first_bad, cuda):
    rows = torch.tensor(rows, device=DEVICE)
    cols = None if cols is None else torch.tensor(cols, device=DEVICE)
    found = sort_edges(rows, cols, 3, 2, torch.int64)
    assert found.status[0] == first_bad
    good = (rows >= 0) & (rows < 3) & (True if cols is None else cols < 2)
    assert torch.equal(found.indptr, row_begins(rows[good].sort().values, 3))


def test_sorted_keys_are_more_than_16_bits(cuda):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(70_000, (999,), generator=generator).to(DEVICE)
    found = sort_edges(rows, None, 70_000, 0, torch.int64)
    assert torch.equal(found.edge_id, rows.sort(stable=True).indices)
    assert torch.equal(found.indptr, row_begins(rows.sort().values, 70_000))


@pytest.fixture
def on_device(cuda, monkeypatch):
    """Edges are sorted and planned as on a GPU, wherever they are."""
    monkeypatch.setattr(_native, "native", None)
    monkeypatch.setattr(_sorting, "_cuda_runs", lambda tensor: True)


def arrays_of(g):
    return [None if x is None else x.tolist() for x in (*g.csr[:3], *g.reverse_csr()[:3])]


@pytest.mark.parametrize("name", NAMES)
def test_graphs_are_sorted_and_planned(name, request):
    expected = arrays_of(device_graph(name))
    request.getfixturevalue("on_device")
    with small_tiles():
        g = device_graph(name)
        assert arrays_of(g) == expected
        assert g.csr.plan.shape == (1 + 2 + 3 if name == "hubs" else 0, 4)


@pytest.mark.parametrize("edge_index", [[[0, 1], [1, 2]], [[0, -1], [1, 1]]])
def test_a_graph_names_the_bad_edge(edge_index, on_device):
    with pytest.raises(ValueError, match="edge 1"):
        Graph.from_edge_index(torch.tensor(edge_index, device=DEVICE), 2)


def test_scatters_sort_on_the_device(on_device):
    index = torch.tensor([3, 0, 3, 1, 3, 0], device=DEVICE)
    x = torch.arange(6.0, device=DEVICE)[:, None]
    out = gnnkern.scatter_reduce(x, index, num_segments=5, reduce="sum", backend="cuda")
    assert out.flatten().tolist() == [6, 3, 0, 6, 0]


def test_row_begins():
    rows = torch.tensor([0, 0, 2, 2, 2, 5], device=DEVICE)
    assert row_begins(rows, 7).tolist() == [0, 2, 2, 5, 5, 5, 6, 6]
