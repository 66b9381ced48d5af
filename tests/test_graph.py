"""Graph: constructors, order, reverse, derived graphs, errors."""

import copy
import multiprocessing

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gnnkern
from gnnkern import Graph, _native

INDEX_DTYPES = (torch.int32, torch.int64)


def random_edges(num_src=7, num_dst=5, num_edges=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    src = torch.randint(0, num_src, (num_edges,), generator=generator)
    dst = torch.randint(0, num_dst, (num_edges,), generator=generator)
    return torch.stack((src, dst))


@st.composite
def edge_lists(draw):
    num_src, num_dst = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    pairs = st.tuples(st.integers(0, num_src - 1), st.integers(0, num_dst - 1))
    edges = draw(st.lists(pairs, max_size=60))
    return torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).T, (num_src, num_dst)


@settings(max_examples=200, deadline=None)
@given(edge_lists())
def test_sorting_is_stable_and_reversible(case):
    edge_index, sizes = case
    g = Graph.from_edge_index(edge_index, sizes)
    order = torch.argsort(edge_index[1], stable=True)
    assert torch.equal(g.indices.long(), edge_index[0][order])
    assert torch.equal(g.in_degree.long(), torch.bincount(edge_index[1], minlength=sizes[1]))
    assert torch.equal(g.out_degree.long(), torch.bincount(edge_index[0], minlength=sizes[0]))
    assert g.edge_id is None or torch.equal(g.edge_id.long(), order)
    assert torch.equal(g.edge_index, edge_index)
    assert torch.equal(g.reverse.edge_index, edge_index.flip(0))
    assert g.reverse.reverse is g


@pytest.mark.parametrize("dtype", INDEX_DTYPES)
def test_constructors_agree(dtype):
    edge_index = random_edges().unique(dim=1)
    dense = torch.zeros(5, 7)
    dense[edge_index[1], edge_index[0]] = 1 + torch.arange(edge_index.shape[1], dtype=torch.float)
    x = torch.randn(7, 3)
    expected = dense @ x

    for sparse in (dense.to_sparse_coo(), dense.to_sparse_csr(), dense.to_sparse_csc()):
        g = Graph.from_torch_sparse(sparse)
        values = (
            sparse.coalesce().values() if sparse.layout == torch.sparse_coo else sparse.values()
        )
        torch.testing.assert_close(gnnkern.spmm(g, x, values), expected)
    for form in ("coo", "csr", "csc", "lil"):
        matrix = scipy.sparse.coo_array(dense.numpy()).asformat(form)
        values = torch.as_tensor((matrix.tocsr() if form == "lil" else matrix).data)
        torch.testing.assert_close(gnnkern.spmm(Graph.from_scipy(matrix), x, values), expected)
    csr = dense.to_sparse_csr()
    g = Graph.from_csr(csr.crow_indices().to(dtype), csr.col_indices().to(dtype), num_src=7)
    torch.testing.assert_close(gnnkern.spmm(g, x, csr.values()), expected)
    assert g.index_dtype == torch.int32


def test_num_nodes_defaults_to_the_largest_id():
    g = Graph.from_edge_index(torch.tensor([[0, 4], [1, 2]]))
    assert (g.num_src, g.num_dst) == (5, 5)
    assert Graph.from_edge_index(torch.empty(2, 0, dtype=torch.int64)).num_dst == 0


@pytest.mark.parametrize("dtype", INDEX_DTYPES)
@pytest.mark.parametrize("bad, position", [([-1, 0], 3), ([7, 0], 0), ([0, 5], 2), ([0, -2], 39)])
def test_the_first_offending_edge_is_named(dtype, bad, position):
    edge_index = random_edges().to(dtype)
    edge_index[:, position] = torch.tensor(bad, dtype=dtype)
    edge_index[0, 39] = -5
    with pytest.raises(ValueError, match=rf"edge {position} goes from"):
        Graph.from_edge_index(edge_index, (7, 5))


@pytest.mark.parametrize(
    "edge_index, num_nodes, error, message",
    [
        ([[0], [1]], 2, TypeError, "must be a tensor"),
        (torch.zeros(2, 3), 2, TypeError, "int32 or int64, got torch.float32"),
        (torch.zeros(2, 3, dtype=torch.uint8), 2, TypeError, "int32 or int64"),
        (torch.zeros(3, 2, dtype=torch.int64), 2, ValueError, r"shape \[2, E\], got \[3, 2\]"),
        (torch.zeros(2, dtype=torch.int64), 2, ValueError, r"shape \[2, E\]"),
        (torch.zeros(2, 3, dtype=torch.int64, device="meta"), 2, ValueError, "meta"),
        (torch.zeros(2, 3, dtype=torch.int64), -1, ValueError, "negative"),
        (torch.zeros(2, 3, dtype=torch.int64), 2.0, TypeError, "num_nodes"),
        (torch.zeros(2, 3, dtype=torch.int64), (1, 2, 3), TypeError, "num_nodes"),
    ],
)
def test_rejects(edge_index, num_nodes, error, message):
    with pytest.raises(error, match=message):
        Graph.from_edge_index(edge_index, num_nodes)


@pytest.mark.parametrize(
    "indptr, indices, message",
    [
        ([1, 2], [0, 0], "indptr must go from 0"),
        ([0, 3], [0, 0], "indptr must go from 0"),
        ([0, 2, 1, 2], [0, 0], "must not decrease, got 2, 1 at row 1"),
        ([0, 2], [0, 3], "edge 1 comes from 3"),
        ([0, 2], [-1, 0], "edge 0 comes from -1"),
        ([], [], "num_dst"),
    ],
)
def test_from_csr_rejects(indptr, indices, message):
    tensors = [torch.tensor(values, dtype=torch.int64) for values in (indptr, indices)]
    with pytest.raises(ValueError, match=message):
        Graph.from_csr(*tensors, num_src=3)


def test_self_loops_are_replaced_and_keep_their_values():
    edge_index = torch.tensor([[0, 1, 1, 2, 1], [0, 0, 1, 1, 1]])
    g = Graph.from_edge_index(edge_index, 3)
    weight = torch.tensor([5.0, 1.0, 6.0, 2.0, 7.0])
    looped, attr = g.add_self_loops(weight, fill_value=9.0)
    assert looped.edge_index.tolist() == [[1, 2, 0, 1, 2], [0, 1, 0, 1, 2]]
    assert attr.tolist() == [1.0, 2.0, 5.0, 7.0, 9.0]
    assert g.add_self_loops() is looped
    bare, attr = g.remove_self_loops(weight)
    assert bare.num_edges == 2
    assert attr.tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="num_src == num_dst"):
        Graph.from_edge_index(edge_index, (3, 4)).add_self_loops()


def test_gcn_weights_are_those_of_the_dense_formula():
    g = Graph.from_edge_index(random_edges(6, 6), 6)
    weight = torch.rand(40, dtype=torch.float64, requires_grad=True)
    src, dst = g.edge_index
    degree = torch.zeros(6, dtype=torch.float64).index_add(0, dst, weight)
    expected = weight / (degree[src] * degree[dst]).sqrt()
    torch.testing.assert_close(g.gcn_weights(weight), expected)
    assert torch.autograd.gradcheck(g.gcn_weights, (weight,))
    assert g.gcn_weights() is g.gcn_weights()
    lonely = Graph.from_edge_index(torch.tensor([[0], [1]]), 3)
    assert lonely.gcn_weights().tolist() == [0.0]


def test_repr_to_and_copy():
    g = Graph.from_edge_index(random_edges(), (7, 5))
    assert repr(g) == (
        "Graph(num_src=7, num_dst=5, num_edges=40, in_degree mean 8.0 max "
        f"{int(g.in_degree.max())}, int32, cpu)"
    )
    assert g.to("cpu") is g
    assert g.prepare() is g
    assert "reverse ready" in repr(g)
    assert torch.equal(copy.deepcopy(g).edge_index, g.edge_index)


def test_matrices_past_the_range_of_int32_use_int64():
    g = Graph.from_edge_index(torch.tensor([[2**31 + 5, 0], [0, 1]]), (2**31 + 6, 2))
    assert g.index_dtype == torch.int64
    assert g.indices.tolist() == [2**31 + 5, 0]


def test_a_plan_covers_every_edge_once_and_cuts_long_rows():
    degree = torch.tensor([0, 3000, 1, 0, 2048, 2049, 10_000, 0] + [3] * 5000)
    indptr = torch.cat((torch.zeros(1, dtype=torch.int64), degree.cumsum(0)))
    num_edges = int(indptr[-1])
    plan = _native.make_plan(indptr, num_edges)
    num_items, num_long, num_slots, largest = plan[4:8].tolist()
    group = min(max((len(degree) + num_edges) // 16, 256), 2048)
    bound = (2 * (len(degree) + num_edges) + 3 * num_edges) // group + 2
    items = plan[8 : 8 + 5 * num_items].view(-1, 5)
    assert largest == 10_000
    assert num_items <= bound
    assert items[0, 2] == 0
    assert items[-1, 3] == num_edges
    assert torch.equal(items[1:, 2], items[:-1, 3])
    assert int((items[:, 3] - items[:, 2]).max()) <= 2048
    assert num_long == 3
    assert num_slots == 2 + 2 + 5
    assert torch.equal(items[:, 4][items[:, 4] >= 0], torch.arange(num_slots))


def test_sorting_a_million_edges():
    edge_index = torch.from_numpy(np.random.default_rng(0).integers(0, 100_000, (2, 1_000_000)))
    _, indptr, indices, edge_id = gnnkern._sorting.sort_edges(
        edge_index[1], edge_index[0], 100_000, 100_000, torch.int32
    )
    assert int(indptr[-1]) == 1_000_000
    assert edge_id is not None
    assert torch.equal(edge_index[1][edge_id.long()], edge_index[1].sort(stable=True).values)
    assert torch.equal(edge_index[0][edge_id.long()], indices.long())


def _aggregate_in_child(queue, edge_index, x):
    # Tensors come from the parent: large ones made here would wait for torch's own threads.
    g = Graph.from_edge_index(edge_index, 1000)
    queue.put(gnnkern.spmm(g, x)[0, 0].item())


def test_a_forked_child_does_not_hang():
    # The parent's pool has run: the child inherits its memory but not its threads.
    edge_index, x = torch.randint(0, 1000, (2, 100_000)), torch.ones(1000, 64)
    g = Graph.from_edge_index(edge_index, 1000)
    expected = gnnkern.spmm(g, x)[0, 0].item()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_aggregate_in_child, args=(queue, edge_index, x))
    child.start()
    try:
        assert queue.get(timeout=60) == expected
    finally:
        child.kill()
        child.join()
