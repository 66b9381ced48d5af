"""The cost model against counts by hand on graphs that are small enough for it."""

import math

import pytest
import torch

from gnnkern import Graph, ops
from gnnkern.hardware.cost import Cost, Edges, Gather, Reads, cost, predict, times
from gnnkern.hardware.efficiency import EFFICIENCY, efficiency_of
from gnnkern.hardware.op_traffic import INPUTS, TRAFFIC

# Ops in the order of their destinations: 0 -> 0, 1 -> 0, 1 -> 1, 1 -> 3; source 2 is never read,
# destination 2 has no edge.
EDGES = [[0, 1, 1, 1], [0, 0, 1, 3]]
N, E = 4, 4
READ, REACHED = 2, 3


def graph(order=(0, 1, 2, 3)):
    return Graph.from_edge_index(torch.tensor(EDGES)[:, list(order)], N)


STRUCTURE = (E + N + 1) * 4
ORDER = E * 4
ROW = 8 * 4


def test_spmm_forward():
    c = cost("spmm", graph(), width=8)
    assert c.index_bytes == STRUCTURE
    # Two rows are read, four are written.
    assert c.compulsory_bytes == STRUCTURE + READ * ROW + N * ROW
    assert c.gathered_bytes == E * ROW
    assert c.flops == E * 8
    assert [(g.row_bytes, g.table_bytes) for g in c.gathers] == [(ROW, READ * ROW)]


def test_spmm_weighted_reads_the_order_where_there_is_one():
    in_order = cost("spmm", graph(), width=8, weighted=True)
    assert in_order.compulsory_bytes == STRUCTURE + (READ + N) * ROW + E * 4
    assert in_order.flops == 2 * E * 8
    mixed = cost("spmm", graph((3, 0, 1, 2)), width=8, weighted=True)
    assert mixed.compulsory_bytes == in_order.compulsory_bytes + ORDER
    heads = cost("spmm", graph(), width=8, weighted=True, heads=2)
    assert heads.compulsory_bytes == in_order.compulsory_bytes + E * 4


def test_spmm_gradients():
    forward = cost("spmm", graph(), width=8)
    both = cost("spmm", graph(), width=8, backward=["x"])
    # The gradients of three destinations are read, those of all sources written.
    assert both.compulsory_bytes - forward.compulsory_bytes == STRUCTURE + (REACHED + N) * ROW
    assert both.gathered_bytes == 2 * E * ROW
    weighted = cost("spmm", graph(), width=8, weighted=True)
    full = cost("spmm", graph(), width=8, weighted=True, backward=["x", "weight"])
    of_x = STRUCTURE + ORDER + (REACHED + N) * ROW + E * 4
    of_weight = STRUCTURE + (READ + REACHED) * ROW + E * 4
    assert full.compulsory_bytes - weighted.compulsory_bytes == of_x + of_weight
    assert full.gathered_bytes == 3 * E * ROW


def test_spmm_max_gathers_nothing_backward():
    forward = cost("spmm", graph(), width=8, reduce="max")
    both = cost("spmm", graph(), width=8, reduce="max", backward=["x"])
    # A byte per winner, written and read; gradients read and written.
    assert both.compulsory_bytes - forward.compulsory_bytes == 2 * N * 8 + 2 * N * ROW
    assert both.gathered_bytes == forward.gathered_bytes == E * ROW


def test_halves_take_half():
    full, half = (cost("spmm", graph(), width=8, dtype=t) for t in (torch.float32, torch.bfloat16))
    assert half.gathered_bytes * 2 == full.gathered_bytes
    assert (half.compulsory_bytes - STRUCTURE) * 2 == full.compulsory_bytes - STRUCTURE


def test_sddmm():
    dot = cost("sddmm", graph(), width=8)
    assert dot.compulsory_bytes == STRUCTURE + (READ + REACHED) * ROW + E * 4
    add = cost("sddmm", graph(), width=8, edge_op="add")
    assert add.compulsory_bytes == STRUCTURE + (READ + REACHED) * ROW + E * ROW
    assert dot.gathered_bytes == add.gathered_bytes == E * ROW
    assert cost("sddmm", graph(), width=8, backward=INPUTS["sddmm"]).gathered_bytes == 3 * E * ROW


def test_edge_softmax_streams():
    forward = cost("edge_softmax", graph(), width=2)
    assert forward.compulsory_bytes == (N + 1) * 4 + 2 * E * 2 * 4
    both = cost("edge_softmax", graph(), width=2, backward=["score"])
    assert both.compulsory_bytes == 2 * (N + 1) * 4 + 5 * E * 2 * 4
    assert both.gathered_bytes == 0


def test_gat_attention():
    c = cost("gat_attention", graph(), width=8, heads=2)
    assert c.compulsory_bytes == STRUCTURE + (READ + N) * ROW + (READ + N) * 2 * 4


@pytest.mark.parametrize(
    ("op", "forward", "total"),
    [
        ("spmm", 1, 3),
        ("sddmm", 1, 3),
        ("gat_attention", 1, 2),
        ("gatv2_attention", 1, 3),
        ("dot_attention", 2, 5),
        ("multi_reduce", 1, 2),
        ("segment_reduce", 0, 0),
        ("segment_matmul", 0, 0),
        ("scatter_reduce", 0, 1),
    ],
)
def test_gathers(op, forward, total):
    options = {"width": 8, "heads": 2, "out_width": 4, "reduce": "mean"}
    assert len(cost(op, graph(), **options).gathers) == forward
    assert len(cost(op, graph(), **options, backward=INPUTS[op]).gathers) == total


def test_multi_reduce_gathers_once_for_all():
    c = cost("multi_reduce", graph(), width=8, reduce=("mean", "min", "max", "std"))
    assert c.gathered_bytes == E * ROW
    assert c.compulsory_bytes == STRUCTURE + (READ + 4 * N) * ROW


def test_segments_and_groups():
    rows = Edges.segments(3, 10, max_degree=5, index_bytes=8)
    reduced = cost("segment_reduce", rows, width=8)
    assert reduced.compulsory_bytes == 4 * 8 + 13 * ROW
    repeated = cost("segment_gather", rows, width=8)
    assert repeated.compulsory_bytes == 4 * 8 + 13 * ROW
    scattered = cost("scatter_reduce", rows, width=8)
    assert scattered.compulsory_bytes == 10 * 8 + 13 * ROW


def test_segment_matmul():
    rows = Edges.segments(3, 10)
    c = cost("segment_matmul", rows, width=8, out_width=5, weighted=True)
    assert c.compulsory_bytes == 4 * 8 + 4 * (10 * 8 + 10 * 5 + 3 * 8 * 5 + 3 * 5)
    assert c.flops == 2 * 10 * 8 * 5
    both = cost("segment_matmul", rows, width=8, out_width=5, backward=["x", "weight"])
    assert both.flops == 3 * c.flops


def test_every_op_has_an_entry():
    assert set(ops.__all__) <= set(TRAFFIC) == set(INPUTS)
    for op in ops.__all__:
        assert efficiency_of(op, ("sum",)) in EFFICIENCY.values()


@pytest.mark.parametrize("op", TRAFFIC)
def test_more_costs_more(op, machine):
    generator = torch.Generator().manual_seed(0)
    pairs = torch.randint(40, (2, 300), generator=generator)
    small, large = (Graph.from_edge_index(pairs[:, :count], 40) for count in (100, 300))
    options = {"heads": 4, "out_width": 16, "reduce": "sum"}

    def moved(g, width, backward=()):
        c = cost(op, g, width=width, backward=backward, **options)
        floor = times(c, machine).floor_s
        assert 0 < c.index_bytes < c.compulsory_bytes and floor > 0
        return c.compulsory_bytes + c.gathered_bytes, floor

    # Rows of a line and of two: narrower ones take the time of a line.
    base = moved(small, 16)
    for more in (moved(large, 16), moved(small, 32), moved(small, 16, INPUTS[op])):
        assert more[0] > base[0] and more[1] > base[1]
    predicted = predict(op, small, machine=machine, width=8, **options)
    assert set(predicted) == {"cpu", "reference"}
    both = predict(op, large, machine=machine, width=8, backward=INPUTS[op], **options)
    assert all(0 < predicted[name] < both[name] for name in both)


@pytest.mark.parametrize("op", TRAFFIC)
@pytest.mark.parametrize(("nodes", "edges"), [(0, 0), (5, 0), (1, 1)])
def test_next_to_nothing(op, nodes, edges, machine):
    g = Graph.from_edge_index(torch.zeros(2, edges, dtype=torch.int64), nodes)
    for width in (0, 1):
        c = cost(op, g, width=width, out_width=width, backward=INPUTS[op])
        assert math.isfinite(times(c, machine).floor_s)
        assert all(math.isfinite(s) for s in predict(op, g, machine=machine, width=width).values())


# -- reads and times -------------------------------------------------------------------------------


def test_reads_of_degrees():
    reads = Reads.of_degrees(torch.tensor([1, 0, 5, 2]))
    assert (reads.rows, reads.distinct, reads.count) == (4, 3, 8)
    assert reads.hottest == (5 / 8, 7 / 8, 1.0)
    assert Reads.of_degrees(torch.zeros(3, dtype=torch.int64)).distinct == 0


def test_reads_of_a_graph_with_and_without_its_reverse():
    g = graph()
    unprepared = Edges.of(g).sources
    assert g._reverse is None
    assert unprepared == Edges.of(graph().prepare()).sources
    assert unprepared == Reads(4, 2, 4, (0.75, 1.0))
    assert Edges.of(g).targets == Reads.of_degrees(torch.tensor([2, 1, 0, 1]))


@pytest.mark.parametrize("rows", [1, 100, 4096, 1 << 20])
def test_even_reads_take_the_measured_time(rows, machine):
    gather = Gather(64, Reads.evenly(rows, 1 << 22))
    seconds = times(Cost(gathers=(gather,)), machine).cache_s
    expected = gather.bytes / machine.gather_bandwidth(64, rows * 64)
    assert seconds == pytest.approx(expected, rel=0.03)


def test_hot_rows_are_found_in_caches(machine):
    rows, count = 1 << 20, 1 << 22
    even = Gather(64, Reads.evenly(rows, count))
    # All but a hundredth of the reads go to 1024 rows, which fit into the cache.
    steps = [2**k for k in range(21)]
    hottest = tuple(0.99 * min(n / 1024, 1) + 0.01 * n / rows for n in steps)
    hot = Gather(64, Reads(rows, rows, count, hottest))
    seconds = [times(Cost(gathers=(gather,)), machine).cache_s for gather in (hot, even)]
    assert seconds[0] < seconds[1] / 4
    assert seconds[0] >= hot.bytes / machine.gather_bandwidth(64, 0) * 0.99


def test_times_are_bytes_by_rates(machine):
    reads = Reads.evenly(1000, 1 << 24)
    moved = Cost(compulsory_bytes=1 << 28, flops=10**9, gathers=(Gather(256, reads),))
    t = times(moved, machine)
    assert t.compulsory_s == pytest.approx((1 << 28) / 1e10)
    assert t.gather_s == pytest.approx((1 << 32) / 1e10)
    assert t.cache_s == pytest.approx((1 << 32) / 8e10, rel=0.01)
    assert t.compute_s == pytest.approx(1e-2)
    assert t.floor_s == max(t.compulsory_s, t.cache_s, t.compute_s)
    assert times(moved, machine, dtype=torch.bfloat16).compute_s == pytest.approx(2.5e-3)
    assert times(moved, machine, dtype=torch.float64).compute_s == pytest.approx(2e-2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: cost("spnm", graph()), ValueError, r"cost: op must be one of .*, got 'spnm'"),
        (lambda: cost("spmm", 3), TypeError, "cost: g must be a gnnkern.Graph or Edges, got int"),
        (
            lambda: cost("spmm", graph(), backward=["y"]),
            ValueError,
            "cost: backward of spmm must be some of x, weight, got 'y'",
        ),
    ],
)
def test_rejects(call, error, message):
    with pytest.raises(error, match=message):
        call()
