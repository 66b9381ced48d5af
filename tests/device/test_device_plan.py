"""The plan: which chunks the rows of more than T edges are cut into."""

from importlib import import_module

import pytest
import torch
from helpers.devices import DEVICE, device_graph, on_device
from ops.test_spmm import spmm_call

from gnnkern._native import Csr
from gnnkern._triton import configs
from gnnkern._walk import drop_empty, plan_shape

CHUNK = 16
DEGREES = {
    "none": [],
    "no_edges": [0, 0, 0],
    "one_short": [16],
    "one_long": [17],
    "two_long": [17, 17],
    "neighbours_in_one_block": [3, 33, 1, 0, 2, 18, 40, 16, 17],
    "whole_blocks": [16, 32, 16, 48],
    "empty_ends": [0, 0, 100, 0],
    "hub": [1] * 30 + [1000] + [2] * 30,
}


@pytest.fixture
def make_plan(backend):
    return import_module(f"gnnkern._{backend}.plan").make_plan


@pytest.fixture
def rows(backend):
    return import_module(f"gnnkern._{backend}.row_reduce")


def indptr_of(degrees, dtype=torch.int64):
    degrees = torch.tensor(degrees, dtype=torch.int64)
    return torch.nn.functional.pad(degrees.cumsum(0), (1, 0)).to(DEVICE, dtype)


def expected_chunks(degrees):
    chunks, begin = [], 0
    for row, degree in enumerate(degrees):
        if degree > CHUNK:
            cuts = range(begin, begin + degree, CHUNK)
            chunks.append([(row, cut, min(cut + CHUNK, begin + degree)) for cut in cuts])
        begin += degree
    return chunks


def slot(first, part, distance):
    return first + distance * part - (distance - 1 if part > 0 else 0)


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("name", DEGREES)
def test_chunks(name, dtype, compact, make_plan):
    indptr = indptr_of(DEGREES[name], dtype)
    num_edges = sum(DEGREES[name])
    plan = make_plan(indptr, num_edges)
    assert tuple(plan.shape) == plan_shape(len(DEGREES[name]), num_edges, CHUNK)
    assert plan.dtype == dtype
    plan = drop_empty(plan) if compact else plan
    expected = expected_chunks(DEGREES[name])
    if plan.shape[0] == 0:
        assert expected == []
        return
    (chunk_edges, distance, _, _), *records = plan.tolist()
    assert chunk_edges == CHUNK
    assert sum(row >= 0 for row, *_ in records) == sum(map(len, expected))
    for chunks in expected:
        first = records[[record[:3] for record in records].index(list(chunks[0]))][3]
        for part, chunk in enumerate(chunks):
            assert records[slot(first, part, distance)] == [*chunk, first]


@pytest.mark.parametrize("reduce", ["sum", "max"])
def test_empty_slots_change_nothing(reduce, make_plan, rows):
    g = device_graph("hubs")
    call = on_device(spmm_call(g, 3))
    full = g.csr._replace(plan=make_plan(g.indptr, g.num_edges))
    compact = g.csr._replace(plan=drop_empty(full.plan))
    assert compact.plan.shape[0] < full.plan.shape[0]
    results = [rows.row_reduce(csr, *call.tensors, reduce)[0] for csr in (full, compact)]
    assert torch.equal(*results)


def test_a_plan_keeps_its_chunks(make_plan, rows):
    # The plan says how long a chunk is, whatever the configuration says now.
    g = device_graph("hubs")
    call = on_device(spmm_call(g, 3))
    csr = g.csr._replace(plan=drop_empty(make_plan(g.indptr, g.num_edges)))
    expected = rows.row_reduce(csr, *call.tensors, "sum")[0]
    with configs.configured(chunk_edges=5):
        assert torch.equal(rows.row_reduce(csr, *call.tensors, "sum")[0], expected)


def test_no_plan_where_no_row_is_long(rows):
    assert rows.LOOP.walk_of(device_graph("multi_edges").csr).plan is None


def test_an_invalid_indptr_reads_nothing_outside(rows):
    # Checked on the CPU alone: on a GPU, reading it would stall.
    indptr = torch.tensor([-5, 3, 2, 90], dtype=torch.int64, device=DEVICE)
    csr = Csr(indptr, torch.arange(8, device=DEVICE), None, indptr.new_empty(0, 4))
    out, _ = rows.row_reduce(csr, torch.ones(8, 1, device=DEVICE), None, "sum")
    assert out.flatten().tolist() == [3, 0, 6]
