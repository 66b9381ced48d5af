"""Layers that own parameters and nothing else; PyG's constructors, forwards and state_dicts."""

from gnnkern.nn.diffusion import Diffusion, PersonalizedPropagation
from gnnkern.nn.gat_conv import GATConv
from gnnkern.nn.gatv2_conv import GATv2Conv
from gnnkern.nn.gcn_conv import GCNConv
from gnnkern.nn.sage_conv import SAGEConv
from gnnkern.nn.transformer_conv import TransformerConv

__all__ = [
    "Diffusion",
    "GATConv",
    "GATv2Conv",
    "GCNConv",
    "PersonalizedPropagation",
    "SAGEConv",
    "TransformerConv",
]
