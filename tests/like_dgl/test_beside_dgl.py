"""The same code under DGL's import and under gnnkern's: equal values and gradients.

Skipped where DGL does not import. What differs on purpose (the docstring of
`gnnkern.integrations.dgl.ops`) is left out: ties, NaN, and gradients of nodes without edges.
"""

from types import SimpleNamespace

import pytest
import torch
from definitions import BINARY, REDUCES, SHAPES

import gnnkern.integrations.dgl as ours
from gnnkern import Graph
from gnnkern.bench.peers import absent

NODES, EDGES = 30, 120
SRC, DST = torch.randint(NODES, (2, EDGES), generator=torch.Generator().manual_seed(0))
# Every node but the last two has an edge; these two have none.
SRC, DST = torch.cat((SRC, torch.arange(28))), torch.cat((DST % 28, torch.arange(28)))
EDGES += 28


@pytest.fixture(scope="module")
def theirs():
    if reason := absent("dgl"):
        pytest.skip(reason)
    import dgl

    return dgl


def same(theirs, scenario):
    """Run a scenario on both and compare all that it returns, and every gradient."""
    results = []
    for dgl in (theirs, ours):
        generator = torch.Generator().manual_seed(1)
        inputs = []

        def random(*shape, inputs=inputs, generator=generator):
            inputs.append(torch.randn(*shape, dtype=torch.float64, generator=generator))
            return inputs[-1].requires_grad_()

        out = scenario(dgl, random)
        out = list(out) if isinstance(out, tuple | list) else [out]
        finite = [x.masked_fill(x.isinf(), 0).square().sum() for x in out if x.requires_grad]
        gradients = torch.autograd.grad(sum(finite), inputs, allow_unused=True) if finite else []
        results.append([*out, *gradients])
    assert len(results[0]) == len(results[1])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def homogeneous(dgl):
    return dgl.graph((SRC, DST), num_nodes=NODES)


@pytest.mark.parametrize("op", [*BINARY, "copy_lhs", "copy_rhs"])
@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("shape", SHAPES)
def test_gspmm(theirs, op, reduce, shape):
    def scenario(dgl, random):
        of_x, of_edge = SHAPES[shape]
        x, edge = random(NODES, *of_x), random(EDGES, *of_edge)
        if op == "div":
            edge = edge + edge.sign()
        operands = {"copy_lhs": (x, None), "copy_rhs": (None, edge)}.get(op, (x, edge))
        out = dgl.ops.gspmm(homogeneous(dgl), op, reduce, *operands)
        # DGL sends the gradient of isolated nodes to row 0.
        return out[:28], out[28:].detach()

    same(theirs, scenario)


@pytest.mark.parametrize("op", [*BINARY, "dot"])
@pytest.mark.parametrize("ends", ["uv", "vu", "ue", "ev", "uu"])
@pytest.mark.parametrize("shape", SHAPES)
def test_gsddmm(theirs, op, ends, shape):
    def scenario(dgl, random):
        rows = {"u": NODES, "v": NODES, "e": EDGES}
        of_lhs, of_rhs = SHAPES[shape]
        of_rhs = (*of_rhs[:-1], *of_lhs[-1:]) if op == "dot" else of_rhs
        lhs, rhs = random(rows[ends[0]], *of_lhs), random(rows[ends[1]], *of_rhs)
        rhs = rhs + rhs.sign() if op == "div" else rhs
        return dgl.ops.gsddmm(homogeneous(dgl), op, lhs, rhs, *ends)

    same(theirs, scenario)


@pytest.mark.parametrize("norm_by", ["dst", "src"])
@pytest.mark.parametrize("shape", [(), (1,), (4, 1)])
def test_edge_softmax(theirs, norm_by, shape):
    def scenario(dgl, random):
        g = homogeneous(dgl)
        some = torch.arange(0, EDGES, 3)
        return (
            dgl.ops.edge_softmax(g, random(EDGES, *shape), norm_by=norm_by),
            dgl.ops.edge_softmax(g, random(len(some), *shape), some, norm_by=norm_by),
        )

    same(theirs, scenario)


def test_segments(theirs):
    lengths, types = torch.tensor([3, 0, 4]), torch.tensor([2, 0, 1, 1, 2, 0, 0])

    def scenario(dgl, random):
        return (
            *(dgl.ops.segment_reduce(lengths, random(7, 2), r) for r in REDUCES),
            dgl.ops.segment_softmax(lengths, random(7, 2)),
            dgl.ops.segment_mm(random(7, 2), random(3, 2, 5), lengths),
            dgl.ops.gather_mm(random(7, 2), random(3, 2, 5), idx_b=types),
        )

    same(theirs, scenario)


NAMES = [f"{a}_{op}_{b}" for a, b in ("ue", "eu", "uv", "vu", "ev") for op in (*BINARY, "dot")]


@pytest.mark.parametrize("name", [*NAMES, "copy_u", "copy_e"])
def test_update_all(theirs, name):
    def scenario(dgl, random):
        g, fn = homogeneous(dgl), dgl.function
        for field in "xy":
            x, edge = random(NODES, 3), random(EDGES, 3)
            away = field == "y" and "div" in name
            g.ndata[field] = x + x.sign() if away else x
            g.edata[field] = edge + edge.sign() if away else edge
        fields = "x" if name.startswith("copy") else "xy"
        message = getattr(fn, name)(*fields, "m")
        for reduce in REDUCES:
            g.update_all(message, getattr(fn, reduce)("m", reduce))
        g.apply_edges(message)
        # DGL sends the gradient of isolated nodes to row 0.
        outs = [g.ndata[reduce] for reduce in REDUCES]
        return *(out[:28] for out in outs), *(out[28:].detach() for out in outs), g.edata["m"]

    same(theirs, scenario)


def test_functions_of_the_user(theirs):
    def scenario(dgl, random):
        g = homogeneous(dgl)
        g.ndata["h"], g.edata["w"] = random(NODES, 3), random(EDGES, 1)
        g.update_all(
            lambda edges: {"m": edges.src["h"] * edges.data["w"], "n": edges.dst["h"]},
            lambda nodes: {"o": nodes.mailbox["m"].cumsum(1).prod(1) + nodes.mailbox["n"].sum(1)},
            lambda nodes: {"o": nodes.data["o"] + nodes.data["h"]},
        )
        g.apply_edges(lambda edges: {"d": edges.dst["h"][:, :1]}, edges=[3, 1])
        return g.ndata["o"], g.edata["d"], g.edata["w"]

    same(theirs, scenario)


def relations(dgl):
    edges = {
        ("u", "f", "u"): (SRC % 9, DST % 7),
        ("u", "b", "i"): (SRC % 9, DST % 5),
        ("s", "r", "i"): (SRC % 3, DST % 8),
    }
    return dgl.heterograph(edges, {"u": 9, "i": 10, "s": 3})


def first_minus_others(parts):
    return parts[0] - sum(parts[1:])


@pytest.mark.parametrize("cross", ["sum", "mean", "max", "min", "stack", first_minus_others])
def test_multi_update_all(theirs, cross):
    def scenario(dgl, random):
        g, fn = relations(dgl), dgl.function
        g.ndata["h"] = {"u": random(9, 2), "s": random(3, 2), "i": random(10, 2)}
        functions = {
            "b": (fn.copy_u("h", "m"), fn.mean("m", "o")),
            "r": (fn.u_mul_v("h", "h", "m"), fn.sum("m", "o")),
            "f": (fn.u_sub_v("h", "h", "m"), fn.max("m", "o"), lambda n: {"o": n.data["o"] * 2}),
        }
        g.multi_update_all(functions, cross, lambda nodes: {"p": nodes.data["o"] + 1})
        with g.local_scope():
            g.update_all(fn.copy_u("h", "m"), fn.sum("m", "q"))
            joint = g.ndata["q"]
        g.update_all(fn.copy_u("h", "m"), fn.min("m", "q"), etype="b")
        logits = {etype: random(EDGES, 1) for etype in g.canonical_etypes}
        weights = dgl.ops.edge_softmax(g, logits)
        return (
            g.nodes["i"].data["p"], g.nodes["u"].data["p"], joint["i"], joint["u"],
            g["b"].dstdata["q"], *(weights[etype] for etype in g.canonical_etypes),
        )  # fmt: skip

    same(theirs, scenario)


def test_structure(theirs):
    def scenario(dgl, random):
        g = homogeneous(dgl)
        g.edata["w"] = random(EDGES)
        looped = dgl.add_self_loop(g)
        bare = dgl.remove_self_loop(looped)
        graphs = [dgl.graph((SRC[:9] % n, DST[:9] % n), num_nodes=n) for n in (4, 7, 5)]
        joint = dgl.batch(graphs)
        joint.ndata["h"], joint.edata["h"] = random(16, 3), random(27, 3)
        joint.ndata["w"] = random(16, 1)
        readouts = [
            *(getattr(dgl, f"{op}_{what}")(joint, "h") for op in ("sum", "mean", "max", "softmax")
              for what in ("nodes", "edges")),
            dgl.mean_nodes(joint, "h", "w"), dgl.broadcast_nodes(joint, random(3, 2)),
        ]  # fmt: skip
        block = dgl.create_block((SRC % 13, DST % 11), 14, 12)
        ends = [*looped.edges(), *bare.edges(), *dgl.reverse(g).edges(), *joint.edges()]
        counts = [joint.batch_num_nodes(), block.in_degrees(), g.out_degrees(), block.dstnodes()]
        return (
            *g.edges(order="srcdst"), *ends, *counts, *readouts, looped.edata["w"],
            bare.edata["w"], dgl.unbatch(joint)[1].ndata["h"],
        )  # fmt: skip

    same(theirs, scenario)


@pytest.mark.parametrize("kind", ["homogeneous", "relations", "block", "batch"])
def test_graphs_go_to_dgl_and_back(theirs, kind):
    make = {
        "homogeneous": homogeneous,
        "relations": relations,
        "block": lambda dgl: dgl.create_block((SRC % 13, DST % 11), 14, 12),
        "batch": lambda dgl: dgl.batch([homogeneous(dgl), homogeneous(dgl)]),
    }[kind]
    of_dgl = make(theirs)
    for etype in of_dgl.canonical_etypes:
        of_dgl.edges[etype].data["w"] = torch.randn(of_dgl.num_edges(etype))
    for view, ntypes in ((of_dgl.srcnodes, of_dgl.srctypes), (of_dgl.dstnodes, of_dgl.dsttypes)):
        for ntype in ntypes:
            view[ntype].data["h"] = torch.randn(len(view(ntype)))
    taken = ours.from_dgl(of_dgl)
    back = ours.to_dgl(taken)
    assert isinstance(back, theirs.DGLGraph) and back.is_block == of_dgl.is_block
    for g in (taken, back):
        facts = SimpleNamespace(g=g, etypes=g.canonical_etypes)
        assert facts.etypes == of_dgl.canonical_etypes and g.ntypes == of_dgl.ntypes
        for etype in facts.etypes:
            for a, b in zip(g.edges(etype=etype), of_dgl.edges(etype=etype), strict=True):
                assert torch.equal(a, b)
            assert torch.equal(g.edges[etype].data["w"], of_dgl.edges[etype].data["w"])
            for end, frames in ((0, "srcnodes"), (2, "dstnodes")):
                actual = getattr(g, frames)[etype[end]].data["h"]
                assert torch.equal(actual, getattr(of_dgl, frames)[etype[end]].data["h"])
        if kind == "batch":
            assert g.batch_num_nodes().tolist() == [NODES, NODES]
    assert Graph.from_dgl(of_dgl, of_dgl.canonical_etypes[0]).num_edges == of_dgl.num_edges(
        of_dgl.canonical_etypes[0]
    )
