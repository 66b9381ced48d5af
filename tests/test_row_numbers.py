"""Row numbers of 32 and 64 bits: what a graph stores, what kernels count in."""

import pytest
import torch
from helpers.cases import normal
from helpers.graphs import fresh_graph

import gnnkern
from gnnkern import _native
from gnnkern._cpu.row_reduce import reduce_segments
from gnnkern.graph import Graph

ISAS = _native.module().build_info()["isas"]
GRAPHS = ["power_law", "long_rows", "bipartite"]


def wide(name: str, monkeypatch: pytest.MonkeyPatch) -> Graph:
    """The graph, stored as one whose counts do not fit 32 bits."""
    with monkeypatch.context() as patch:
        patch.setattr("gnnkern.graph._INT32_MAX", 0)
        g = fresh_graph(name).prepare(backward=True)
    assert g.csr.indptr.dtype == torch.int64
    return g


def calls(g: Graph):
    """Per kernel one call: a function and the tensors that it differentiates."""
    src, dst, edges = g.num_src, g.num_dst, g.num_edges
    x, y = normal(src, 2, 16), normal(dst, 2, 16)
    scores = normal(src, 2), normal(dst, 2)
    weight, rows = normal(edges, 2), normal(edges, 2, 16)
    flat, thin = normal(src, 24), normal(edges, 24)
    yield "spmm", lambda x, w: gnnkern.spmm(g, x, w), (x, weight)
    yield "max", lambda x, w: gnnkern.spmm(g, x, w, reduce="max"), (x, weight)
    yield "messages", lambda x, e: gnnkern.spmm(g, x, e, op="add"), (flat, thin)
    yield "sddmm", lambda a, b: gnnkern.sddmm(g, a, b), (y, x)
    yield "softmax", lambda s: gnnkern.edge_softmax(g, s), (weight,)
    yield "multi", lambda x: gnnkern.multi_reduce(g, x, reduces=("sum", "max", "std")), (flat,)
    yield "gat", lambda x, a, b: gnnkern.gat_attention(g, x, a, b), (x, *scores)
    yield (
        "gatv2",
        lambda a, b, att, e: gnnkern.gatv2_attention(g, a, b, att, edge_x=e),
        (x, y, normal(2, 16), rows),
    )
    yield (
        "dot",
        lambda q, k, v, e: gnnkern.dot_attention(g, q, k, v, edge_x=e),
        (y, x, normal(src, 2, 16), rows),
    )


NAMES = [name for name, _, _ in calls(fresh_graph("power_law"))]


def results(g: Graph, which: str) -> list[torch.Tensor]:
    torch.manual_seed(0)
    op, tensors = next((op, tensors) for name, op, tensors in calls(g) if name == which)
    tensors = [tensor.float().requires_grad_() for tensor in tensors]
    out = op(*tensors)
    torch.manual_seed(1)
    return [out.detach(), *torch.autograd.grad(out, tensors, torch.randn_like(out))]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("which", NAMES)
def test_the_type_of_the_numbers_changes_no_bit(which, graph, isa, monkeypatch):
    module, best = _native.module(), _native.module().build_info()["isa"]
    module.set_isa(isa)
    try:
        narrow = results(fresh_graph(graph).prepare(backward=True), which)
        for a, b in zip(narrow, results(wide(graph, monkeypatch), which), strict=True):
            assert torch.equal(a, b)
    finally:
        module.set_isa(best)


@pytest.mark.skipif("baseline" not in ISAS, reason="a build without the baseline kernels")
def test_numbers_beyond_32_bits_run_on_every_processor(monkeypatch):
    # One row of x stands for all, 0 elements apart, so that no table of that size is needed.
    g = wide("power_law", monkeypatch)
    beyond = 2**31 + 5
    indices = torch.full((g.num_edges,), beyond, dtype=torch.int64)
    fields = list(_native.fields(g.csr._replace(indices=indices), beyond + 1))
    x, out = torch.arange(1.0, 9.0), torch.empty(g.num_dst, 8)
    _native.module().row_reduce(
        tuple(fields), 0, x.data_ptr(), 0, 8, 0, 1, 0, out.data_ptr(), 0, 0, 0, 2
    )
    assert torch.equal(out, g.in_degree[:, None] * x)


def test_segments_have_their_edges_for_rows():
    x = normal(5000, 3)
    indptr = torch.tensor([0, 2, 2, 4500, 5000])
    narrow, _ = reduce_segments(indptr.int(), x, "sum")
    assert torch.equal(narrow, reduce_segments(indptr, x, "sum")[0])
