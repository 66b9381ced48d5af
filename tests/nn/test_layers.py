"""Layers against PyG's of the same names: values, gradients, parameter names both ways."""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from layer_pairs import DTYPES, assert_same_layer, awkward_edges
from torch import nn

import gnnkern

N, N_DST, F_IN, F_DST, F_OUT = 12, 9, 5, 4, 3


def rows(count: int, width: int = F_IN) -> torch.Tensor:
    return torch.randn(count, width, dtype=torch.float64)


def mlp(width_in: int = F_IN, hidden: int = 6) -> nn.Module:
    return nn.Sequential(nn.Linear(width_in, hidden), nn.Tanh(), nn.Linear(hidden, F_OUT))


@dataclass
class Case:
    """A layer's name, its arguments, and what it is called with: widths, or a pair of them."""

    layer: str
    arguments: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)
    # None: as many destinations as sources, and the same features.
    widths: tuple[int, int | None] | int = F_IN
    sizes: tuple[int, int] = (N, N)
    # Of each edge: a positive number (0), or as many features.
    edge: tuple[str, int] | None = None
    sized: bool = False
    # PyG wants the edges in the order of their destinations.
    in_order: bool = False

    def make(self, package) -> nn.Module:
        arguments = (value() if callable(value) else value for value in self.arguments)
        return getattr(package, self.layer)(*arguments, **deepcopy(self.options)).eval()

    def edges(self) -> torch.Tensor:
        edges = awkward_edges(*self.sizes)
        return edges[:, edges[1].argsort(stable=True)] if self.in_order else edges

    def x(self) -> Any:
        if isinstance(self.widths, int):
            return rows(self.sizes[0], self.widths)
        parts = zip(self.sizes, self.widths, strict=True)
        return tuple(None if width is None else rows(size, width) for size, width in parts)

    def given(self) -> dict[str, Any]:
        given: dict[str, Any] = {"size": self.sizes} if self.sized else {}
        if self.edge is not None:
            name, width = self.edge
            count = self.edges().shape[1]
            given[name] = rows(count, width) if width else 0.5 + rows(count, 1)[:, 0].sigmoid()
        return given


PAIR = {"widths": (F_IN, F_DST), "sizes": (N, N_DST)}
SAME_PAIR = {"widths": (F_IN, F_IN), "sizes": (N, N_DST)}
SOURCES = {"widths": (F_IN, None), "sizes": (N, N_DST), "sized": True}
WEIGHT = ("edge_weight", 0)

CASES = {
    "gin": Case("GINConv", (mlp,)),
    "gin_narrow": Case("GINConv", (lambda: mlp(hidden=2),), {"eps": 0.5, "train_eps": True}),
    "gin_linear": Case("GINConv", (lambda: nn.Linear(F_IN, 2, bias=False),), {"train_eps": True}),
    "gin_other_nn": Case("GINConv", (nn.Tanh,), {"aggr": "max"}),
    "gin_mean": Case("GINConv", (lambda: mlp(hidden=2),), {"aggr": "mean"}),
    "gin_pair": Case("GINConv", (lambda: mlp(hidden=2),), {"eps": 0.5}, **SAME_PAIR),
    "gin_sources": Case("GINConv", (lambda: mlp(hidden=2),), **SOURCES),
    "gine": Case("GINEConv", (mlp,), {"train_eps": True}, edge=("edge_attr", F_IN)),
    "gine_edge_dim": Case("GINEConv", (mlp,), {"edge_dim": 2}, edge=("edge_attr", 2)),
    "gine_pair": Case("GINEConv", (mlp,), {"aggr": "max"}, edge=("edge_attr", F_IN), **SAME_PAIR),
    "gine_sources": Case("GINEConv", (mlp,), edge=("edge_attr", F_IN), **SOURCES),
    "graph_conv": Case("GraphConv", (F_IN, F_OUT)),
    "graph_conv_weight": Case("GraphConv", (F_IN, F_OUT), edge=WEIGHT),
    "graph_conv_wide": Case("GraphConv", (F_IN, 7), {"bias": False}, edge=WEIGHT),
    "graph_conv_mean": Case("GraphConv", (F_IN, F_OUT), {"aggr": "mean"}, edge=WEIGHT),
    "graph_conv_max": Case("GraphConv", (F_IN, F_OUT), {"aggr": "max"}, edge=WEIGHT),
    "graph_conv_pair": Case("GraphConv", ((F_IN, F_DST), F_OUT), edge=WEIGHT, **PAIR),
    "graph_conv_sources": Case("GraphConv", ((F_IN, F_DST), F_OUT), **SOURCES),
    "appnp": Case("APPNP", (3, 0.1)),
    "appnp_weight": Case("APPNP", (3, 0.25), {"dropout": 0.5}, edge=WEIGHT),
    "appnp_no_loops": Case("APPNP", (2, 0.1), {"add_self_loops": False}),
    "appnp_raw": Case("APPNP", (2, 0.1), {"normalize": False}, edge=WEIGHT),
    "sage_var": Case("SAGEConv", (F_IN, F_OUT), {"aggr": "var"}),
    "sage_std": Case("SAGEConv", (F_IN, F_OUT), {"aggr": "std"}),
    "sage_mul": Case("SAGEConv", (F_IN, F_OUT), {"aggr": "mul"}),
    "sage_softmax": Case("SAGEConv", (F_IN, F_OUT), {"aggr": "softmax"}),
    "sage_learned_softmax": Case(
        "SAGEConv", (F_IN, F_OUT), {"aggr": "softmax", "aggr_kwargs": {"learn": True}}
    ),
    "sage_pool": Case("SAGEConv", (F_IN, F_OUT), {"aggr": "max", "project": True}),
    "sage_lstm": Case("SAGEConv", (F_IN, F_OUT), {"aggr": "lstm"}, in_order=True),
    "sage_lstm_pair": Case(
        "SAGEConv", ((F_IN, F_DST), F_OUT), {"aggr": "lstm"}, in_order=True, **PAIR
    ),
    "sage_several": Case(
        "SAGEConv", (F_IN, F_OUT), {"aggr": ["mean", "max", "std", "softmax", "sum"]}
    ),
    "sage_several_proj": Case(
        "SAGEConv",
        (F_IN, F_OUT),
        {
            "aggr": ["mean", "max"],
            "aggr_kwargs": {
                "mode": "proj",
                "mode_kwargs": {"in_channels": F_IN, "out_channels": 4},
            },
        },
    ),
    "sage_several_pair": Case("SAGEConv", ((F_IN, F_DST), F_OUT), {"aggr": ["min", "var"]}, **PAIR),
}
NAMES = list(CASES)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_same_as_pyg(name, dtype):
    pyg = pytest.importorskip("torch_geometric.nn")
    case = CASES[name]
    ours, theirs = case.make(gnnkern.nn), case.make(pyg)
    assert_same_layer(ours, theirs, case.x(), case.edges(), case.sizes, dtype, **case.given())
