"""Whatever is wrong with the input, the answer is a TypeError or a ValueError, never a crash."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from helpers.cases import OPS, backends_of
from helpers.graphs import fresh_graph, graph, scatter_index, segments
from hypothesis import given, settings
from hypothesis import strategies as st

import gnnkern

NAME = "bipartite"
NUM_SRC, NUM_DST, NUM_EDGES, HEADS, WIDTH = 13, 29, 90, 2, 4


@dataclass(frozen=True)
class Good:
    """Arguments that an op takes, to spoil one of: tensors of floats, of positions, and words."""

    floats: dict[str, tuple[int, ...]]
    indices: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


PER_NODE = {"x": (NUM_SRC, HEADS, WIDTH)}
GOOD = {
    "spmm": Good({**PER_NODE, "weight": (NUM_EDGES, HEADS)}, words=("reduce",)),
    "sddmm": Good(
        {"x_dst": (NUM_DST, HEADS, WIDTH), "x_src": (NUM_SRC, HEADS, WIDTH)},
        words=("op", "targets"),
    ),
    "edge_softmax": Good({"score": (NUM_EDGES, HEADS)}),
    "gat_attention": Good(
        {
            **PER_NODE,
            "score_src": (NUM_SRC, HEADS),
            "score_dst": (NUM_DST, HEADS),
            "edge_score": (NUM_EDGES, HEADS),
        }
    ),
    "gatv2_attention": Good(
        {
            "x_src": (NUM_SRC, HEADS, WIDTH),
            "x_dst": (NUM_DST, HEADS, WIDTH),
            "att": (HEADS, WIDTH),
            "edge_x": (NUM_EDGES, HEADS, WIDTH),
        }
    ),
    "dot_attention": Good(
        {
            "query": (NUM_DST, HEADS, WIDTH),
            "key": (NUM_SRC, HEADS, WIDTH),
            "value": (NUM_SRC, HEADS, WIDTH),
            "edge_bias": (NUM_EDGES, HEADS),
            "edge_x": (NUM_EDGES, HEADS, WIDTH),
        }
    ),
    "multi_reduce": Good(PER_NODE),
    "segment_reduce": Good({"x": (NUM_EDGES, WIDTH)}, ("indptr",), ("reduce",)),
    "segment_gather": Good({"x": (NUM_DST, WIDTH)}, ("indptr",)),
    "segment_softmax": Good({"x": (NUM_EDGES, WIDTH)}, ("indptr",)),
    "scatter_reduce": Good({"x": (NUM_EDGES, WIDTH)}, ("index",), ("reduce",)),
    "segment_matmul": Good(
        {"x": (NUM_EDGES, WIDTH), "weight": (NUM_DST, WIDTH, 3), "bias": (NUM_DST, 3)}, ("indptr",)
    ),
    "gather_matmul": Good(
        {"x": (NUM_EDGES, WIDTH), "weight": (NUM_DST, WIDTH, 3), "bias": (NUM_DST, 3)},
        ("type_index",),
    ),
    "segment_logsumexp": Good({"x": (NUM_EDGES, WIDTH)}, ("indptr",)),
    "scatter_logsumexp": Good({"x": (NUM_EDGES, WIDTH)}, ("index",)),
    "scatter_std": Good({"x": (NUM_EDGES, WIDTH)}, ("index",)),
}
WORDS = {"reduce": "sum", "op": "dot", "targets": ("dst", "src")}
OPS_ON_A_GRAPH = (
    "spmm",
    "sddmm",
    "edge_softmax",
    "gat_attention",
    "gatv2_attention",
    "dot_attention",
    "multi_reduce",
)


def good_arguments(op: str) -> dict[str, Any]:
    arguments: dict[str, Any] = {"g": graph(NAME)} if op in OPS_ON_A_GRAPH else {}
    arguments |= {name: torch.ones(shape) for name, shape in GOOD[op].floats.items()}
    for name in GOOD[op].indices:
        arguments[name] = segments(NAME) if name == "indptr" else scatter_index(NAME)[0]
    if op.startswith("scatter_"):
        arguments["num_segments"] = NUM_DST
    return arguments | {name: WORDS[name] for name in GOOD[op].words}


# Ways to spoil an argument. Each takes hypothesis' data and the good value.


def not_a_tensor(data: st.DataObject, good: torch.Tensor) -> Any:
    things = [good.tolist(), good.numpy(), 1, 1.5, "x", object(), {}, good.shape]
    return data.draw(st.sampled_from(things))


def wrong_float_dtype(data: st.DataObject, good: torch.Tensor) -> torch.Tensor:
    dtypes = [torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64, torch.complex128]
    return good.to(data.draw(st.sampled_from(dtypes)))


def wrong_index_dtype(data: st.DataObject, good: torch.Tensor) -> torch.Tensor:
    dtypes = [torch.float32, torch.float64, torch.float16, torch.bool, torch.int16, torch.uint8]
    return good.to(data.draw(st.sampled_from(dtypes)))


def wrong_device(data: st.DataObject, good: torch.Tensor) -> torch.Tensor:
    return good.to("meta")


def other_float_dtype(data: st.DataObject, good: torch.Tensor) -> torch.Tensor:
    return good.to(data.draw(st.sampled_from([torch.float64, torch.float16, torch.bfloat16])))


def wrong_length(data: st.DataObject, good: torch.Tensor) -> torch.Tensor:
    length = data.draw(st.integers(0, 2 * len(good)).filter(lambda n: n != len(good)))
    return good.new_zeros((length, *good.shape[1:]))


def wrong_trailing_size(data: st.DataObject, good: torch.Tensor) -> torch.Tensor:
    # Only the sizes that another tensor has too: heads, and sddmm's width. A size of 1 broadcasts.
    size = data.draw(st.integers(0, 9).filter(lambda n: n not in (1, good.shape[1])))
    return good.new_zeros((len(good), size, *good.shape[2:]))


def wrong_number_of_dimensions(data: st.DataObject, good: torch.Tensor) -> torch.Tensor:
    spoil = data.draw(
        st.sampled_from(
            [
                lambda x: x.flatten()[0],
                lambda x: x[None],
                lambda x: x[..., None, None],
                lambda x: x[None, None],
            ]
        )
    )
    return spoil(good)


def boundaries_out_of_bounds(data: st.DataObject, good: torch.Tensor) -> torch.Tensor:
    # Below every smaller boundary or above every larger one, so that the order is broken; the last
    # one only below, since it may say how many rows there are.
    bad = good.clone()
    position = data.draw(st.integers(0, len(good) - 1))
    offset = NUM_EDGES + data.draw(st.integers(1, 2**40))
    above = position < len(good) - 1 and data.draw(st.booleans())
    bad[position] += offset if above else -offset
    return bad


def index_out_of_bounds(data: st.DataObject, good: torch.Tensor) -> torch.Tensor:
    bad = good.clone()
    position = data.draw(st.integers(0, len(good) - 1))
    outside = st.one_of(st.integers(NUM_DST, 2**62), st.integers(-(2**62), -1))
    bad[position] = data.draw(outside)
    return bad


def wrong_word(data: st.DataObject, good: str) -> Any:
    things = ["", "Median", "prod", "sum,max", 0, None, 2.5, ("sum",)]
    return data.draw(st.one_of(st.sampled_from(things), st.text(min_size=8)))


def ways_to_spoil(op: str, argument: str) -> list[Callable[[st.DataObject, Any], Any]]:
    good = GOOD[op]
    if argument in good.words:
        return [wrong_word]
    if argument in good.indices:
        content = boundaries_out_of_bounds if argument == "indptr" else index_out_of_bounds
        return [not_a_tensor, wrong_index_dtype, wrong_device, wrong_length, content]
    ways = [not_a_tensor, wrong_float_dtype, wrong_device, wrong_length]
    if op in OPS_ON_A_GRAPH:
        ways.append(wrong_number_of_dimensions)
    if len(good.floats) > 1:
        ways += [other_float_dtype, wrong_trailing_size]
    return ways


@pytest.mark.parametrize("op", OPS)
def test_the_good_arguments_are_good(op):
    for backend in backends_of(op):
        getattr(gnnkern, op)(**good_arguments(op), backend=backend)


@pytest.mark.parametrize("op", OPS)
@settings(max_examples=200)
@given(data=st.data())
def test_one_bad_argument(op, data):
    arguments = good_arguments(op)
    spoilable = [*GOOD[op].floats, *GOOD[op].indices, *GOOD[op].words]
    argument = data.draw(st.sampled_from(spoilable), label="argument")
    way = data.draw(st.sampled_from(ways_to_spoil(op, argument)), label="way")
    arguments[argument] = way(data, arguments[argument])
    backend = data.draw(st.sampled_from(backends_of(op)), label="backend")
    with pytest.raises((TypeError, ValueError), match=op):
        getattr(gnnkern, op)(**arguments, backend=backend)


@pytest.mark.parametrize("op", OPS)
def test_a_gradient_input_is_checked_too(op):
    for name in GOOD[op].floats:
        arguments = good_arguments(op)
        arguments[name] = torch.ones(NUM_EDGES + 1, HEADS, WIDTH, requires_grad=True)
        with pytest.raises((TypeError, ValueError), match=rf"{op}: "):
            getattr(gnnkern, op)(**arguments)


@settings(max_examples=200)
@given(
    num_src=st.integers(0, 50),
    num_dst=st.integers(0, 50),
    row=st.integers(0, 1),
    bad=st.one_of(st.integers(-(2**31), -1), st.integers(51, 2**31 - 1)),
    num_edges=st.integers(1, 200),
    position=st.integers(0, 199),
    dtype=st.sampled_from([torch.int32, torch.int64]),
)
def test_an_edge_out_of_range(num_src, num_dst, row, bad, num_edges, position, dtype):
    position %= num_edges
    edge_index = torch.zeros(2, num_edges, dtype=dtype)
    edge_index[row, position] = bad
    with pytest.raises(ValueError, match=rf"edge.*{bad}|{bad}.*edge"):
        gnnkern.Graph.from_edge_index(edge_index, num_nodes=(num_src + 1, num_dst + 1))


@settings(max_examples=100)
@given(bad=st.integers(-(2**62), -1), position=st.integers(0, 9), row=st.integers(0, 1))
def test_a_negative_node_where_the_number_is_inferred(bad, position, row):
    edge_index = torch.zeros(2, 10, dtype=torch.int64)
    edge_index[row, position] = bad
    with pytest.raises(ValueError, match="edge"):
        gnnkern.Graph.from_edge_index(edge_index)


@pytest.mark.parametrize("bad", [2**31, 2**32, 2**62, -(2**62), -(2**63), 2**63 - 1])
@pytest.mark.parametrize("row", [0, 1])
def test_an_edge_that_is_in_range_in_32_bits(bad, row):
    # The lower 32 bits of some are a valid node.
    edge_index = torch.zeros(2, 3, dtype=torch.int64)
    edge_index[row, 1] = bad
    with pytest.raises(ValueError, match="edge"):
        gnnkern.Graph.from_edge_index(edge_index, num_nodes=4)


EDGES = torch.tensor([[0, 1, 2], [2, 1, 0]])


@pytest.mark.parametrize(
    "edge_index, error",
    [
        (EDGES.float(), TypeError),
        (EDGES.double(), TypeError),
        (EDGES.bool(), TypeError),
        (EDGES.to(torch.int16), TypeError),
        (EDGES.to(torch.uint8), TypeError),
        (EDGES.tolist(), TypeError),
        (EDGES.numpy(), TypeError),
        (None, TypeError),
        (EDGES.t(), ValueError),
        (EDGES[0], ValueError),
        (EDGES[:1], ValueError),
        (EDGES[None], ValueError),
        (torch.zeros(3, 5, dtype=torch.int64), ValueError),
        (EDGES.to("meta"), ValueError),
    ],
)
def test_what_is_no_edge_index(edge_index, error):
    with pytest.raises(error, match="edge_index"):
        gnnkern.Graph.from_edge_index(edge_index, num_nodes=3)


@pytest.mark.parametrize(
    "num_nodes", [-1, 2, (3, 2), (2, 3), (-1, 3), (3, 3, 3), 3.0, "3", (3.0, 3)]
)
def test_what_is_no_number_of_nodes(num_nodes):
    with pytest.raises((TypeError, ValueError)):
        gnnkern.Graph.from_edge_index(EDGES, num_nodes=num_nodes)


def test_a_graph_outlives_what_it_was_made_of():
    # A later change of the caller's tensor cannot lead an op out of bounds.
    edge_index = fresh_graph(NAME).edge_index.to(torch.int32)
    g = gnnkern.Graph.from_edge_index(edge_index, num_nodes=(NUM_SRC, NUM_DST))
    x = torch.randn(NUM_SRC, 3)
    expected = gnnkern.spmm(g, x, backend="cpu")
    edge_index.fill_(2**30)
    del edge_index
    gc.collect()
    assert torch.equal(gnnkern.spmm(g, x, backend="cpu"), expected)
