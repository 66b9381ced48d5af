"""What SAGEConv starts from and refuses; its values are compared in test_layers.py."""

import pytest
import torch
from layer_pairs import awkward_edges

import gnnkern
from gnnkern.nn import SAGEConv

N, F_IN = 12, 5


def _x(nodes: int = N) -> torch.Tensor:
    return torch.randn(nodes, F_IN, dtype=torch.float64)


def test_no_edges_leaves_bias_and_root():
    layer, x = SAGEConv(F_IN, 3).double(), _x()
    expected = layer.lin_l.bias + x @ layer.lin_r.weight.T
    torch.testing.assert_close(layer(x, torch.empty(2, 0, dtype=torch.int64)), expected)


def test_initialised_like_torch_linear():
    torch.manual_seed(5)
    layer = SAGEConv(300, 200)
    bound = 300**-0.5
    for parameter in layer.parameters():
        assert parameter.abs().max() <= bound
        assert parameter.abs().max() > 0.9 * bound


def test_bad_arguments():
    with pytest.raises(ValueError, match="SAGEConv: aggr must be one of sum.*got 'median'"):
        SAGEConv(F_IN, 3, aggr="median")
    with pytest.raises(ValueError, match="project=True needs in_channels > 0, got -1"):
        SAGEConv(-1, 3, project=True)
    graph = gnnkern.Graph.from_edge_index(awkward_edges(), N)
    with pytest.raises(ValueError, match=r"x of the destinations must have shape \[num_dst=12, F"):
        SAGEConv(F_IN, 3)((_x().float(), _x(1).float()), graph)
    with pytest.raises(ValueError, match=r"x must have shape \[num_src=12"):
        SAGEConv(F_IN, 3)((_x(N + 1).float(), _x().float()), graph)
