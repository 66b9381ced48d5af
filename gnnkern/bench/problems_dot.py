"""Problems of `dot_attention`, and of the layer around it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from gnnkern.bench.graphs import BenchGraph
from gnnkern.bench.problems import BACKWARD, FORWARD, HEADS, Problem, attention_part
from gnnkern.bench.values import normal
from gnnkern.reference.dot_attention import dot_attention_reference

_MAPS = ("query", "key", "value", "skip")


def _attend(graph: BenchGraph, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scale = query.shape[2] ** -0.5
    return dot_attention_reference(graph.graph, query, key, value, None, None, scale, 0.0, None)


def dot_attention(kind: str, graph: BenchGraph, width: int) -> Problem:
    """The op without edge tensors."""
    shape = (graph.num_nodes, HEADS, width // HEADS)
    heads, step = attention_part(graph, width)

    def part(name: str, value: Tensor) -> Tensor:
        # Scores need every column of a head.
        return value[:, heads, ::step] if name in ("value", "out") else value[:, heads]

    inputs = {name: normal(graph, *shape, seed=i) for i, name in enumerate(_MAPS[:3], 1)}
    return Problem(
        kind,
        "dot_attention",
        "",
        graph,
        width,
        HEADS,
        inputs,
        {FORWARD: (), BACKWARD: tuple(inputs)},
        frozenset(),
        shape,
        part,
        lambda t: _attend(graph, t["query"], t["key"], t["value"]),
    )


def transformer_layer(kind: str, graph: BenchGraph, width: int) -> Problem:
    """PyG's `TransformerConv` with default options."""
    depth = width // HEADS
    heads, step = attention_part(graph, width)

    def part(name: str, value: Tensor) -> Tensor:
        if name == "x":
            return value
        if name.endswith("weight"):
            value = value.view(HEADS, depth, -1)[heads]  # [H, D, F]
            return value[:, ::step] if name.startswith(("lin_value", "lin_skip")) else value
        # biases, out: [..., H, D]
        value = value.view(*value.shape[:-1], HEADS, depth)[..., heads, :]
        return value if name.startswith(("lin_query", "lin_key")) else value[..., ::step]

    def reference(t: Mapping[str, Tensor]) -> Tensor:
        query, key, value, skip = (
            torch.einsum("nf,hdf->nhd", t["x"], t[f"lin_{name}.weight"]) + t[f"lin_{name}.bias"]
            for name in _MAPS
        )  # [N, H, D]
        return _attend(graph, query, key, value) + skip

    inputs = {"x": normal(graph, graph.num_nodes, width, seed=1)}
    for i, name in enumerate(_MAPS, 1):
        inputs[f"lin_{name}.weight"] = normal(graph, width, width, seed=2 * i) / math.sqrt(width)
        inputs[f"lin_{name}.bias"] = normal(graph, width, seed=2 * i + 1)
    # A bias of the keys moves every score of a softmax alike: its gradient is 0, and rounding.
    wanted = tuple(name for name in inputs if name != "lin_key.bias")
    return Problem(
        kind,
        "transformer_layer",
        "",
        graph,
        width,
        HEADS,
        inputs,
        {FORWARD: (), BACKWARD: wanted},
        frozenset(),
        (graph.num_nodes, width),
        part,
        reference,
    )
