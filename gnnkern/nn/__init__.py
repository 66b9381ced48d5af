"""Layers that own parameters and nothing else; PyG's constructors, forwards and state_dicts."""

from gnnkern.nn.aggregation import (
    Aggregation,
    AttentionalAggregation,
    LSTMAggregation,
    MaxAggregation,
    MeanAggregation,
    MinAggregation,
    MulAggregation,
    MultiAggregation,
    SoftmaxAggregation,
    StdAggregation,
    SumAggregation,
    VarAggregation,
)
from gnnkern.nn.appnp import APPNP
from gnnkern.nn.gat_conv import GATConv
from gnnkern.nn.gatv2_conv import GATv2Conv
from gnnkern.nn.gcn_conv import GCNConv
from gnnkern.nn.gin_conv import GINConv, GINEConv
from gnnkern.nn.graph_conv import GraphConv
from gnnkern.nn.rows import Messages
from gnnkern.nn.sage_conv import SAGEConv
from gnnkern.nn.transformer_conv import TransformerConv

__all__ = [
    "APPNP",
    "Aggregation",
    "AttentionalAggregation",
    "GATConv",
    "GATv2Conv",
    "GCNConv",
    "GINConv",
    "GINEConv",
    "GraphConv",
    "LSTMAggregation",
    "MaxAggregation",
    "MeanAggregation",
    "Messages",
    "MinAggregation",
    "MulAggregation",
    "MultiAggregation",
    "SAGEConv",
    "SoftmaxAggregation",
    "StdAggregation",
    "SumAggregation",
    "TransformerConv",
    "VarAggregation",
]
