"""Users' layers written for PyG's `MessagePassing`, on ours; and those that declare messages."""

import pytest
import torch
from layer_cases import F_IN, N_DST, N, rows
from layer_pairs import DTYPES, assert_same_layer, awkward_edges, edge_tensors_made
from torch import nn

import gnnkern
from gnnkern.nn import MessagePassing, Messages

EDGE_DIM = 4


def user_layers(base):
    """The same source for both packages."""

    class Copy(base):
        def forward(self, x, edge_index):
            return self.propagate(edge_index, x=x)

    class Weighted(base):
        def forward(self, x, edge_index, edge_weight=None):
            return self.propagate(edge_index, x=x, edge_weight=edge_weight)

        def message(self, x_j, edge_weight):
            return x_j if edge_weight is None else edge_weight.view(-1, 1) * x_j

    class BothEnds(base):
        def __init__(self, **options):
            super().__init__("max", **options)
            self.in_channels, self.out_channels = F_IN, 3
            self.lin = nn.Linear(2 * F_IN + EDGE_DIM, 3)

        def forward(self, x, edge_index, edge_attr=None, size=None):
            return self.propagate(edge_index, h=x, edge_attr=edge_attr, size=size)

        def message(self, h_i, h_j, edge_attr, size_i, index, dim_size):
            assert size_i == dim_size and index.shape == h_i.shape[:1]
            return self.lin(torch.cat([h_i, h_j - h_i, edge_attr], -1)).tanh()

    class OwnAggregate(base):
        def __init__(self, **options):
            super().__init__(aggr=None, **options)

        def forward(self, x, edge_index):
            return self.propagate(edge_index, x=x, scale=2.0)

        def message(self, x_j, scale, shift=0.5):
            return x_j * scale + shift

        def aggregate(self, inputs, index, ptr=None, dim_size=None):
            out = inputs.new_zeros(dim_size, inputs.shape[1])
            return out.index_add(0, index, inputs)

        def update(self, inputs, x):
            return inputs + (x if isinstance(x, torch.Tensor) else x[1])

    class ParentsAggregate(base):
        def forward(self, x, edge_index):
            return self.propagate(edge_index, x=x)

        def aggregate(self, inputs, index, ptr=None, dim_size=None):
            return super().aggregate(inputs.exp(), index, ptr=ptr, dim_size=dim_size).log1p()

    class IdsAndDegrees(base):
        def forward(self, x, edge_index):
            ids = torch.arange(x.shape[0]).view(-1, 1)
            return self.propagate(edge_index, x=x, ids=ids, norm=x[:, :1].exp(), nothing=None)

        def message(self, x_j, ids_i, ids_j, norm_i, nothing_j, edge_index_i, edge_index_j):
            assert nothing_j is None
            assert torch.equal(ids_i[:, 0], edge_index_i)
            assert torch.equal(ids_j[:, 0], edge_index_j)
            return x_j * (ids_i - ids_j) / norm_i

    class EdgeUpdate(base):
        def forward(self, x, edge_index):
            alpha = self.edge_updater(edge_index, x=x)
            return self.propagate(edge_index, x=x, alpha=alpha)

        def edge_update(self, x_i, x_j):
            return (x_i * x_j).sum(-1, keepdim=True)

        def message(self, x_j, alpha):
            return alpha * x_j

    return {kind.__name__: kind for kind in (*locals().values(),) if isinstance(kind, type)}


OURS = user_layers(MessagePassing)
CASES = {
    "copy": ("Copy", {}),
    "copy_mean": ("Copy", {"aggr": "mean"}),
    "copy_several": ("Copy", {"aggr": ["mean", "std", "min"]}),
    "copy_softmax": ("Copy", {"aggr": "softmax", "aggr_kwargs": {"learn": True}}),
    "weighted": ("Weighted", {"aggr": "add"}),
    "both_ends": ("BothEnds", {}),
    "own_aggregate": ("OwnAggregate", {}),
    "parents_aggregate": ("ParentsAggregate", {"aggr": "mean"}),
    "ids": ("IdsAndDegrees", {}),
    "edge_update": ("EdgeUpdate", {"node_dim": 0}),
}


def _options(name):
    edges = awkward_edges().shape[1]
    if name == "Weighted":
        return {"edge_weight": torch.randn(edges, dtype=torch.float64)}
    return {"edge_attr": rows(edges, EDGE_DIM)} if name == "BothEnds" else {}


def _pyg_layers():
    return user_layers(pytest.importorskip("torch_geometric.nn").MessagePassing)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
@pytest.mark.parametrize("case", CASES)
def test_user_layer_same_as_on_pyg(case, flow, dtype):
    name, options = CASES[case]
    ours, theirs = (kinds[name](flow=flow, **options) for kinds in (OURS, _pyg_layers()))
    assert_same_layer(ours, theirs, rows(N), awkward_edges(), (N, N), dtype, **_options(name))


@pytest.mark.parametrize("name", ["BothEnds", "OwnAggregate", "Copy"])
def test_pair_of_features_same_as_on_pyg(name):
    ours, theirs = (kinds[name]() for kinds in (OURS, _pyg_layers()))
    edges = awkward_edges(N, N_DST)
    options = {"edge_attr": rows(edges.shape[1], EDGE_DIM)} if name == "BothEnds" else {}
    x = (rows(N), rows(N_DST))
    assert_same_layer(ours, theirs, x, edges, (N, N_DST), torch.float64, **options)


@pytest.mark.parametrize("as_graph", [False, True])
def test_pair_of_features_the_other_way(as_graph):
    # The first of a pair belongs to the first row of edge_index, as PyG documents; the code that
    # PyG 2.8 generates takes it for the sources.
    edges, x = awkward_edges(N, N_DST), (rows(N), rows(N_DST))
    given = gnnkern.Graph.from_edge_index(edges, (N, N_DST)) if as_graph else edges
    out = OURS["Copy"](flow="target_to_source")(x, given)
    expected = torch.zeros(N, F_IN, dtype=out.dtype).index_add(0, edges[0], x[1][edges[1]])
    torch.testing.assert_close(out, expected)


def test_values_of_a_sparse_matrix_are_edge_weights():
    edges = awkward_edges().unique(dim=1)
    weight = torch.rand(edges.shape[1], dtype=torch.float64)
    adj = torch.sparse_coo_tensor(edges.flip(0), weight, (N, N)).coalesce()
    layer, x = OURS["Weighted"](), rows(N)
    torch.testing.assert_close(layer(x, adj), layer(x, edges, weight))


class Declared(MessagePassing):
    """Messages that are said, not made."""

    def __init__(self, aggr, op="mul", own=False, made=False):
        super().__init__(aggr)
        self.op, self.own, self.made = op, own, made

    def forward(self, x, edge_index, edge_weight):
        return self.propagate(edge_index, x=x, edge_weight=edge_weight)

    def message(self, graph, x, edge_weight):
        messages = Messages(graph, x, edge_weight, self.op, x if self.own else None)
        return messages.made() if self.made else messages


@pytest.mark.parametrize("own", [False, True], ids=["", "own"])
@pytest.mark.parametrize("op", ["mul", "add", "sub", "div"])
@pytest.mark.parametrize("aggr", ["sum", "mean", "max", "std", ["min", "var"], "softmax", "mul"])
def test_declared_messages_give_what_made_ones_give(aggr, op, own):
    edges, x = awkward_edges(), rows(N).requires_grad_()
    # Distinct messages: of equal ones the first in the caller's order wins either way.
    weight = (0.5 + torch.rand(edges.shape[1], 1, dtype=torch.float64)).requires_grad_()
    outs = [Declared(aggr, op, own, made)(x, edges, weight) for made in (False, True)]
    torch.testing.assert_close(outs[0], outs[1])
    grads = [torch.autograd.grad(out.square().sum(), (x, weight)) for out in outs]
    torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize(("aggr", "count"), [("sum", 0), ("mean", 0), ("max", 0), ("std", 2)])
def test_declared_messages_are_not_made(aggr, count):
    graph = gnnkern.Graph.from_edge_index(awkward_edges(), N)
    assert graph.num_edges != N
    weight = torch.rand(graph.num_edges, dtype=torch.float64)
    made = edge_tensors_made(Declared(aggr), rows(N), graph, graph.num_edges, edge_weight=weight)
    assert len(made) == count
    plain = edge_tensors_made(OURS["Copy"](aggr), rows(N), graph, graph.num_edges)
    assert plain == []


def test_sizes_of_an_edge_index():
    layer, edges = Declared("sum"), awkward_edges()
    weight = torch.ones(edges.shape[1], dtype=torch.float64)
    assert layer(rows(N), edges, weight).shape == (N, F_IN)
    both = OURS["BothEnds"]().double()
    with pytest.raises(ValueError, match="BothEnds: h must have a row for each of 13 nodes"):
        both(rows(N), edges, rows(edges.shape[1], EDGE_DIM), size=(13, 13))


def test_bad_arguments():
    kinds, edges, x = OURS, awkward_edges(), rows(N)
    with pytest.raises(ValueError, match="Copy: flow must be one of .* got 'up'"):
        kinds["Copy"](flow="up")
    with pytest.raises(ValueError, match="Copy: node_dim must be 0 or -2, got 1"):
        kinds["Copy"](node_dim=1)
    with pytest.raises(ValueError, match="Copy: aggr must be one of .* got 'median'"):
        kinds["Copy"](aggr="median")
    with pytest.raises(ValueError, match="BothEnds: propagate needs size"):
        kinds["BothEnds"]().propagate(edges, edge_attr=None)
    with pytest.raises(TypeError, match="Weighted: propagate needs the argument 'edge_weight'"):
        kinds["Weighted"]().propagate(edges, x=x)
    with pytest.raises(TypeError, match="Copy: propagate needs the argument 'x'"):
        kinds["Copy"]().propagate(gnnkern.Graph.from_edge_index(edges, N))
    with pytest.raises(ValueError, match="Copy: x must have a row for each of 12 nodes, got shape"):
        kinds["Copy"]()(x[1:], gnnkern.Graph.from_edge_index(edges, N))
    with pytest.raises(ValueError, match="Copy: x of shape .* needs node_dim=0"):
        kinds["Copy"]()(x.view(N, 1, F_IN), edges)
    with pytest.raises(ValueError, match="Copy: a pair of features is needed, got 3"):
        kinds["Copy"]()((x, x, x), edges)
    with pytest.raises(ValueError, match="Copy: aggr=None needs a subclass with aggregate"):
        kinds["Copy"](aggr=None)(x, edges)
    with pytest.raises(NotImplementedError, match="MessagePassing: a subclass must define forward"):
        MessagePassing()(x, edges)
    with pytest.raises(NotImplementedError, match="a subclass must define edge_update"):
        MessagePassing().edge_updater(edges, size=(N, N))
    with pytest.raises(ValueError, match="Copy: a sparse matrix needs flow='source_to_target'"):
        kinds["Copy"](flow="target_to_source")(x, torch.eye(N).to_sparse())
