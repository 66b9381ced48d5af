"""The problems of GATv2: the op on its own, and in its layer."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from gnnkern.bench.graphs import BenchGraph
from gnnkern.bench.problems import BACKWARD, FORWARD, HEADS, NEGATIVE_SLOPE, Problem, attention_part
from gnnkern.bench.values import normal
from gnnkern.reference.gatv2_attention import gatv2_attention_reference

# The linear maps of the layer, by their names in its `state_dict`.
_LINEARS = ("lin_l.weight", "lin_l.bias", "lin_r.weight", "lin_r.bias")


def gatv2_attention(kind: str, graph: BenchGraph, width: int) -> Problem:
    """The op alone. A score sums all columns of its head, so that whole heads are compared."""
    shape = (graph.num_nodes, HEADS, width // HEADS)
    heads, _ = attention_part(graph, width)
    inputs = {
        "x_src": normal(graph, *shape, seed=1),
        "x_dst": normal(graph, *shape, seed=2),
        "att": normal(graph, *shape[1:], seed=3) / math.sqrt(shape[2]),
    }

    def part(name: str, value: Tensor) -> Tensor:
        return value[heads] if name == "att" else value[:, heads]

    return Problem(
        kind,
        "gatv2_attention",
        "",
        graph,
        width,
        HEADS,
        inputs,
        {FORWARD: (), BACKWARD: tuple(inputs)},
        frozenset(),
        shape,
        part,
        lambda t: gatv2_attention_reference(
            graph.graph, t["x_src"], t["x_dst"], t["att"], None, NEGATIVE_SLOPE, 0.0, None
        ),
    )


def gatv2_layer(kind: str, graph: BenchGraph, width: int) -> Problem:
    """The layer, with the linear maps before and self loops."""
    depth = width // HEADS
    heads, _ = attention_part(graph, width)
    looped = graph.with_loops

    def part(name: str, value: Tensor) -> Tensor:
        if name == "x":
            return value
        if name == "att":
            return value[:, heads]  # [1, H, D]
        if name.endswith(".weight"):
            return value.view(HEADS, depth, -1)[heads]  # [H, D, F]
        # biases, out: [..., H, D]
        return value.view(*value.shape[:-1], HEADS, depth)[..., heads, :]

    def reference(t: Mapping[str, Tensor]) -> Tensor:
        x_src, x_dst = (
            torch.einsum("nf,hdf->nhd", t["x"], t[f"{side}.weight"]) + t[f"{side}.bias"]
            for side in ("lin_l", "lin_r")
        )
        options = (None, NEGATIVE_SLOPE, 0.0, None)
        return (
            gatv2_attention_reference(looped.graph, x_src, x_dst, t["att"][0], *options)
            + (t["bias"])
        )

    inputs = {"x": normal(graph, graph.num_nodes, width, seed=1)}
    for seed, name in enumerate(_LINEARS, start=2):
        shape = (width, width) if name.endswith(".weight") else (width,)
        inputs[name] = normal(graph, *shape, seed=seed) / math.sqrt(width)
    inputs["att"] = normal(graph, 1, HEADS, depth, seed=6) / math.sqrt(depth)
    inputs["bias"] = normal(graph, width, seed=7)
    return Problem(
        kind,
        "gatv2_layer",
        "",
        graph,
        width,
        HEADS,
        inputs,
        {FORWARD: (), BACKWARD: tuple(inputs)},
        frozenset(),
        (graph.num_nodes, width),
        part,
        reference,
    )
