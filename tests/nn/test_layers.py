"""Layers against PyG's of the same names: values, gradients, parameter names both ways."""

import pickle
from copy import deepcopy

import pytest
import torch
from layer_cases import CASES, N
from layer_pairs import DTYPES, assert_same_layer, edge_tensors_made

import gnnkern

NAMES = list(CASES)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_same_as_pyg(name, dtype):
    pyg = pytest.importorskip("torch_geometric.nn")
    case = CASES[name]
    ours, theirs = case.make(gnnkern.nn), case.make(pyg)
    assert_same_layer(ours, theirs, case.x(), case.edges(), case.sizes, dtype, **case.given())


@pytest.mark.parametrize("name", NAMES)
def test_copies_of_a_layer_give_the_same(name):
    case = CASES[name]
    layer = case.make(gnnkern.nn).double()
    graph = gnnkern.Graph.from_edge_index(case.edges(), case.sizes)
    x, given = case.x(), case.given()
    expected = layer(x, graph, **given)
    for copy in (deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(copy(x, graph, **given), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_drawn_again(name):
    layer = CASES[name].make(gnnkern.nn)
    first = deepcopy(layer.state_dict())
    with torch.no_grad():
        for value in layer.state_dict().values():
            value.fill_(7.0)
    layer.reset_parameters()
    for key, value in layer.state_dict().items():
        assert not (value == 7.0).all(), key
        if first[key].numel() == 1 and "nn." not in key:
            assert torch.equal(value, first[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_no_edges(name):
    case = CASES[name]
    layer, given = case.make(gnnkern.nn).double(), case.given()
    for key, value in given.items():
        given[key] = value[:0] if isinstance(value, torch.Tensor) else value
    x = case.x()
    out = layer(x, torch.empty(2, 0, dtype=torch.int64), **given)
    if case.sizes[0] == case.sizes[1]:
        assert out.shape[0] == N
    assert out.isfinite().all()
    out.sum().backward() if out.requires_grad else None


ONE_WALK = ["gin", "gin_narrow", "gin_mean", "graph_conv_weight", "graph_conv_max", "appnp_weight"]
ONE_WALK += ["sage_mean", "sage_sum_pair", "sage_var", "sage_pool", "sage_several_proj"]
ONE_WALK += ["edge_linear_sum", "edge_relu", "edge_relu_min", "pna", "pna_var", "pna_one"]
ONE_WALK += ["rgcn", "rgcn_bases", "rgcn_blocks_max"]


def _edge_tensors_made(name):
    case = CASES[name]
    layer = case.make(gnnkern.nn).double()
    graph = gnnkern.Graph.from_edge_index(case.edges(), case.sizes)
    assert graph.num_edges not in case.sizes
    return edge_tensors_made(layer, case.x(), graph, graph.num_edges, **case.given())


@pytest.mark.parametrize("name", ONE_WALK)
def test_nothing_of_edges_times_width_is_made(name):
    assert _edge_tensors_made(name) == []


# Forward: the maps of the edges, the messages. Backward: the gradients of both.
SOME = {"gine": 5, "edge_mlp": 6, "pna_edges": 5, "pna_edges_linear": 5}


@pytest.mark.parametrize("name", SOME)
def test_of_edges_times_width_no_more_is_made_than_said(name):
    assert len(_edge_tensors_made(name)) == SOME[name]
