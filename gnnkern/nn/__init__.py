"""Layers that own parameters and nothing else; PyG's constructors, forwards and state_dicts."""

from gnnkern.nn.aggregation import (
    Aggregation,
    MaxAggregation,
    MeanAggregation,
    MinAggregation,
    MulAggregation,
    StdAggregation,
    SumAggregation,
    VarAggregation,
)
from gnnkern.nn.appnp import APPNP
from gnnkern.nn.degree_scaler import DegreeScalerAggregation
from gnnkern.nn.diffusion import Diffusion, PersonalizedPropagation
from gnnkern.nn.edge_conv import EdgeConv
from gnnkern.nn.gat_conv import GATConv
from gnnkern.nn.gatv2_conv import GATv2Conv
from gnnkern.nn.gcn_conv import GCNConv
from gnnkern.nn.gin_conv import GINConv, GINEConv
from gnnkern.nn.graph_conv import GraphConv
from gnnkern.nn.hetero_conv import HeteroConv
from gnnkern.nn.learned_aggregation import (
    AttentionalAggregation,
    LSTMAggregation,
    SoftmaxAggregation,
)
from gnnkern.nn.message_passing import MessagePassing
from gnnkern.nn.multi_aggregation import MultiAggregation
from gnnkern.nn.pna_conv import PNAConv
from gnnkern.nn.readout import global_add_pool, global_max_pool, global_mean_pool
from gnnkern.nn.rgcn_conv import RGCNConv
from gnnkern.nn.rows import Messages
from gnnkern.nn.sage_conv import SAGEConv
from gnnkern.nn.transformer_conv import TransformerConv
from gnnkern.relations import Relations

__all__ = [
    "APPNP",
    "Aggregation",
    "AttentionalAggregation",
    "DegreeScalerAggregation",
    "Diffusion",
    "EdgeConv",
    "GATConv",
    "GATv2Conv",
    "GCNConv",
    "GINConv",
    "GINEConv",
    "GraphConv",
    "HeteroConv",
    "LSTMAggregation",
    "MaxAggregation",
    "MeanAggregation",
    "MessagePassing",
    "Messages",
    "MinAggregation",
    "MulAggregation",
    "MultiAggregation",
    "PNAConv",
    "PersonalizedPropagation",
    "RGCNConv",
    "Relations",
    "SAGEConv",
    "SoftmaxAggregation",
    "StdAggregation",
    "SumAggregation",
    "TransformerConv",
    "VarAggregation",
    "global_add_pool",
    "global_max_pool",
    "global_mean_pool",
]
