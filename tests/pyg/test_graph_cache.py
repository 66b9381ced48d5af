"""Graphs kept for index tensors: never for other bytes than those they were made from."""

import copy
import gc
import io
import threading

import numpy
import pytest
import torch

import gnnkern
from gnnkern.integrations.pyg import report
from gnnkern.integrations.pyg.graph_cache import GraphCache

WIDE, NARROW = 64, 1


def edges(seed=0, num=40):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(10, (2, num), generator=generator)


@pytest.fixture(autouse=True)
def _counts():
    report.reset()


def counts(what):
    return gnnkern.pyg_report().graphs.get(what, 0)


def get(cache, edge_index, width=WIDE):
    return cache.graph(edge_index[1], edge_index[0], 10, 10, width)


def assert_fresh(cache, edge_index):
    """What the cache gives is the graph of what the edges are now."""
    graph = get(cache, edge_index)
    assert torch.equal(graph.edge_index, edge_index)


def test_a_graph_is_found_again_through_other_views():
    cache, edge_index = GraphCache(), edges()
    graph = get(cache, edge_index)
    assert get(cache, edge_index) is graph
    src, dst = edge_index
    assert cache.graph(dst, src, 10, 10, WIDE) is graph
    assert cache.graph(dst, src, 11, 10, WIDE) is not graph
    assert cache.graph(src, dst, 10, 10, WIDE) is not graph
    assert cache.graph(dst[1:], src[1:], 10, 10, WIDE).num_edges == 39
    assert counts("hit") == 2


def change_item(e):
    e[1, 3] = (e[1, 3] + 1) % 10


def change_view(e):
    e[1].add_(1).remainder_(10)


def change_detached(e):
    e.detach()[0, 0] = (e[0, 0] + 3) % 10


def change_order(e):
    e.copy_(e[:, torch.randperm(e.shape[1])])


def change_out(e):
    torch.add(e, 1, out=e)
    e.remainder_(10)


@pytest.mark.parametrize(
    "change", [change_item, change_view, change_detached, change_order, change_out]
)
def test_changes_in_place_are_seen(change):
    cache, edge_index = GraphCache(), edges()
    assert_fresh(cache, edge_index)
    change(edge_index)
    assert_fresh(cache, edge_index)
    assert counts("stale") >= 1


def change_data(e):
    e.data[1, 3] = (e[1, 3] + 1) % 10


def change_numpy(e):
    numpy.asarray(e)[0, 5] += 1
    numpy.asarray(e)[0, 5] %= 10


def change_dlpack(e):
    torch.from_dlpack(e.__dlpack__())[0, 2] = (int(e[0, 2]) + 1) % 10


def swap_numpy(e):
    array = numpy.asarray(e)
    i = int((array[1] != array[1, 0]).argmax())
    array[1, [0, i]] = array[1, [i, 0]]


@pytest.mark.parametrize("change", [change_data, change_numpy, change_dlpack, swap_numpy])
def test_writes_that_no_counter_sees_are_found_where_they_are_checked(change):
    cache, edge_index = GraphCache(check_writes=True), edges()
    assert_fresh(cache, edge_index)
    assert get(cache, edge_index) is get(cache, edge_index)
    change(edge_index)
    assert_fresh(cache, edge_index)
    assert counts("stale") >= 1


def test_data_assigned_anew_is_seen():
    cache, edge_index = GraphCache(), edges()
    assert_fresh(cache, edge_index)
    edge_index.data = edges(1)
    assert_fresh(cache, edge_index)


def test_memory_used_again_is_another_tensor():
    cache = GraphCache()
    addresses = set()
    for seed in range(30):
        edge_index = edges(seed, 4000)
        addresses.add(edge_index.data_ptr())
        assert_fresh(cache, edge_index)
        del edge_index
    assert len(addresses) < 30, "no memory was used again: the test shows nothing"


def test_an_entry_goes_with_its_tensor():
    cache, edge_index = GraphCache(), edges()
    get(cache, edge_index)
    assert cache.num_bytes > 0
    del edge_index
    gc.collect()
    assert cache.num_bytes == 0


def test_a_wide_reduction_sorts_at_once_and_a_narrow_one_when_met_again():
    cache, edge_index = GraphCache(), edges()
    assert get(cache, edge_index, NARROW) is None
    assert get(cache, edge_index, NARROW) is not None
    assert get(cache, edges(1), WIDE) is not None
    assert counts("met") == 1


def test_the_bound_in_bytes():
    one = GraphCache()
    kept = [edges(seed, 1000) for seed in range(6)]
    get(one, kept[0])
    cache = GraphCache(max_bytes=3 * one.num_bytes)
    for edge_index in kept:
        get(cache, edge_index)
        get(cache, kept[0])
    assert cache.num_bytes <= cache.max_bytes
    before = counts("hit")
    get(cache, kept[0])
    assert counts("hit") == before + 1
    get(cache, kept[1])
    assert counts("hit") == before + 1
    nothing = GraphCache(max_bytes=10)
    assert_fresh(nothing, kept[0])
    assert nothing.num_bytes <= 10
    assert_fresh(nothing, kept[0])


def test_slices_of_one_tensor_do_not_pile_up():
    cache, edge_index = GraphCache(), edges(0, 500)
    for start in range(300):
        part = edge_index[:, start : start + 100]
        assert torch.equal(get(cache, part).edge_index, part)
    (entries,) = cache._owners.values()
    assert len(entries.by_key) <= 64


def test_threads_get_their_own_graphs():
    cache = GraphCache()
    wrong = []

    def work(seed):
        edge_index = edges(seed)
        for _ in range(20):
            if not torch.equal(get(cache, edge_index).edge_index, edge_index):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_tensors_carry_nothing_and_inference_tensors_are_not_kept():
    cache, edge_index = GraphCache(), edges()
    get(cache, edge_index)
    buffer = io.BytesIO()
    torch.save(edge_index, buffer)
    plain = io.BytesIO()
    torch.save(edges(), plain)
    assert len(buffer.getvalue()) == len(plain.getvalue())
    copied = copy.deepcopy(edge_index)
    assert_fresh(cache, copied)
    with torch.inference_mode():
        made = edges(3)
        before = cache.num_bytes
        assert_fresh(cache, made)
        assert cache.num_bytes == before


def test_an_index_out_of_range_is_refused_and_not_kept():
    cache, edge_index = GraphCache(), edges() + 5
    for _ in range(2):
        with pytest.raises(ValueError, match="expected ids in"):
            get(cache, edge_index)


def test_results_that_somebody_writes_to_are_made_anew():
    cache, edge_index = GraphCache(), edges()

    def make():
        return (edge_index + 1, None)

    first, _ = cache.remember("plus one", (edge_index,), make)
    assert cache.remember("plus one", (edge_index,), make)[0] is first
    first[0, 0] = 77
    assert torch.equal(cache.remember("plus one", (edge_index,), make)[0], edge_index + 1)


class TestInPyG:
    @pytest.fixture(autouse=True)
    def _patched(self):
        pytest.importorskip("torch_geometric", reason="torch_geometric is not installed")
        yield
        gnnkern.unpatch_pyg()

    @pytest.mark.parametrize("name", ["GCNConv", "GATConv", "SAGEConv"])
    def test_layers_make_their_loops_and_graphs_once(self, name):
        from torch_geometric import nn

        layer, x, edge_index = getattr(nn, name)(4, 32), torch.randn(10, 4), edges()
        expected = layer(x, edge_index)
        gnnkern.patch_pyg("ops")
        for _ in range(3):
            torch.testing.assert_close(layer(x, edge_index), expected)
        made = counts("built")
        for _ in range(3):
            torch.testing.assert_close(layer(x, edge_index), expected)
        assert counts("built") == made
        change_item(edge_index)
        changed = layer(x, edge_index)
        gnnkern.unpatch_pyg()
        torch.testing.assert_close(changed, layer(x, edge_index))

    def test_nothing_is_kept_alive(self):
        from torch_geometric.nn import GCNConv

        gnnkern.patch_pyg("ops")
        from gnnkern.integrations.pyg.patching import _Patch

        for add_self_loops in (True, False):
            layer = GCNConv(4, 32, add_self_loops=add_self_loops)
            edge_index = edges()
            for _ in range(3):
                layer(torch.randn(10, 4), edge_index)
            assert _Patch.cache.num_bytes > 0
            del edge_index
            gc.collect()
            assert _Patch.cache.num_bytes == 0

    def test_writes_are_checked_on_request(self):
        from torch_geometric.nn import GCNConv

        layer, x, edge_index = GCNConv(4, 32), torch.randn(10, 4), edges()
        gnnkern.patch_pyg("ops", check_writes=True)
        for _ in range(3):
            layer(x, edge_index)
        change_numpy(edge_index)
        mine = layer(x, edge_index)
        gnnkern.unpatch_pyg()
        torch.testing.assert_close(mine, layer(x, edge_index))
