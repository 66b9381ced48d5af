"""What is measured: inputs of one op on one graph, and the reference's answer to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from gnnkern import Graph
from gnnkern.bench.graphs import BenchGraph
from gnnkern.bench.values import normal, permuted, rows_of
from gnnkern.reference.edge_softmax import edge_softmax_reference
from gnnkern.reference.gat_attention import gat_attention_reference
from gnnkern.reference.scatter_reduce import scatter_reduce_reference
from gnnkern.reference.sddmm import sddmm_reference
from gnnkern.reference.segment_gather import segment_gather_reference
from gnnkern.reference.segment_reduce import segment_reduce_reference
from gnnkern.reference.segment_softmax import segment_softmax_reference
from gnnkern.reference.spmm import spmm_reference

FORWARD = "forward"
BACKWARD = "forward + backward"
BACKWARD_WEIGHT = "forward + backward of x and weight"

HEADS = 4
NEGATIVE_SLOPE = 0.2

# Up to this many elements per edge tensor, all of the result is compared; beyond, every edge of
# some columns, so that float64 messages stay below a gigabyte.
_COMPARE_ALL = 1 << 22
_COLUMNS = 4


class Exact(NamedTuple):
    """The reference's answer for the compared part of the output."""

    upstream: Tensor  # like out; zero outside of the part
    values: dict[str, Tensor]  # "out", and the gradient of each input by its name


@dataclass(frozen=True, eq=False)
class Problem:
    """One op, its inputs in the caller's edge order, and which gradients are asked for."""

    kind: str
    op: str  # the public op, or what `ours.PUBLIC` traces back to one
    reduce: str
    graph: BenchGraph
    width: int
    heads: int
    inputs: dict[str, Tensor]
    directions: dict[str, tuple[str, ...]]  # by name, the inputs to differentiate by
    edge_names: frozenset[str]  # the inputs, and "out", that have one row per edge
    out_shape: tuple[int, ...]
    # What is compared of each input and of "out", as a view; and the reference on those parts.
    part: Callable[[str, Tensor], Tensor]
    reference: Callable[[Mapping[str, Tensor]], Tensor]
    index: Tensor | None = None  # [E] of a scatter, or the type of each row
    # Of the compared result, in float64: 1 where a gradient is compared, 0 where float32 loses it.
    well_posed: Callable[[Tensor], Tensor] | None = None
    dtype: torch.dtype = torch.float32  # of every floating input

    @property
    def device(self) -> torch.device:
        return self.graph.device

    @property
    def weighted(self) -> bool:
        return "weight" in self.inputs

    @property
    def has_ties(self) -> bool:
        """Whether several edges may win a maximum: who takes its gradient is then a convention."""
        return self.dtype.itemsize < 4 and ("max" in self.reduce or "min" in self.reduce)

    @cached_property
    def upstream(self) -> Tensor:
        """The gradient of the output, the same for all."""
        return normal(self.graph, *self.out_shape, seed=99).to(self.dtype)

    @cached_property
    def exact(self) -> Exact:
        """Computed at first use, kept for every implementation and direction."""
        return self._answer(torch.float64)

    @cached_property
    def plain(self) -> Exact:
        """The same in the dtype of the inputs: what rounding does to plain torch."""
        return self._answer(self.dtype)

    def _answer(self, dtype: torch.dtype) -> Exact:
        wanted = {name for names in self.directions.values() for name in names}
        parts = {
            name: self.part(name, value).detach().to(dtype).requires_grad_(name in wanted)
            for name, value in self.inputs.items()
        }
        upstream = torch.zeros_like(self.upstream)
        compared = self.part("out", upstream)
        compared.copy_(self.part("out", self.upstream))
        out = self.reference(parts)
        if self.well_posed is not None:
            compared.mul_(self.well_posed(out.detach()))
        names = sorted(wanted)
        gradients = torch.autograd.grad(out, [parts[name] for name in names], compared.to(dtype))
        values = dict(zip(names, gradients, strict=True))
        return Exact(upstream, {"out": out.detach(), **values})


def make_problem(
    kind: str, graph: BenchGraph, width: int, dtype: torch.dtype = torch.float32
) -> Problem:
    """Build the inputs of a kind of problem; `width` is the number of heads for edge_softmax."""
    if kind not in KINDS:
        raise ValueError(f"op must be one of {', '.join(KINDS)}, got {kind!r}")
    problem = KINDS[kind](kind, graph, width)
    if width % problem.heads:
        raise ValueError(f"{kind}: width must be a multiple of its {problem.heads} heads")
    if dtype == torch.float32:
        return problem
    inputs = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in problem.inputs.items()
    }
    return replace(problem, inputs=inputs, dtype=dtype)


def compared_step(rows: int, width: int) -> int:
    """The stride of compared columns: from the first to (nearly) the last."""
    return 1 if rows * width <= _COMPARE_ALL else max((width - 1) // (_COLUMNS - 1), 1)


def _columns(names: tuple[str, ...], step: int) -> Callable[[str, Tensor], Tensor]:
    return lambda name, value: value[:, ::step] if name in names else value


# -- kinds -----------------------------------------------------------------------------------------


def _spmm(kind: str, graph: BenchGraph, width: int) -> Problem:
    reduce = "sum" if kind == "spmm_weighted" else kind.removeprefix("spmm_")
    shape = (graph.num_nodes, width)
    inputs = {"x": rows_of(graph, *shape, reduce)}
    directions: dict[str, tuple[str, ...]] = {FORWARD: (), BACKWARD: ("x",)}
    if kind == "spmm_weighted":
        inputs["weight"] = normal(graph, graph.num_edges, seed=2)
        directions[BACKWARD_WEIGHT] = ("x", "weight")
    return Problem(
        kind,
        "spmm",
        reduce,
        graph,
        width,
        1,
        inputs,
        directions,
        frozenset({"weight"}),
        shape,
        _columns(("x", "out"), compared_step(graph.num_edges, width)),
        lambda t: spmm_reference(graph.graph, t["x"], t.get("weight"), reduce),
    )


def _sddmm(kind: str, graph: BenchGraph, width: int) -> Problem:
    step = max(math.ceil(graph.num_edges * width / _COMPARE_ALL), 1)
    sizes = (graph.num_nodes, graph.num_nodes)
    compared = Graph.from_edge_index(graph.edge_index[:, ::step], sizes)
    shape = (graph.num_nodes, width)
    return Problem(
        kind,
        "sddmm",
        "dot",
        graph,
        width,
        1,
        {
            "x_dst": normal(graph, *shape, seed=1),
            "x_src": normal(graph, *shape, seed=2),
        },
        {FORWARD: (), BACKWARD: ("x_dst", "x_src")},
        frozenset({"out"}),
        (graph.num_edges,),
        lambda name, value: value[::step] if name == "out" else value,
        lambda t: sddmm_reference(compared, t["x_dst"], t["x_src"], "dot"),
    )


def _edge_softmax(kind: str, graph: BenchGraph, heads: int) -> Problem:
    shape = (graph.num_edges, heads)
    return Problem(
        kind,
        "edge_softmax",
        "",
        graph,
        heads,
        heads,
        {"score": normal(graph, *shape, seed=1)},
        {FORWARD: (), BACKWARD: ("score",)},
        frozenset({"score", "out"}),
        shape,
        lambda name, value: value,
        lambda t: edge_softmax_reference(graph.graph, t["score"]),
    )


def _gat_attention(kind: str, graph: BenchGraph, width: int) -> Problem:
    shape = (graph.num_nodes, HEADS, width // HEADS)
    heads, step = attention_part(graph, width)

    def part(name: str, value: Tensor) -> Tensor:
        return value[:, heads, ::step] if name in ("x", "out") else value[:, heads]

    return Problem(
        kind,
        "gat_attention",
        "",
        graph,
        width,
        HEADS,
        {
            "x": normal(graph, *shape, seed=1),
            "score_src": normal(graph, *shape[:2], seed=2),
            "score_dst": normal(graph, *shape[:2], seed=3),
        },
        {FORWARD: (), BACKWARD: ("x", "score_src", "score_dst")},
        frozenset(),
        shape,
        part,
        lambda t: gat_attention_reference(
            graph.graph, t["x"], t["score_src"], t["score_dst"], None, NEGATIVE_SLOPE, 0.0, None
        ),
    )


def _gat_layer(kind: str, graph: BenchGraph, width: int) -> Problem:
    depth = width // HEADS
    heads, step = attention_part(graph, width)
    looped = graph.with_loops

    def part(name: str, value: Tensor) -> Tensor:
        if name == "x":
            return value
        if name == "lin.weight":
            return value.view(HEADS, depth, -1)[heads]  # [H, D, F]
        if name in ("att_src", "att_dst"):
            return value[:, heads]  # [1, H, D]
        # bias, out: [..., H, D]
        return value.view(*value.shape[:-1], HEADS, depth)[..., heads, ::step]

    def reference(t: Mapping[str, Tensor]) -> Tensor:
        h = torch.einsum("nf,hdf->nhd", t["x"], t["lin.weight"])  # [N, H, D]
        score_src = (h * t["att_src"]).sum(-1)  # [N, H]
        score_dst = (h * t["att_dst"]).sum(-1)  # [N, H]
        h = h[..., ::step]
        scores = (score_src, score_dst)
        g = looped.graph
        return gat_attention_reference(g, h, *scores, None, NEGATIVE_SLOPE, 0.0, None) + t["bias"]

    inputs = {
        "x": normal(graph, graph.num_nodes, width, seed=1),
        "lin.weight": normal(graph, width, width, seed=2) / math.sqrt(width),
        "att_src": normal(graph, 1, HEADS, depth, seed=3) / math.sqrt(depth),
        "att_dst": normal(graph, 1, HEADS, depth, seed=4) / math.sqrt(depth),
        "bias": normal(graph, width, seed=5),
    }
    return Problem(
        kind,
        "gat_layer",
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


def attention_part(graph: BenchGraph, width: int) -> tuple[slice, int]:
    """The compared heads, all or the last, and the stride of compared columns in each."""
    if graph.num_edges * width <= _COMPARE_ALL:
        return slice(None), 1
    return slice(HEADS - 1, HEADS), compared_step(graph.num_edges, width // HEADS)


def _segment(kind: str, graph: BenchGraph, width: int) -> Problem:
    op = kind if kind in ("segment_gather", "segment_softmax") else "segment_reduce"
    reduce = kind.removeprefix("segment_") if op == "segment_reduce" else ""
    per_edge, per_node = (graph.num_edges, width), (graph.num_nodes, width)
    shape, out_shape = {
        "segment_reduce": (per_edge, per_node),
        "segment_gather": (per_node, per_edge),
        "segment_softmax": (per_edge, per_edge),
    }[op]

    def reference(t: Mapping[str, Tensor]) -> Tensor:
        if op == "segment_gather":
            return segment_gather_reference(t["x"], graph.indptr)
        if op == "segment_softmax":
            return segment_softmax_reference(t["x"], graph.indptr)
        return segment_reduce_reference(t["x"], graph.indptr, reduce)

    return Problem(
        kind,
        op,
        reduce,
        graph,
        width,
        1,
        {"x": rows_of(graph, *shape, reduce)},
        {FORWARD: (), BACKWARD: ("x",)},
        # Rows are in segments for everybody: no order to translate.
        frozenset(),
        out_shape,
        _columns(("x", "out"), compared_step(graph.num_edges, width)),
        reference,
    )


def _scatter(kind: str, graph: BenchGraph, width: int) -> Problem:
    reduce = kind.removeprefix("scatter_")
    shape = (graph.num_edges, width)
    index = permuted(graph.dst, seed=3)
    return Problem(
        kind,
        "scatter_reduce",
        reduce,
        graph,
        width,
        1,
        {"x": rows_of(graph, *shape, reduce)},
        {FORWARD: (), BACKWARD: ("x",)},
        frozenset(),
        (graph.num_nodes, width),
        _columns(("x", "out"), compared_step(graph.num_edges, width)),
        lambda t: scatter_reduce_reference(t["x"], index, graph.num_nodes, reduce),
        index,
    )


def _multi_reduce(kind: str, graph: BenchGraph, width: int) -> Problem:
    # Imported where it is called, since it builds on this module.
    from gnnkern.bench.problems_multi import multi_reduce

    return multi_reduce(kind, graph, width)


def _dot_attention(kind: str, graph: BenchGraph, width: int) -> Problem:
    # Imported where it is called, since it builds on this module.
    from gnnkern.bench import problems_dot

    build = getattr(problems_dot, kind)
    problem: Problem = build(kind, graph, width)
    return problem


def _messages(kind: str, graph: BenchGraph, width: int) -> Problem:
    from gnnkern.bench.problems_messages import messages

    return messages(kind, graph, width)


def _on_edges(kind: str, graph: BenchGraph, width: int) -> Problem:
    from gnnkern.bench.problems_messages import on_edges

    return on_edges(kind, graph, width)


def _typed_matmul(kind: str, graph: BenchGraph, width: int) -> Problem:
    # Imported where it is called, since it builds on this module.
    from gnnkern.bench.problems_typed import typed_matmul

    return typed_matmul(kind, graph, width)


def _group_statistics(kind: str, graph: BenchGraph, width: int) -> Problem:
    from gnnkern.bench.problems_groups import group_statistics

    return group_statistics(kind, graph, width)


def _gatv2_attention(kind: str, graph: BenchGraph, width: int) -> Problem:
    # Imported where it is called, since it builds on this module.
    from gnnkern.bench import problems_gatv2

    make = {
        "gatv2_attention": problems_gatv2.gatv2_attention,
        "gatv2_layer": problems_gatv2.gatv2_layer,
    }
    return make[kind](kind, graph, width)


KINDS: dict[str, Callable[[str, BenchGraph, int], Problem]] = {
    "spmm_sum": _spmm,
    "spmm_mean": _spmm,
    "spmm_weighted": _spmm,
    "spmm_max": _spmm,
    "sddmm_dot": _sddmm,
    "edge_softmax": _edge_softmax,
    "gat_attention": _gat_attention,
    "gat_layer": _gat_layer,
    "gatv2_attention": _gatv2_attention,
    "gatv2_layer": _gatv2_attention,
    "dot_attention": _dot_attention,
    "transformer_layer": _dot_attention,
    "segment_sum": _segment,
    "segment_max": _segment,
    "segment_gather": _segment,
    "segment_softmax": _segment,
    "scatter_sum": _scatter,
    "scatter_max": _scatter,
    "multi_reduce_pna": _multi_reduce,
    "spmm_edges": _messages,
    "spmm_edge_rows": _messages,
    "spmm_add_max": _messages,
    "sddmm_add": _on_edges,
    "sddmm_heads": _on_edges,
    "segment_matmul_8": _typed_matmul,
    "segment_matmul_2000": _typed_matmul,
    "gather_matmul_8": _typed_matmul,
    "gather_matmul_2000": _typed_matmul,
    "segment_logsumexp": _group_statistics,
    "scatter_logsumexp": _group_statistics,
    "scatter_std": _group_statistics,
}
