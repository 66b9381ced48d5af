"""Graphs to work on: readers of real formats, seeded generators, and `load` for all of them."""

from gnnkern.data.digits import digits_graph
from gnnkern.data.edge_list import read_edge_list
from gnnkern.data.generators import grid, hub, power_law, rmat, star, uniform
from gnnkern.data.graph_data import GraphData
from gnnkern.data.matrix_market import read_matrix_market
from gnnkern.data.npz import read_npz
from gnnkern.data.ogb import read_ogb
from gnnkern.data.planetoid import read_planetoid
from gnnkern.data.sources import load

__all__ = [
    "GraphData",
    "digits_graph",
    "grid",
    "hub",
    "load",
    "power_law",
    "read_edge_list",
    "read_matrix_market",
    "read_npz",
    "read_ogb",
    "read_planetoid",
    "rmat",
    "star",
    "uniform",
]
