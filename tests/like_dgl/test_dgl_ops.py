"""DGL's operators by their names: values, gradients, shapes, and what isolated nodes get."""

from itertools import permutations

import pytest
import torch
from definitions import (
    BINARY,
    REDUCE,
    REDUCES,
    SHAPES,
    at,
    check,
    combine,
    normal_at,
    reduce_rows,
    rows_at,
    wrap,
)
from helpers.checks import Sizes
from helpers.graphs import fresh_graph, graph

import gnnkern
import gnnkern.integrations.dgl as dgl
from gnnkern.integrations.dgl import ops

each_op = pytest.mark.parametrize("op", BINARY)
each_reduce = pytest.mark.parametrize("reduce", REDUCES)
each_shape = pytest.mark.parametrize("shape", SHAPES)
each_graph = pytest.mark.parametrize("name", ["isolated_ends", "bipartite"])
LOSER = {"max": -torch.inf, "min": torch.inf}


@each_op
@each_reduce
@each_shape
def test_message_and_reduction(op, reduce, shape):
    g = graph("isolated_ends")
    of_x, of_edge = SHAPES[shape]
    x, edge = normal_at(g, "u", *of_x), normal_at(g, "e", *of_edge, away_from_zero=True)

    def definition(x, edge):
        return reduce_rows(g, combine(op, at(g, "u", x), edge), reduce, LOSER.get(reduce, 0.0))

    named = getattr(ops, f"u_{op}_e_{reduce}")
    check(lambda *inputs: named(wrap(g), *inputs), definition, x, edge)


@each_graph
@pytest.mark.parametrize("end", "ue")
@each_reduce
@pytest.mark.parametrize("shape", [(), (3,), (2, 1, 3)])
def test_copies(name, end, reduce, shape):
    g = graph(name)

    def definition(x):
        return reduce_rows(g, at(g, end, x), reduce, LOSER.get(reduce, 0.0))

    named = getattr(ops, f"copy_{end}_{reduce}")
    check(lambda x: named(g, x), definition, normal_at(g, end, *shape))


@pytest.mark.parametrize("op", [*BINARY, "dot"])
@pytest.mark.parametrize("ends", [*permutations("uve", 2)], ids="".join)
@each_shape
def test_on_edges(op, ends, shape):
    g = graph("bipartite")
    of_lhs, of_rhs = SHAPES[shape]
    if op == "dot" and of_lhs[-1:] != of_rhs[-1:]:
        of_rhs = (*of_rhs[:-1], *of_lhs[-1:])
    lhs = normal_at(g, ends[0], *of_lhs)
    rhs = normal_at(g, ends[1], *of_rhs, away_from_zero=True)

    def definition(lhs, rhs):
        return combine(op, at(g, ends[0], lhs), at(g, ends[1], rhs))

    named = getattr(ops, f"{ends[0]}_{op}_{ends[1]}")
    check(lambda *inputs: named(g, *inputs), definition, lhs, rhs)


@pytest.mark.parametrize("end", "uve")
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_copies_on_edges(end, shape):
    g = graph("bipartite")
    named = getattr(ops, f"copy_{end}")
    check(lambda x: named(g, x), lambda x: at(g, end, x), normal_at(g, end, *shape))


def test_both_operands_at_one_end():
    g = graph("bipartite")
    x, y = normal_at(g, "u", 3), normal_at(g, "u", 3)
    out = dgl.gsddmm(g, "add", x, y, "u", "u")
    torch.testing.assert_close(out, (x + y)[g.edge_index[0]])


@pytest.mark.parametrize("norm_by", ["dst", "src"])
@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
@pytest.mark.parametrize("some", [False, True])
def test_edge_softmax(norm_by, shape, some):
    g = graph("power_law")
    eids = torch.randperm(g.num_edges)[:100] if some else torch.arange(g.num_edges)
    node = g.edge_index[0 if norm_by == "src" else 1][eids]
    score = torch.randn(len(eids), *shape, dtype=torch.float64)

    def definition(score):
        out = torch.empty_like(score)
        for v in node.unique():
            out = torch.where(
                (node == v).view(-1, *[1] * len(shape)),
                score.exp() / score[node == v].exp().sum(0),
                out,
            )
        return out

    options = {"eids": eids} if some else {}
    check(lambda s: dgl.edge_softmax(g, s, norm_by=norm_by, **options), definition, score)


def test_edge_softmax_of_relations_is_joint():
    g = dgl.heterograph(
        {("u", "f", "u"): ([0, 1], [1, 2]), ("u", "b", "i"): ([0, 1, 2], [0, 0, 1]),
         ("s", "r", "i"): ([0], [0])}
    )  # fmt: skip
    ones = {"b": torch.zeros(3, 1), "r": torch.zeros(1, 1), "f": torch.zeros(2, 1)}
    weights = dgl.edge_softmax(g, ones)
    assert weights.keys() == {("u", "f", "u"), ("u", "b", "i"), ("s", "r", "i")}
    third = 1 / 3
    assert weights["u", "b", "i"].flatten().tolist() == pytest.approx([third, third, 1])
    assert weights["s", "r", "i"].flatten().tolist() == pytest.approx([third])
    assert weights["u", "f", "u"].flatten().tolist() == pytest.approx([1, 1])
    by_source = dgl.edge_softmax(g, ones, norm_by="src")
    assert by_source["u", "b", "i"].flatten().tolist() == pytest.approx([0.5, 0.5, 1])


@each_reduce
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_segment_reduce(reduce, shape):
    lengths = torch.tensor([3, 0, 1, 5, 0])
    value = torch.randn(9, *shape, dtype=torch.float64)

    def definition(value):
        zeros = value.new_zeros(value.shape[1:])
        parts = value.split(lengths.tolist())
        return torch.stack([REDUCE[reduce](p) if len(p) else zeros for p in parts])

    check(lambda v: dgl.segment_reduce(lengths, v, reduce), definition, value)


def test_infinite_maxima_of_segments_are_0():
    value = torch.tensor([-torch.inf, 1.0, torch.inf])
    out = dgl.segment_reduce(torch.tensor([1, 0, 1, 1], dtype=torch.int32), value, "max")
    assert out.tolist() == [0, 0, 1, 0]


def test_segment_softmax_and_products():
    lengths = torch.tensor([3, 0, 4])
    value = torch.randn(7, 2, dtype=torch.float64)
    parts = value.split(lengths.tolist())
    softmax = dgl.segment_softmax(lengths, value)
    torch.testing.assert_close(softmax, torch.cat([part.softmax(0) for part in parts]))
    matrices = torch.randn(3, 2, 5, dtype=torch.float64)
    expected = torch.cat([p @ m for p, m in zip(parts, matrices, strict=True)])
    torch.testing.assert_close(dgl.segment_mm(value, matrices, lengths), expected)
    types = torch.repeat_interleave(lengths)[torch.randperm(7)]
    expected = torch.stack([row @ matrices[t] for row, t in zip(value, types, strict=True)])
    torch.testing.assert_close(dgl.gather_mm(value, matrices, idx_b=types), expected)


def test_every_name_of_dgl_is_there():
    pairs = [f"copy_{end}_{r}" for end in "ue" for r in REDUCES]
    pairs += [f"u_{op}_e_{r}" for op in BINARY for r in REDUCES]
    edges = [f"{a}_{op}_{b}" for a, b in permutations("uve", 2) for op in (*BINARY, "dot")]
    for name in (*pairs, *edges):
        assert getattr(ops, name).__name__ == name and getattr(ops, name).__doc__
        assert name in ops.__all__


@pytest.mark.parametrize("reduce", ["sum", "max"])
def test_nothing_as_large_as_the_messages_is_made(reduce):
    g = fresh_graph("dense_small")
    x = torch.randn(12, 64, requires_grad=True)
    weight = torch.rand(144, 1, requires_grad=True)
    with Sizes(144 * 64) as sizes:
        dgl.gspmm(g, "mul", reduce, x, weight).sum().backward()
    assert not sizes.storages


X, EDGE = torch.ones(13, 2), torch.ones(90, 2)


@pytest.mark.parametrize(
    "arguments, error, match",
    [
        (("mul", "sum", X[:12], EDGE), ValueError, r"lhs_data must have shape \[num_src=13"),
        (("mul", "sum", X, EDGE[:80]), ValueError, r"rhs_data must have shape \[E=90"),
        (("mul", "sum", X, torch.ones(90, 3)), dgl.DGLError, r"must broadcast, got \[2\] and \[3"),
        (("mul", "sum", X, None), TypeError, "rhs_data must be a tensor"),
        (("mul", "sum", X.long(), EDGE), TypeError, "lhs_data must be float32"),
        (("mul", "sum", X, EDGE.double()), TypeError, "rhs_data must have the dtype"),
        (("dot", "sum", X, EDGE), ValueError, "op must be one of"),
        (("mul", "prod", X, EDGE), ValueError, "reduce_op must be one of"),
        (("copy_rhs", "sum", X, EDGE[0, 0]), ValueError, "rhs_data must have shape"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_gspmm_rejects(arguments, error, match):
    with pytest.raises(error, match=f"gspmm: .*{match}"):
        dgl.gspmm(graph("bipartite"), *arguments)


def test_the_others_reject():
    g = graph("bipartite")
    with pytest.raises(TypeError, match="gspmm: g must be a DGLGraph"):
        dgl.gspmm(g.edge_index, "mul", "sum", X, EDGE)
    with pytest.raises(ValueError, match="gsddmm: rhs_target must be one of"):
        dgl.gsddmm(g, "add", X, X, "u", "w")
    with pytest.raises(dgl.DGLError, match="broadcast and end equally"):
        dgl.gsddmm(g, "dot", X, torch.ones(90, 1), "u", "e")
    with pytest.raises(ValueError, match="edge_softmax: norm_by must be one of"):
        dgl.edge_softmax(g, EDGE, norm_by="edge")
    with pytest.raises(TypeError, match="a dict of logits needs a DGLGraph"):
        dgl.edge_softmax(g, {"a": EDGE})
    with pytest.raises(dgl.DGLError, match="segment_reduce: segment lengths .* sum to 90 rows"):
        dgl.segment_reduce(torch.tensor([1, 2]), EDGE)
    with pytest.raises(ValueError, match="segment_reduce: reducer must be one of"):
        dgl.segment_reduce(torch.tensor([90]), EDGE, "prod")
    with pytest.raises(TypeError, match="segment_mm: segment lengths must be an integer"):
        dgl.segment_mm(EDGE, torch.ones(1, 2, 2), torch.ones(1))


def test_results_are_those_of_spmm():
    g = graph("power_law")
    x, weight = torch.randn(200, 4, 8), torch.rand(1500, 4)
    out = dgl.gspmm(g, "mul", "sum", x, weight[:, :, None])
    assert torch.equal(out, gnnkern.spmm(g, x, weight))
    assert rows_at(g, "v") == len(out)
