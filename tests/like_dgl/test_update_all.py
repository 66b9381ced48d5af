"""`update_all`, `apply_edges` and `multi_update_all`: built-in functions and those of the user."""

from itertools import permutations

import pytest
import torch
from definitions import BINARY, REDUCES, SHAPES, at, check, combine, normal_at, reduce_rows, wrap
from helpers.checks import Sizes
from helpers.graphs import GRAPHS, graph

import gnnkern.integrations.dgl as dgl
import gnnkern.integrations.dgl.function as fn

ENDS = [*permutations("uve", 2)]
DATA = {"u": "srcdata", "v": "dstdata", "e": "edata"}
each_reduce = pytest.mark.parametrize("reduce", REDUCES)
each_ends = pytest.mark.parametrize("ends", ENDS, ids="".join)


def passed(g, ends, message, reduce):
    """`update_all` as a function of the operands, each a field at its end."""

    def run(*operands):
        wrapped = wrap(g)
        for end, field, x in zip(ends, "xy", operands, strict=False):
            getattr(wrapped, DATA[end])[field] = x
        wrapped.update_all(message, reduce)
        return wrapped.dstdata["out"]

    return run


@each_ends
@pytest.mark.parametrize("op", [*BINARY, "dot"])
@each_reduce
@pytest.mark.parametrize("shape", ["column", "longer"])
def test_a_message_of_two_ends(ends, op, reduce, shape):
    g = graph("isolated_ends")
    of_lhs, of_rhs = SHAPES[shape if op != "dot" else "rows"]
    lhs = normal_at(g, ends[0], *of_lhs)
    rhs = normal_at(g, ends[1], *of_rhs, away_from_zero=True)

    def definition(lhs, rhs):
        messages = combine(op, at(g, ends[0], lhs), at(g, ends[1], rhs))
        return reduce_rows(g, messages, reduce)

    message = getattr(fn, f"{ends[0]}_{op}_{ends[1]}")("x", "y", "m")
    assert message.name == f"{ends[0]}_{op}_{ends[1]}"
    run = passed(g, ends, message, getattr(fn, reduce)("m", "out"))
    check(run, definition, lhs, rhs)


@pytest.mark.parametrize("name", [name for name in GRAPHS if name not in ("empty", "long_rows")])
@pytest.mark.parametrize("end", "ue")
@each_reduce
def test_a_copy_on_every_graph(name, end, reduce):
    g = graph(name)
    message = {"u": fn.copy_u, "e": fn.copy_e}[end]("x", "m")
    run = passed(g, end, message, getattr(fn, reduce)("m", "out"))
    check(run, lambda x: reduce_rows(g, at(g, end, x), reduce), normal_at(g, end, 3))


@each_ends
@pytest.mark.parametrize("op", BINARY)
@each_reduce
def test_halves_are_rounded_once(ends, op, reduce):
    g = graph("bipartite")
    x, y = (normal_at(g, end, 4) for end in ends)
    y = y + y.sign()

    def definition(x, y):
        messages = combine(op, at(g, ends[0], x.float()), at(g, ends[1], y.float()))
        return reduce_rows(g, messages, reduce).to(x.dtype)

    message = getattr(fn, f"{ends[0]}_{op}_{ends[1]}")("x", "y", "m")
    run = passed(g, ends, message, getattr(fn, reduce)("m", "out"))
    actual = run(x.bfloat16(), y.bfloat16())
    expected = definition(x.bfloat16(), y.bfloat16())
    assert actual.dtype == torch.bfloat16
    # A reciprocal is rounded once more, in front of a product.
    bound = (0.02 if op == "div" else 0.01) * expected.float().abs().max()
    assert (actual.float() - expected.float()).abs().max() <= bound


@each_reduce
@pytest.mark.parametrize("name", ["u_mul_e", "e_sub_u", "e_div_u", "u_sub_v", "v_mul_u", "u_div_v"])
def test_nothing_as_large_as_the_messages_is_made(name, reduce):
    g = dgl.graph(tuple(graph("dense_small").edge_index))
    ends = name[0], name[-1]
    inputs = {}
    for end, field in zip(ends, "xy", strict=True):
        width = 1 if end == "e" else 64
        inputs[field] = torch.rand(144 if end == "e" else 12, width, requires_grad=True)
        getattr(g, DATA[end])[field] = inputs[field]
    with Sizes(144 * 64) as sizes:
        g.update_all(getattr(fn, name)("x", "y", "m"), getattr(fn, reduce)("m", "out"))
        g.ndata["out"].sum().backward()
    assert not sizes.storages and all(x.grad is not None for x in inputs.values())


# -- functions of the user -------------------------------------------------------------------------


@each_reduce
def test_a_message_function_of_the_user(reduce):
    g = graph("isolated_ends")
    x, w = normal_at(g, "u", 3), normal_at(g, "e", 1)

    def message(edges):
        u, v, eid = edges.edges()
        assert torch.equal(torch.stack((u, v)), g.edge_index) and len(edges) == len(eid) == 20
        return {"m": (edges.src["x"] - edges.dst["x"]) * edges.data["y"], "unused": edges.src["x"]}

    def run(x, w):
        wrapped = wrap(g)
        wrapped.ndata["x"], wrapped.edata["y"] = x, w
        wrapped.update_all(message, getattr(fn, reduce)("m", "out"))
        return wrapped.ndata["out"]

    def definition(x, w):
        return reduce_rows(g, (at(g, "u", x) - at(g, "v", x)) * w, reduce)

    check(run, definition, x, w)


@pytest.mark.parametrize("name", ["isolated_ends", "multi_edges", "star_in", "no_edges"])
def test_a_reduce_function_of_the_user(name):
    g = graph(name)

    def reduce(nodes):
        mail = nodes.mailbox["m"]  # [K, D, 3]
        assert mail.shape[0] == len(nodes) == len(nodes.nodes()) and nodes.ntype == "_N"
        # The first message counts differently: messages are in the order of edges.
        return {"out": mail.sum(1) + mail[:, 0] * nodes.data["x"], "first": mail[:, 0]}

    def run(x):
        wrapped = wrap(g)
        wrapped.ndata["x"] = x
        wrapped.update_all(fn.copy_u("x", "m"), reduce)
        return wrapped.ndata["out"] if g.num_edges else 0 * x

    def definition(x):
        rows = []
        for v in range(g.num_dst):
            own = x[g.edge_index[0][g.edge_index[1] == v]]
            rows.append(own.sum(0) + own[0] * x[v] if len(own) else 0 * x[v])
        return torch.stack(rows)

    check(run, definition, normal_at(g, "u", 3))


def test_a_node_function_sees_the_result_beside_the_features():
    g = dgl.graph(([0, 1, 2, 0], [1, 2, 0, 1]), num_nodes=4)
    g.ndata["h"] = torch.arange(4.0)

    def apply(nodes):
        return {"out": nodes.data["out"] * 2, "sum": nodes.data["out"] + nodes.data["h"]}

    g.update_all(fn.copy_u("h", "m"), fn.sum("m", "out"), apply)
    assert g.ndata["out"].tolist() == [4, 0, 2, 0] and g.ndata["sum"].tolist() == [2, 1, 3, 3]
    g.apply_nodes(lambda nodes: {"h": nodes.data["h"] + 10}, v=[1, 3])
    assert g.ndata["h"].tolist() == [0, 11, 2, 13]
    g.apply_nodes(lambda nodes: {"id": nodes.nodes()})
    assert g.ndata["id"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("user", [False, True])
def test_apply_edges_to_some(user):
    g = graph("bipartite")
    wrapped = wrap(g)
    wrapped.srcdata["x"], wrapped.dstdata["y"] = normal_at(g, "u", 3), normal_at(g, "v", 3)
    expected = at(g, "u", wrapped.srcdata["x"]) - at(g, "v", wrapped.dstdata["y"])
    function = fn.u_sub_v("x", "y", "m")
    if user:
        function = lambda edges: {"m": edges.src["x"] - edges.dst["y"]}  # noqa: E731
    some = torch.tensor([5, 3, 80])
    wrapped.apply_edges(function, edges=some)
    rest = torch.ones(90, dtype=torch.bool).index_fill(0, some, False)
    torch.testing.assert_close(wrapped.edata["m"][some], expected[some])
    assert not wrapped.edata["m"][rest].any()
    wrapped.apply_edges(function)
    torch.testing.assert_close(wrapped.edata["m"], expected)
    wrapped.apply_edges(fn.e_mul_u("m", "x", "n"), edges=some)
    torch.testing.assert_close(
        wrapped.edata["n"][some], (expected * at(g, "u", wrapped.srcdata["x"]))[some]
    )


def test_infinite_maxima_are_0():
    g = dgl.graph(([0, 1, 2], [1, 2, 0]))
    g.ndata["h"] = torch.tensor([torch.inf, 1.0, -torch.inf])
    for message in (fn.copy_u("h", "m"), lambda edges: {"m": edges.src["h"]}):
        g.update_all(message, fn.max("m", "out"))
        assert g.ndata["out"].tolist() == [0, 0, 1]
        g.update_all(message, fn.sum("m", "out"))
        assert g.ndata["out"].tolist() == [-torch.inf, torch.inf, 1]


# -- several relations -----------------------------------------------------------------------------


@pytest.fixture
def several():
    g = dgl.heterograph(
        {
            ("u", "follows", "u"): ([0, 1], [1, 2]),
            ("u", "buys", "i"): ([0, 1, 2], [0, 0, 1]),
            ("s", "sells", "i"): ([0, 0], [2, 0]),
        },
        {"u": 4, "i": 4, "s": 1},
    )
    g.nodes["u"].data["h"] = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    g.nodes["s"].data["h"] = torch.tensor([[-5.0]])
    return g


# What "buys" sums to and "sells" has for its largest, by item.
BOUGHT, SOLD = [3.0, 3.0, 0.0, 0.0], [-5.0, 0.0, -5.0, 0.0]


@pytest.mark.parametrize(
    "cross, expected",
    [
        ("sum", [-2.0, 3.0, -5.0, 0.0]),
        ("mean", [-1.0, 1.5, -2.5, 0.0]),
        ("max", [3.0, 3.0, 0.0, 0.0]),
        ("min", [-5.0, 0.0, -5.0, 0.0]),
        ("stack", [list(pair) for pair in zip(SOLD, BOUGHT, strict=True)]),
        (lambda parts: parts[0] - sum(parts[1:]), [8.0, 3.0, 5.0, 0.0]),
    ],
)
def test_multi_update_all(several, cross, expected):
    several.multi_update_all(
        {
            "buys": (fn.copy_u("h", "m"), fn.sum("m", "o")),
            ("s", "sells", "i"): (fn.copy_u("h", "m"), fn.max("m", "o")),
            "follows": (fn.copy_u("h", "m"), lambda nodes: {"o": nodes.mailbox["m"].sum(1)}),
        },
        cross,
    )
    assert several.nodes["i"].data["o"].squeeze(-1).tolist() == expected
    if isinstance(cross, str):
        assert several.nodes["u"].data["o"].flatten().tolist() == [0, 1, 2, 0]


def test_node_functions_of_multi_update_all(several):
    several.multi_update_all(
        {
            "buys": (fn.copy_u("h", "m"), fn.sum("m", "o"), lambda n: {"o": n.data["o"] * 10}),
            "sells": (fn.copy_u("h", "m"), fn.max("m", "o")),
        },
        "sum",
        lambda nodes: {"o": nodes.data["o"] + 1},
    )
    assert several.nodes["i"].data["o"].flatten().tolist() == [26, 31, -4, 1]


@pytest.mark.parametrize(
    "reduce, items, users",
    [("sum", [-2, 3, -5, 0], [0, 1, 2, 0]), ("max", [2, 3, -5, 0], [0, 1, 2, 0]),
     ("min", [-5, 3, -5, 0], [0, 1, 2, 0])],
)  # fmt: skip
def test_all_relations_at_once(several, reduce, items, users):
    several.update_all(fn.copy_u("h", "m"), getattr(fn, reduce)("m", "o"))
    assert several.ndata["o"]["i"].flatten().tolist() == items
    assert several.ndata["o"]["u"].flatten().tolist() == users
    several.apply_edges(fn.copy_u("h", "m"))
    assert several.edata["m"]["s", "sells", "i"].flatten().tolist() == [-5, -5]


def test_one_relation_of_several(several):
    buys = several["buys"]
    assert buys.srctypes == ["u"] and buys.dsttypes == ["i"]
    assert buys.canonical_etypes == [("u", "buys", "i")]
    buys.srcdata["new"] = torch.ones(4)
    several.update_all(fn.copy_u("new", "m"), fn.sum("m", "count"), etype="buys")
    assert buys.dstdata["count"].tolist() == [2, 1, 0, 0]
    assert several["u", "buys", "i"].dstdata["count"] is buys.dstdata["count"]


def test_rejects(several):
    g = dgl.graph(([0], [1]))
    g.ndata["h"] = torch.ones(2)
    with pytest.raises(dgl.DGLError, match="'x', got 'm'"):
        g.update_all(fn.copy_u("h", "m"), fn.sum("x", "o"))
    with pytest.raises(KeyError, match="'q' is no field"):
        g.update_all(fn.copy_u("q", "m"), fn.sum("m", "o"))
    with pytest.raises(KeyError, match="'x' is none of the messages"):
        g.update_all(lambda edges: {"m": edges.src["h"]}, fn.sum("x", "o"))
    with pytest.raises(dgl.DGLError, match="must return a dict"):
        g.apply_edges(lambda edges: edges.src["h"])
    with pytest.raises(dgl.DGLError, match="cross_reducer must be a function or one of"):
        several.multi_update_all({"buys": (fn.copy_u("h", "m"), fn.sum("m", "o"))}, "prod")
    with pytest.raises(NotImplementedError, match="use multi_update_all"):
        several.update_all(fn.copy_u("h", "m"), fn.mean("m", "o"))
    with pytest.raises(dgl.DGLError, match="functions of the user need an edge type"):
        several.update_all(lambda edges: {"m": edges.src["h"]}, fn.sum("m", "o"))
