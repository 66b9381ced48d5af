"""`GraphData` checks what it is given, once, and says what it holds."""

import dataclasses
import sys
import types

import pytest
import torch

from gnnkern.data import GraphData

EDGES = torch.tensor([[0, 1, 2], [1, 2, 0]])
MASK = torch.tensor([[True, False, False, False]])


def make(**fields):
    values = {
        "name": "toy",
        "edge_index": EDGES,
        "num_nodes": 4,
        "x": torch.zeros(4, 2),
        "y": torch.tensor([0, 2, 1, -1]),
        "train_mask": MASK,
        "val_mask": MASK.roll(1, 1),
        "test_mask": MASK.roll(2, 1),
    }
    return GraphData(**(values | fields))


def test_sizes():
    data = make()
    assert (data.num_edges, data.num_features, data.num_classes, data.num_splits) == (3, 2, 3, 1)
    assert data.num_dst == 4 and not data.is_bipartite
    bare = GraphData("bare", EDGES, 3)
    assert (bare.num_features, bare.num_classes, bare.num_splits) == (0, 0, 0)
    empty = GraphData("empty", torch.empty(2, 0, dtype=torch.int64), 0, y=torch.empty(0).long())
    assert (empty.num_edges, empty.num_classes) == (0, 0)


def test_repr():
    assert repr(make()) == (
        "GraphData(toy: 4 nodes, 3 edges, 2 features, 3 classes, "
        "1 split of train 1 / val 1 / test 1)"
    )
    bipartite = GraphData("b", EDGES, 3, num_dst=5, edge_weight=torch.ones(3))
    assert repr(bipartite) == "GraphData(b: 3 sources, 5 destinations, 3 weighted edges)"


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().num_nodes = 5


def test_replace_checks_again():
    assert dataclasses.replace(make(), name="other").name == "other"
    with pytest.raises(ValueError, match="x must have shape"):
        dataclasses.replace(make(), x=torch.zeros(3, 2))


def test_graph_is_built_once(monkeypatch):
    calls = []

    class Graph:
        @staticmethod
        def from_edge_index(edge_index, num_nodes):
            calls.append((edge_index, num_nodes))
            return Graph()

    module = types.ModuleType("gnnkern.graph")
    module.Graph = Graph
    monkeypatch.setitem(sys.modules, "gnnkern.graph", module)
    data = GraphData("b", EDGES, 3, num_dst=5)
    assert data.graph() is data.graph()
    assert len(calls) == 1
    assert calls[0][0] is data.edge_index and calls[0][1] == (3, 5)


def test_graph_has_the_sizes():
    graph = GraphData("b", EDGES, 3, num_dst=5).graph()
    assert (graph.num_src, graph.num_dst, graph.num_edges) == (3, 5, 3)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"num_nodes": -1}, ValueError, "num_nodes must be at least 0, got -1"),
        ({"num_nodes": 4.0}, TypeError, "num_nodes must be an int, got float"),
        ({"edge_index": EDGES.int()}, TypeError, "edge_index must be int64, got int32"),
        ({"edge_index": [[0], [1]]}, TypeError, "edge_index must be a int64 tensor, got list"),
        ({"edge_index": EDGES.T}, ValueError, r"must have shape \[2, E\], got \[3, 2\]"),
        (
            {"edge_index": torch.tensor([[0, 1], [0, 4]])},
            ValueError,
            r"edge 1 has destination 4, expected an id in \[0, 4\)",
        ),
        (
            {"edge_index": torch.tensor([[0, -1], [0, 9]])},
            ValueError,
            r"edge 1 has source -1, expected an id in \[0, 4\)",
        ),
        ({"x": torch.zeros(3, 2)}, ValueError, r"x must have shape \[num_nodes=4, F\], got \[3, 2"),
        ({"x": torch.zeros(4, 2).double()}, TypeError, "x must be float32, got float64"),
        (
            {"x": torch.tensor([[0.0], [1.0], [float("nan")], [float("inf")]])},
            ValueError,
            r"x\[2, 0\] is nan, expected a finite number",
        ),
        ({"y": torch.zeros(4)}, TypeError, "y must be int64, got float32"),
        ({"y": torch.zeros(4, 1).long()}, ValueError, r"y must have shape \[num_dst\] = \[4\]"),
        ({"y": torch.tensor([0, 1, -2, -3])}, ValueError, "node 2 has label -2, expected a class"),
        ({"train_mask": MASK.long()}, TypeError, "train_mask must be bool, got int64"),
        ({"val_mask": MASK[0]}, ValueError, r"val_mask must have shape \[splits, num_dst=4\]"),
        ({"test_mask": MASK.repeat(2, 1)}, ValueError, "test_mask has 2 splits, expected 1 as in"),
        (
            {"test_mask": MASK.roll(3, 1)},
            ValueError,
            "test_mask split 0 holds node 3, which has no",
        ),
        ({"edge_weight": torch.ones(2)}, ValueError, r"edge_weight must have shape \[E\] = \[3\]"),
        ({"edge_weight": torch.ones(3).int()}, TypeError, "must be float32 or float64, got int32"),
        (
            {"edge_weight": torch.tensor([1.0, float("inf"), 0.0])},
            ValueError,
            "edge 1 has weight inf, expected a finite number",
        ),
        ({"node_ids": torch.arange(3)}, ValueError, r"node_ids must have shape \[num_nodes\]"),
    ],
)
def test_rejects(fields, error, message):
    with pytest.raises(error, match="GraphData toy: .*" + message):
        make(**fields)


def test_large_finite_features_pass():
    assert make(x=torch.full((4, 2), 3e38)).num_features == 2
