"""Graphs by DGL's names: structure, features, scopes, batches and readouts."""

import pytest
import scipy.sparse
import torch
from definitions import REDUCE
from helpers.graphs import graph

import gnnkern
import gnnkern.integrations.dgl as dgl
import gnnkern.integrations.dgl.function as fn


def small():
    g = dgl.graph((torch.tensor([0, 1, 2, 0]), torch.tensor([1, 2, 0, 1])), num_nodes=4)
    g.ndata["h"] = torch.arange(4.0)
    g.edata["w"] = torch.arange(4.0) + 10
    return g


def two_types():
    return dgl.heterograph(
        {("u", "f", "u"): ([0, 1], [1, 2]), ("u", "b", "i"): ([0, 1, 2], [0, 0, 1])},
        {"u": 4, "i": 3},
    )


MATRIX = scipy.sparse.coo_array(([1.0, 1.0], ([0, 1], [1, 2])), shape=(3, 3))


@pytest.mark.parametrize(
    "data",
    [
        ([0, 1], [1, 2]),
        (torch.tensor([0, 1], dtype=torch.int32), torch.tensor([1, 2], dtype=torch.int32)),
        torch.tensor([[0, 1], [1, 2]]),
        [(0, 1), (1, 2)],
        MATRIX,
    ],
    ids=["lists", "tensors", "edge_index", "pairs", "scipy"],
)
def test_edges_as_they_come(data):
    g = dgl.graph(data)
    assert (g.num_nodes(), g.num_edges(), g.device.type) == (3, 2, "cpu")
    assert [end.tolist() for end in g.edges()] == [[0, 1], [1, 2]]
    assert (g.ntypes, g.canonical_etypes, g.is_homogeneous) == (["_N"], [("_N", "_E", "_N")], True)


def test_edges_in_every_form():
    g = small()
    assert [x.tolist() for x in g.edges(form="all")] == [[0, 1, 2, 0], [1, 2, 0, 1], [0, 1, 2, 3]]
    u, v, eid = g.edges("all", order="srcdst")
    assert (u.tolist(), v.tolist(), eid.tolist()) == ([0, 0, 1, 2], [1, 1, 2, 0], [0, 3, 1, 2])
    assert g.edges("eid").tolist() == [0, 1, 2, 3]
    assert [x.tolist() for x in g.find_edges([3, 1])] == [[0, 1], [1, 2]]
    assert g.nodes().tolist() == [0, 1, 2, 3] == g.srcnodes().tolist()
    assert dgl.graph(([], [])).num_nodes() == dgl.graph([]).num_edges() == 0


def test_degrees():
    g = small()
    assert g.in_degrees().tolist() == [1, 2, 1, 0] and g.out_degrees().tolist() == [2, 1, 1, 0]
    assert g.in_degrees(1) == 2 and g.out_degrees([0, 3]).tolist() == [2, 0]
    h = two_types()
    assert h.in_degrees(etype="b").tolist() == [2, 1, 0]
    assert h.out_degrees(torch.tensor([3]), "b").tolist() == [0]


def test_types():
    h = two_types()
    assert h.ntypes == ["i", "u"] == h.srctypes and h.etypes == ["b", "f"]
    assert h.canonical_etypes == [("u", "b", "i"), ("u", "f", "u")] and not h.is_homogeneous
    assert (h.num_nodes("u"), h.num_nodes(), h.num_edges("b"), h.number_of_edges()) == (4, 7, 3, 5)
    assert h.nodes("i").tolist() == [0, 1, 2] and h.to_canonical_etype("f") == ("u", "f", "u")
    assert (h["b"].num_src_nodes(), h["b"].num_dst_nodes()) == (4, 3)
    assert isinstance(h.relation("b"), gnnkern.Graph) and "'i': 3" in repr(h)
    only = h.edge_type_subgraph(["f"])
    assert only.ntypes == ["u"] and only.num_edges() == 2


def test_blocks():
    g = dgl.create_block(([0, 1, 2], [0, 0, 1]), num_src_nodes=4, num_dst_nodes=2)
    assert g.is_block and (g.num_src_nodes(), g.num_dst_nodes(), g.num_nodes()) == (4, 2, 6)
    assert g.srctypes == g.dsttypes == ["_N"] and g.ntypes == ["_N", "_N"]
    g.srcdata["h"] = torch.ones(4, 1)
    g.update_all(fn.copy_u("h", "m"), fn.sum("m", "o"))
    assert g.dstdata["o"].flatten().tolist() == [2, 1] and "o" not in g.srcdata
    assert g.srcnodes["_N"].data is g.srcdata and "num_src_nodes" in repr(g)
    edges = {("u", "b", "i"): ([0], [0]), ("i", "r", "u"): ([2], [1])}
    h = dgl.create_block(edges, {"u": 5, "i": 3})
    assert (h.num_src_nodes("u"), h.num_dst_nodes("u"), h.num_dst_nodes("i")) == (5, 2, 1)


def test_features():
    g = small()
    assert g.srcdata is g.ndata is g.dstdata and list(g.ndata) == ["h"]
    g.ndata.update({"a": torch.ones(4, 2)})
    assert g.ndata.pop("a").shape == (4, 2) and "a" not in g.ndata
    assert g.edges["_E"].data is g.edata and g.nodes["_N"].data is g.ndata
    h = two_types()
    h.ndata["x"] = {"u": torch.ones(4)}
    h.nodes["i"].data["y"] = torch.ones(3)
    assert list(h.ndata["x"]) == ["u"] and set(h.ndata) == {"x", "y"} and len(h.ndata) == 2
    h.edata["w"] = {"b": torch.ones(3), ("u", "f", "u"): torch.ones(2)}
    assert set(h.edata["w"]) == {("u", "b", "i"), ("u", "f", "u")}
    del h.edata["w"]
    assert not h.edata and not h.edges["f"].data


def test_scopes():
    g = small()
    before = g.ndata["h"]
    with g.local_scope():
        g.ndata["h"] = torch.zeros(4)
        g.edata["new"] = torch.zeros(4)
        g.update_all(fn.copy_u("h", "m"), fn.sum("m", "o"))
        assert g.ndata is g.dstdata and "o" in g.ndata
    assert g.ndata["h"] is before and "o" not in g.ndata and "new" not in g.edata
    with pytest.raises(RuntimeError, match="inside"), g.local_scope():
        g.ndata["o"] = torch.zeros(4)
        raise RuntimeError("inside")
    assert "o" not in g.ndata
    local = g.local_var()
    local.ndata["o"] = before
    assert "o" not in g.ndata and local.ndata["h"] is before and local.num_edges() == 4


def test_other_structures_of_a_graph():
    g = small()
    looped = dgl.add_self_loop(g)
    assert looped.edges()[0].tolist() == [0, 1, 2, 0, 0, 1, 2, 3]
    assert looped.edata["w"].tolist() == [10, 11, 12, 13, 1, 1, 1, 1]
    assert dgl.add_self_loop(g, ["other"], 5.0).edata["w"][4:].tolist() == [0, 0, 0, 0]
    assert looped.ndata["h"] is g.ndata["h"]
    back = dgl.remove_self_loop(looped)
    assert back.edges()[1].tolist() == g.edges()[1].tolist()
    assert back.edata["w"].tolist() == g.edata["w"].tolist()
    turned = dgl.reverse(g, copy_edata=True)
    assert turned.edges()[0].tolist() == g.edges()[1].tolist() and "h" in turned.ndata
    assert turned.edata["w"] is g.edata["w"] and not dgl.reverse(g).edata
    assert dgl.add_self_loop(two_types(), etype="f").num_edges("f") == 6
    assert dgl.reverse(two_types()).canonical_etypes == [("i", "b", "u"), ("u", "f", "u")]
    moved = g.to("cpu")
    assert moved.ndata["h"] is g.ndata["h"] and moved.ndata is not g.ndata
    assert moved.ndata is moved.dstdata


# -- batches ---------------------------------------------------------------------------------------


def molecules():
    """Three graphs, of which the second has no nodes."""
    graphs = [dgl.graph(([0, 1], [1, 2])), dgl.graph([]), dgl.graph(([0, 0, 1], [1, 0, 0]))]
    for g in graphs:
        g.ndata["h"] = torch.randn(g.num_nodes(), 2, dtype=torch.float64)
        g.ndata["w"] = torch.rand(g.num_nodes(), 1, dtype=torch.float64)
        g.edata["h"] = torch.randn(g.num_edges(), 2, dtype=torch.float64)
    return graphs


def test_batch_and_unbatch():
    graphs = molecules()
    joint = dgl.batch(graphs)
    assert joint.batch_size == 3 and joint.batch_num_nodes().tolist() == [3, 0, 2]
    assert joint.batch_num_edges().tolist() == [2, 0, 3]
    assert [end.tolist() for end in joint.edges()] == [[0, 1, 3, 3, 4], [1, 2, 4, 3, 3]]
    again = dgl.batch([joint, graphs[0]])
    assert again.batch_num_nodes().tolist() == [3, 0, 2, 3]
    for g, back in zip(graphs, dgl.unbatch(joint), strict=True):
        assert torch.equal(g.relation().edge_index, back.relation().edge_index)
        assert torch.equal(g.ndata["h"], back.ndata["h"])
        assert torch.equal(g.edata["h"], back.edata["h"]) and back.num_nodes() == g.num_nodes()
    assert dgl.unbatch(graphs[0])[0].num_nodes() == 3 and graphs[0].batch_size == 1
    h = dgl.batch([two_types(), two_types()])
    assert h.batch_num_nodes("u").tolist() == [4, 4] and h.relation("b").edge_index[1, 3] == 3


@pytest.mark.parametrize("what", ["nodes", "edges"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("op", ["sum", "mean", "max", "min"])
def test_readouts(what, weighted, op):
    graphs = molecules()
    joint = dgl.batch(graphs)
    field = "ndata" if what == "nodes" else "edata"
    getattr(joint, field)["f"] = getattr(joint, field)["h"].abs().sqrt()
    weight = "f" if weighted else None
    out = getattr(dgl, f"{op}_{what}")(joint, "h", weight)
    for row, g in zip(out, graphs, strict=True):
        own = getattr(g, field)["h"]
        own = own * own.abs().sqrt() if weighted else own
        torch.testing.assert_close(row, REDUCE[op](own) if len(own) else own.sum(0))
    same = getattr(dgl, f"readout_{what}")(joint, "h", weight, op=op)
    assert torch.equal(out, same)


def test_softmax_and_broadcast():
    graphs = molecules()
    joint = dgl.batch(graphs)
    rows = torch.randn(3, 4)
    for what, field in (("nodes", "ndata"), ("edges", "edata")):
        expected = torch.cat([getattr(g, field)["h"].softmax(0) for g in graphs])
        torch.testing.assert_close(getattr(dgl, f"softmax_{what}")(joint, "h"), expected)
        counts = torch.tensor([len(getattr(g, field)["h"]) for g in graphs])
        repeated = getattr(dgl, f"broadcast_{what}")(joint, rows)
        assert torch.equal(repeated, rows.repeat_interleave(counts, 0))
    weighted = dgl.sum_nodes(joint, "h", "w")
    torch.testing.assert_close(weighted[0], (graphs[0].ndata["h"] * graphs[0].ndata["w"]).sum(0))


# -- conversions and errors ------------------------------------------------------------------------


def test_graphs_of_the_same_interface_convert():
    h = two_types()
    h.nodes["u"].data["x"] = torch.ones(4)
    h.edges["b"].data["w"] = torch.ones(3)
    same = dgl.from_dgl(dgl.batch([h, h]))
    assert same.canonical_etypes == h.canonical_etypes and same.batch_size == 2
    assert same.nodes["u"].data["x"].shape == (8,) and same.edges["b"].data["w"].shape == (6,)
    g = gnnkern.Graph.from_dgl(h, "b")
    assert (g.num_src, g.num_dst) == (4, 3) and torch.equal(
        g.edge_index, h.relation("b").edge_index
    )
    block = dgl.create_block(tuple(graph("bipartite").edge_index), 13, 29)
    block.dstdata["y"] = torch.ones(29)
    assert dgl.from_dgl(block).dstdata["y"] is block.dstdata["y"]
    assert gnnkern.Graph.from_dgl(block).num_dst == 29


@pytest.mark.parametrize(
    "call, error, match",
    [
        (lambda: dgl.graph(5), dgl.DGLError, "edges must be a pair"),
        (lambda: dgl.graph(([0.5], [1.0])), dgl.DGLError, "must be integers"),
        (lambda: dgl.graph(([0, 1], [1])), dgl.DGLError, r"must have shape \[E\]"),
        (lambda: dgl.graph(([0], [5]), num_nodes=3), dgl.DGLError, "must be at least 6"),
        (lambda: dgl.graph(([0], [-1])), ValueError, "goes from 0 to -1"),
        (lambda: small().num_edges("x"), dgl.DGLError, "edge type 'x' does not exist"),
        (lambda: two_types().num_nodes("x"), dgl.DGLError, "node type 'x' does not exist"),
        (lambda: two_types().in_degrees(), dgl.DGLError, "edge type must be named"),
        (lambda: two_types()["u", "f", "i"], dgl.DGLError, "does not exist"),
        (lambda: dgl.mean_nodes(two_types(), "h"), dgl.DGLError, "node type must be named"),
        (lambda: small().edges("vu"), dgl.DGLError, "form must be uv"),
        (lambda: small().ndata.update(x=torch.ones(3)), dgl.DGLError, r"shape \[4, ...\], got"),
        (lambda: small().ndata.update(x=[1, 2]), TypeError, "must be a tensor, got list"),
        (lambda: two_types().ndata.update(x=torch.ones(3)), TypeError, "must be a dict by type"),
        (lambda: two_types().ndata["x"], KeyError, "no field of any of"),
        (lambda: dgl.heterograph({("u", "b", "i"): ([0], [0])}, {"u": 1}), dgl.DGLError, "lacks"),
        (lambda: dgl.batch([]), dgl.DGLError, "at least one graph"),
        (lambda: dgl.batch([small(), two_types()]), dgl.DGLError, "graph 1 must have the types"),
        (lambda: dgl.batch([small(), dgl.graph(([0], [1]))]), dgl.DGLError, "the same fields"),
        (lambda: dgl.broadcast_nodes(small(), torch.ones(2, 1)), dgl.DGLError, "batch_size=1"),
        (lambda: dgl.add_self_loop(two_types(), etype="b"), dgl.DGLError, "to itself"),
        (lambda: dgl.from_dgl(graph("bipartite")), TypeError, "must be a dgl.DGLGraph"),
        (lambda: gnnkern.Graph.from_dgl(3), TypeError, "expected a DGLGraph, got int"),
    ],
)
def test_rejects(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_a_relation_of_a_name_that_two_have():
    h = dgl.heterograph({("a", "x", "b"): ([0], [0]), ("b", "x", "a"): ([0], [0])})
    with pytest.raises(dgl.DGLError, match="edge type 'x' is ambiguous"):
        h.num_edges("x")
    assert h.num_edges(("a", "x", "b")) == 1
