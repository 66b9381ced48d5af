"""Small networks for node classification."""

from torch import nn

from gnnkern.nn.appnp import APPNP
from gnnkern.nn.diffusion import Diffusion
from gnnkern.nn.gat_conv import GATConv
from gnnkern.nn.gcn_conv import GCNConv
from gnnkern.nn.gin_conv import GINConv
from gnnkern.nn.linear import make_linear
from gnnkern.nn.mapped import Mapped
from gnnkern.nn.net import Net
from gnnkern.nn.sage_conv import SAGEConv


def gcn(in_channels: int, num_classes: int, *, hidden: int, dropout: float) -> Net:
    """Return a GCN of two layers."""
    convs: list[nn.Module] = [GCNConv(in_channels, hidden), GCNConv(hidden, num_classes)]
    return Net(convs, activation="relu", dropout=dropout)


def sage(in_channels: int, num_classes: int, *, hidden: int, dropout: float) -> Net:
    """Return a GraphSAGE of two layers that take the neighbours' mean."""
    convs: list[nn.Module] = [SAGEConv(in_channels, hidden), SAGEConv(hidden, num_classes)]
    return Net(convs, activation="relu", dropout=dropout)


def gat(in_channels: int, num_classes: int, *, hidden: int, heads: int, dropout: float) -> Net:
    """Return a GAT of two layers: `heads` heads of width `hidden`, then one head of classes."""
    convs: list[nn.Module] = [
        GATConv(in_channels, hidden, heads, dropout=dropout),
        GATConv(hidden * heads, num_classes, dropout=dropout),
    ]
    return Net(convs, activation="elu", dropout=dropout)


def gin(in_channels: int, num_classes: int, *, hidden: int, dropout: float) -> Net:
    """Return a GIN of two layers, each with a network of two linear maps."""
    convs: list[nn.Module] = [
        GINConv(_two_maps(in_channels, hidden, hidden)),
        GINConv(_two_maps(hidden, hidden, num_classes)),
    ]
    return Net(convs, activation="relu", dropout=dropout)


def appnp(in_channels: int, num_classes: int, *, hidden: int, dropout: float) -> Net:
    """Return a network of two linear maps whose class scores take ten steps of APPNP."""
    return _mapped(in_channels, num_classes, hidden, dropout, APPNP(K=10, alpha=0.1))


def diffusion(in_channels: int, num_classes: int, *, hidden: int, dropout: float) -> Net:
    """Return a network of two linear maps whose class scores diffuse: x' = S x - x up to time 4.

    One implicit step, exact to the solver's tolerance; a diffusion and a linear map behind it
    commute, so the map comes first, where rows are narrow.
    """
    return _mapped(in_channels, num_classes, hidden, dropout, Diffusion(time=4.0, norm="sym"))


def _mapped(
    in_channels: int, num_classes: int, hidden: int, dropout: float, spread: nn.Module
) -> Net:
    convs: list[nn.Module] = [
        Mapped(make_linear(in_channels, hidden, bias=True, glorot=True)),
        Mapped(make_linear(hidden, num_classes, bias=True, glorot=True), spread),
    ]
    return Net(convs, activation="relu", dropout=dropout)


def _two_maps(in_channels: int, hidden: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        make_linear(in_channels, hidden, bias=True, glorot=True),
        nn.ReLU(),
        make_linear(hidden, out_channels, bias=True, glorot=True),
    )
