"""What layers are made of and called with, the same for PyG's layer and ours."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from layer_pairs import awkward_edges
from torch import nn

N, N_DST, F_IN, F_DST, F_OUT, RELATIONS = 12, 9, 6, 4, 3, 4


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
    # Of the features of all nodes, or of those of sources and destinations (None: without).
    widths: tuple[int, int | None] | int = F_IN
    sizes: tuple[int, int] = (N, N)
    # Of each edge: a positive number (0), as many features, or one of RELATIONS types (-1).
    edge: tuple[str, int] | None = None
    # Node ids stand for features.
    ids: bool = False
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
        if self.ids:
            return torch.randint(self.widths, self.sizes[:1])
        if isinstance(self.widths, int):
            return rows(self.sizes[0], self.widths)
        parts = zip(self.sizes, self.widths, strict=True)
        return tuple(None if width is None else rows(size, width) for size, width in parts)

    def given(self) -> dict[str, Any]:
        given: dict[str, Any] = {"size": self.sizes} if self.sized else {}
        if self.edge is not None:
            name, width = self.edge
            count = self.edges().shape[1]
            if width < 0:
                given[name] = torch.randint(RELATIONS, (count,))
            else:
                given[name] = rows(count, width) if width else 0.5 + rows(count, 1).sigmoid()[:, 0]
        return given


PNA_AGGREGATORS = ["mean", "min", "max", "std"]
PNA_SCALERS = ["identity", "amplification", "attenuation"]
PAIR = {"widths": (F_IN, F_DST), "sizes": (N, N_DST)}
SAME_PAIR = {"widths": (F_IN, F_IN), "sizes": (N, N_DST)}
SOURCES = {"widths": (F_IN, None), "sizes": (N, N_DST), "sized": True}
WEIGHT = ("edge_weight", 0)


def of_pairs(*behind: nn.Module) -> Callable[[], nn.Module]:
    """A network of two nodes' features that begins with a linear map."""
    return lambda: nn.Sequential(nn.Linear(2 * F_IN, F_OUT), *deepcopy(behind))


def pna(
    aggregators: list[str], scalers: list[str], edge_dim: int | None = None, **options: Any
) -> Case:
    deg = torch.tensor([2, 1, 0, 4, 3, 1, 1])
    arguments = (4, 6, aggregators, scalers, deg, edge_dim)
    edge = None if edge_dim is None else ("edge_attr", edge_dim)
    return Case("PNAConv", arguments, options, widths=4, edge=edge)


SAGE = {
    "mean": {},
    "max": {"aggr": "max"},
    "min": {"aggr": "min"},
    "sum": {"aggr": "sum"},
    "add": {"aggr": "add"},
    "normalize": {"normalize": True},
    "no_root": {"root_weight": False},
    "project": {"project": True},
    "pool": {"aggr": "max", "project": True},
    "no_bias": {"bias": False},
    "var": {"aggr": "var"},
    "std": {"aggr": "std"},
    "mul": {"aggr": "mul"},
    "softmax": {"aggr": "softmax"},
    "learned_softmax": {"aggr": "softmax", "aggr_kwargs": {"learn": True}},
    "several": {"aggr": ["mean", "max", "std", "softmax", "sum"]},
    "several_proj": {
        "aggr": ["mean", "max"],
        "aggr_kwargs": {"mode": "proj", "mode_kwargs": {"in_channels": F_IN, "out_channels": 4}},
    },
}


def sage() -> dict[str, Case]:
    """Maps that make rows narrower and wider, pairs of features, sources alone."""
    cases = {}
    for name, options in SAGE.items():
        cases[f"sage_{name}"] = Case("SAGEConv", (F_IN, F_OUT), options)
        cases[f"sage_{name}_wide"] = Case("SAGEConv", (F_IN, F_IN + 1), options)
    for aggr in ("mean", "max", "sum", "lstm", ["min", "var"]):
        ends, options = ((F_IN, F_DST), F_OUT), {"aggr": aggr}
        name = aggr if isinstance(aggr, str) else "several"
        in_order = {"in_order": aggr == "lstm"}
        cases[f"sage_{name}_pair"] = Case("SAGEConv", ends, options, **PAIR, **in_order)
        cases[f"sage_{name}_sources"] = Case("SAGEConv", ends, options, **SOURCES, **in_order)
    cases["sage_lstm"] = Case("SAGEConv", (F_IN, F_OUT), {"aggr": "lstm"}, in_order=True)
    return cases


def rgcn(width_in: Any = F_IN, **options: Any) -> Case:
    shape = PAIR if isinstance(width_in, tuple) else {"ids": options.pop("ids", False)}
    arguments = (width_in, F_OUT if "num_blocks" not in options else 6, RELATIONS)
    return Case("RGCNConv", arguments, options, edge=("edge_type", -1), **shape)


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
    **sage(),
    "edge_linear": Case("EdgeConv", (lambda: nn.Linear(2 * F_IN, F_OUT),)),
    "edge_linear_sum": Case("EdgeConv", (of_pairs(),), {"aggr": "sum"}),
    "edge_linear_mean": Case("EdgeConv", (of_pairs(),), {"aggr": "mean"}, **SAME_PAIR),
    "edge_relu": Case("EdgeConv", (of_pairs(nn.LeakyReLU(0.2), nn.Sigmoid()),)),
    "edge_relu_min": Case("EdgeConv", (of_pairs(nn.ReLU(inplace=True)),), {"aggr": "min"}),
    "edge_relu_sum": Case("EdgeConv", (of_pairs(nn.ReLU(inplace=True)),), {"aggr": "add"}),
    "edge_falling": Case("EdgeConv", (of_pairs(nn.LeakyReLU(-0.2)),)),
    "edge_mlp": Case("EdgeConv", (of_pairs(nn.Tanh(), nn.Linear(F_OUT, 2)),), **SAME_PAIR),
    "edge_norm": Case("EdgeConv", (of_pairs(nn.LayerNorm(F_OUT), nn.ReLU()),)),
    "edge_other_nn": Case("EdgeConv", (lambda: nn.Sequential(nn.Tanh(), *of_pairs()()),)),
    "pna": pna(PNA_AGGREGATORS, PNA_SCALERS),
    "pna_var": pna(["var", "sum", "mean"], ["linear", "inverse_linear"], towers=2),
    "pna_one": pna(["max"], ["amplification"], divide_input=True, towers=2),
    "pna_edges": pna(PNA_AGGREGATORS, PNA_SCALERS, 3, towers=2),
    "pna_edges_linear": pna(["sum", "mean", "max"], ["identity"], 3, train_norm=True),
    "pna_edges_divided": pna(PNA_AGGREGATORS, PNA_SCALERS, 3, towers=2, divide_input=True),
    "pna_deep": pna(PNA_AGGREGATORS, PNA_SCALERS, pre_layers=2, post_layers=3, act="tanh"),
    "pna_deep_edges": pna(
        ["min", "std"], PNA_SCALERS, 3, towers=2, pre_layers=3, act="leaky_relu", train_norm=True
    ),
    "rgcn": rgcn(),
    "rgcn_sum": rgcn(aggr="add", bias=False),
    "rgcn_max": rgcn(aggr="max", root_weight=False),
    "rgcn_bases": rgcn(num_bases=2),
    "rgcn_blocks": rgcn(num_blocks=3),
    "rgcn_blocks_max": rgcn(num_blocks=2, aggr="max"),
    "rgcn_pair": rgcn((F_IN, F_DST)),
    "rgcn_ids": rgcn(ids=True),
    "rgcn_ids_max": rgcn(ids=True, aggr="max", num_bases=2),
}
