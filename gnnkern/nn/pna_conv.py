"""Principal neighbourhood aggregation: several statistics of messages, scaled by the degree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnkern.graph import Graph
from gnnkern.nn.degree_scaler import DegreeScalerAggregation
from gnnkern.nn.inputs import as_graph, sparse_values
from gnnkern.nn.layer import Layer
from gnnkern.nn.linear import make_linear, run_all
from gnnkern.nn.multi_aggregation import aggregate
from gnnkern.nn.rows import Messages


class PNAConv(Layer):
    """`out[v] = lin(post([x[v], scaled statistics over (u, v) of pre([x[v], x[u], e_uv])]))`.

    Every tower has its own `pre` and `post`, and `lin` mixes them.

    Constructor, `forward` and `state_dict` (`aggr_module.avg_deg_lin`, `aggr_module.avg_deg_log`,
    `pre_nns.t.k.*`, `post_nns.t.k.*`, `lin.*`; `edge_encoder.*` with `edge_dim`) are those of PyG's
    layer of the same name.

    The first map of `pre` is a map of x[v], one of x[u] and one of the edge, so that with one layer
    and without edge features all statistics of all towers are one op on node features, and nothing
    of edges x width is made. With edge features, or more layers, one such tensor of towers x width
    is made beside the maps of the edges. The scaled copies of the statistics are not made: `post`
    is applied to the statistics. Hooks on the first map of `pre` and of `post` are not called.

    Ops: one `multi_reduce`; with edge features or layers behind the first `sddmm` before it.

    Args:
        in_channels: Input width.
        out_channels: Output width, a multiple of `towers`.
        aggregators: Names of statistics: "sum", "mean", "min", "max", "var", "std".
        scalers: Names of scalers: "identity", "amplification", "attenuation", "linear",
            "inverse_linear"; see `DegreeScalerAggregation`.
        deg: [D + 1] how many nodes of the training graphs have 0 to D neighbours.
        edge_dim: Width of `edge_attr`; None: no edge features.
        towers: Number of towers.
        pre_layers: Layers of `pre`.
        post_layers: Layers of `post`.
        divide_input: Whether each tower gets a part of x, rather than all of it.
        act: Activation between layers: its name, such as "relu", or a module or function.
        act_kwargs: Arguments of an activation given by name.
        train_norm: Whether the means of `DegreeScalerAggregation` are parameters.

    Source: Corso et al., "Principal neighbourhood aggregation for graph nets", 2020.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        aggregators: Sequence[str],
        scalers: Sequence[str],
        deg: Tensor,
        edge_dim: int | None = None,
        towers: int = 1,
        pre_layers: int = 1,
        post_layers: int = 1,
        divide_input: bool = False,
        act: str | Callable[[Tensor], Tensor] | None = "relu",
        act_kwargs: dict[str, Any] | None = None,
        train_norm: bool = False,
    ) -> None:
        super().__init__()
        _check_sizes(in_channels, out_channels, towers, pre_layers, post_layers, divide_input)
        self.aggr_module = DegreeScalerAggregation(
            list(aggregators), list(scalers), deg, train_norm
        )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.edge_dim = edge_dim
        self.towers = towers
        self.divide_input = divide_input
        self.F_in = in_channels // towers if divide_input else in_channels
        self.F_out = out_channels // towers

        if edge_dim is not None:
            self.edge_encoder = make_linear(edge_dim, self.F_in, bias=True)
        pre_width = (2 if edge_dim is None else 3) * self.F_in
        post_width = (len(aggregators) * len(scalers) + 1) * self.F_in

        def network(width_in: int, width: int, layers: int) -> nn.Sequential:
            modules: list[Any] = [make_linear(width_in, width, bias=True)]
            for _ in range(layers - 1):
                modules += [_activation(act, act_kwargs), make_linear(width, width, bias=True)]
            return nn.Sequential(*modules)

        self.pre_nns = nn.ModuleList(
            network(pre_width, self.F_in, pre_layers) for _ in range(towers)
        )
        self.post_nns = nn.ModuleList(
            network(post_width, self.F_out, post_layers) for _ in range(towers)
        )
        self.lin = make_linear(out_channels, out_channels, bias=True)

    def forward(
        self,
        x: Tensor,  # [N, in_channels]
        edge_index: Graph | Tensor,
        edge_attr: Tensor | None = None,  # [E, edge_dim]
    ) -> Tensor:  # [N, out_channels]
        """Return the convolved features.

        Args:
            x: Node features.
            edge_index: A `Graph`, an integer tensor [2, E], or a torch sparse matrix [N, N], whose
                values of more than one dimension are edge features.
            edge_attr: Edge features, in the caller's edge order.
        """
        graph = as_graph(edge_index, x.shape[0], x.shape[0])
        if edge_attr is None:
            values = sparse_values(edge_index)
            edge_attr = values if values is not None and values.dim() > 1 else None
        self._check(graph, edge_attr)
        if self.divide_input:
            x = x.unflatten(1, (self.towers, self.F_in))  # [N, T, F_in]
        statistics = aggregate(self.aggr_module.aggr, self._messages(graph, x, edge_attr))
        out = self._post(x, statistics, self.aggr_module.scales(graph.in_degree, x.dtype))
        return self.lin(out)  # type: ignore[no-any-return]

    def _messages(self, graph: Graph, x: Tensor, edge_attr: Tensor | None) -> Messages:
        """Return the messages of all towers, [E, T, F_in]."""
        weight, bias = _first(self.pre_nns)  # [T, F_in, 2 or 3 F_in], [T, F_in]
        of_own, of_other, *of_edge = weight.split(self.F_in, dim=2)
        own = _map_towers(x, of_own) + bias  # [N, T, F_in]
        edge = None
        if edge_attr is not None:
            # Both maps at once, [edge_dim] -> [T, F_in].
            encoder = self.edge_encoder
            shift = None if encoder.bias is None else of_edge[0] @ encoder.bias
            edge = _map_towers(edge_attr, of_edge[0] @ encoder.weight, shift)
        messages = Messages(graph, _map_towers(x, of_other), edge, "add", own)
        if len(self.pre_nns[0]) == 1:  # type: ignore[arg-type]
            return messages
        return Messages(graph, None, _follow(self.pre_nns, messages.made()))

    def _post(
        self,
        x: Tensor,  # [N, F_in] or [N, T, F_in]
        statistics: Tensor,  # [N, T, R * F_in]
        scales: Tensor,  # [N, S]
    ) -> Tensor:  # [N, T * F_out]
        weight, bias = _first(self.post_nns)  # [T, F_out, (R * S + 1) * F_in], [T, F_out]
        of_own, of_scaled = weight.split([self.F_in, weight.shape[2] - self.F_in], dim=2)
        # The maps of every scaler's copy: [T, S * F_out, R * F_in].
        maps = of_scaled.unflatten(2, (scales.shape[1], -1)).transpose(1, 2).flatten(1, 2)
        mapped = _map_towers(statistics, maps).unflatten(2, (scales.shape[1], self.F_out))
        scaled = (mapped * scales[:, None, :, None]).sum(2)  # [N, T, F_out]
        return _follow(self.post_nns, _map_towers(x, of_own, bias) + scaled).flatten(1)

    def _check(self, graph: Graph, edge_attr: Tensor | None) -> None:
        got = None if edge_attr is None else tuple(edge_attr.shape)
        if got is None and self.edge_dim is None:
            return
        if self.edge_dim is None:
            raise ValueError("PNAConv: edge_attr needs a layer made with edge_dim")
        if got != (graph.num_edges, self.edge_dim):
            raise ValueError(
                f"PNAConv: edge_attr must have shape [num_edges={graph.num_edges}, "
                f"edge_dim={self.edge_dim}], got {got if got is None else list(got)}"
            )

    @staticmethod
    def get_degree_histogram(loader: Iterable[Any]) -> Tensor:  # int64 [D + 1]
        """Return the argument `deg` for training graphs.

        Args:
            loader: `Graph`s, or what has an `edge_index` and `num_nodes`.
        """
        histogram = torch.zeros(1, dtype=torch.int64)
        for data in loader:
            if isinstance(data, Graph):
                degree = data.in_degree
            else:
                degree = torch.bincount(data.edge_index[1], minlength=data.num_nodes)
            more = torch.bincount(degree, minlength=len(histogram)).to(histogram.device)
            histogram = more.index_add(0, torch.arange(len(histogram)), histogram)
        return histogram

    def __repr__(self) -> str:
        """Return e.g. `PNAConv(16, 32, towers=1, edge_dim=None)`."""
        return (
            f"PNAConv({self.in_channels}, {self.out_channels}, towers={self.towers}, "
            f"edge_dim={self.edge_dim})"
        )


def _layers(networks: nn.ModuleList) -> list[list[Any]]:
    return [list(network) for network in networks]  # type: ignore[call-overload]


def _first(networks: nn.ModuleList) -> tuple[Tensor, Tensor]:
    """Return weights [T, F_out, F_in] and biases [T, F_out] of the networks' first maps."""
    maps = [layers[0] for layers in _layers(networks)]
    return torch.stack([m.weight for m in maps]), torch.stack([m.bias for m in maps])


def _map_towers(
    x: Tensor,  # [M, F], the same for all towers, or [M, T, F]
    weight: Tensor,  # [T, G, F]
    bias: Tensor | None = None,  # [T, G]
) -> Tensor:  # [M, T, G]
    if x.dim() == 2 or weight.shape[0] == 1:
        flat_bias = None if bias is None else bias.flatten()
        out: Tensor = F.linear(x.flatten(1), weight.flatten(0, 1), flat_bias)
        return out.view(-1, *weight.shape[:2])
    out = torch.einsum("mtf,tgf->mtg", x, weight)
    return out if bias is None else out + bias


def _follow(networks: nn.ModuleList, x: Tensor) -> Tensor:  # [M, T, F] -> [M, T, F]
    """Return what the layers behind the first make of every tower's rows."""
    layers = _layers(networks)
    if len(layers[0]) == 1:
        return x
    parts = zip(layers, x.unbind(1), strict=True)
    return torch.stack([run_all(follow, part) for (_, *follow), part in parts], 1)


def _activation(act: str | Callable[[Tensor], Tensor] | None, kwargs: dict[str, Any] | None) -> Any:
    """Return the activation that a name stands for, as "leaky_relu" for `LeakyReLU`."""
    if callable(act):
        return act
    known = {
        name.lower(): kind
        for name, kind in vars(nn.modules.activation).items()
        if isinstance(kind, type) and issubclass(kind, nn.Module) and kind is not nn.Module
    }
    key = act.lower().replace("_", "").replace("-", "") if isinstance(act, str) else ""
    if key not in known:
        raise ValueError(f"PNAConv: act must be an activation of torch.nn or a module, got {act!r}")
    return known[key](**(kwargs or {}))


def _check_sizes(
    in_channels: int,
    out_channels: int,
    towers: int,
    pre_layers: int,
    post_layers: int,
    divide_input: bool,
) -> None:
    least = {
        "in_channels": in_channels,
        "towers": towers,
        "pre_layers": pre_layers,
        "post_layers": post_layers,
    }
    for name, value in least.items():
        if value < 1:
            raise ValueError(f"PNAConv: {name} must be >= 1, got {value}")
    widths = [("out_channels", out_channels)]
    if divide_input:
        widths.append(("in_channels", in_channels))
    for name, width in widths:
        if width % towers:
            raise ValueError(f"PNAConv: {name} must be a multiple of towers={towers}, got {width}")
