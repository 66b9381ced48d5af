"""One implementation bound to a problem, and the forms of inputs that several of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gnnkern.bench.graphs import BenchGraph
from gnnkern.bench.problems import NEGATIVE_SLOPE, Problem

# (h [N, H, D], score_src [N, H], score_dst [N, H]) -> [N, H, D], or of GATv2
# (x_src [N, H, D], x_dst [N, H, D], att [H, D]) -> [N, H, D]
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
# (query [N, H, D], key [N, H, D], value [N, H, D]) -> [N, H, D]
DotAttention = Callable[[Tensor, Tensor, Tensor], Tensor]

_RECOMPILE_LIMIT = 1000


@dataclass(frozen=True, eq=False)
class Runner:
    """One implementation, bound to a problem: `call(*inputs)` is what is timed."""

    call: Callable[..., Tensor]
    inputs: dict[str, Tensor]
    # Leaves that `call` reads from a module, by the names of the problem's inputs.
    parameters: dict[str, Tensor] = field(default_factory=dict)
    # Edge tensors are sorted by destination, not in the caller's order.
    by_row: bool = False
    # The backend of gnnkern that has to run; None: a peer, which must not run gnnkern at all.
    backend: str | None = None
    # How many graphs torch.compile had made before this was compiled; None: it runs as it comes.
    graphs_before: int | None = None


def compiled(runner: Runner) -> Runner:
    """The same through torch.compile, for its very shapes.

    Calls of one adapter share their code: without the limit raised, the ninth problem would quietly
    run as it comes.
    """
    # Imported where it is needed, which takes a second.
    from torch._dynamo import config

    for name in ("recompile_limit", "accumulated_recompile_limit"):
        if hasattr(config, name):
            setattr(config, name, _RECOMPILE_LIMIT)
    call = torch.compile(runner.call, dynamic=False)
    return replace(runner, call=call, graphs_before=graphs_compiled())


def graphs_compiled() -> int:
    """How many graphs torch.compile has made in this process."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def sorted_inputs(problem: Problem) -> dict[str, Tensor]:
    return {
        name: problem.graph.by_row(value) if name in problem.edge_names else value
        for name, value in problem.inputs.items()
    }


def messages(x: Tensor, src: Tensor, weight: Tensor | None) -> Tensor:  # [E, F]
    message = x.index_select(0, src)
    return message if weight is None else message * weight[:, None]


def index_of(problem: Problem) -> Tensor:
    assert problem.index is not None
    return problem.index


def leaky_scores(score_src: Tensor, score_dst: Tensor, src: Tensor, dst: Tensor) -> Tensor:
    """The attention score [E, H] of each edge, from gathers."""
    score = score_src.index_select(0, src) + score_dst.index_select(0, dst)
    return F.leaky_relu(score, NEGATIVE_SLOPE)


def attention_runner(problem: Problem, attention: Callable[[BenchGraph], Attention]) -> Runner:
    return Runner(attention(problem.graph), problem.inputs)


def layer_runner(problem: Problem, attention: Callable[[BenchGraph], Attention]) -> Runner:
    """A GAT layer written by hand, over edges that have their self loops already."""
    attend = attention(problem.graph.with_loops)

    def call(x: Tensor, weight: Tensor, att_src: Tensor, att_dst: Tensor, bias: Tensor) -> Tensor:
        h = F.linear(x, weight).view(len(x), problem.heads, -1)  # [N, H, D]
        return attend(h, (h * att_src).sum(-1), (h * att_dst).sum(-1)).flatten(1) + bias

    return Runner(call, problem.inputs)


def gatv2_scores(
    x: Tensor,  # [E, H, D] the sources of edges
    x_dst: Tensor,  # [N, H, D]
    att: Tensor,  # [H, D]
    dst: Tensor,  # [E]
) -> Tensor:  # [E, H]
    """The score of each edge, from gathers."""
    both = x + x_dst.index_select(0, dst)
    return (F.leaky_relu(both, NEGATIVE_SLOPE) * att).sum(-1)


def gatv2_layer_runner(problem: Problem, attention: Callable[[BenchGraph], Attention]) -> Runner:
    """A GATv2 layer written by hand, over edges that have their self loops already."""
    attend = attention(problem.graph.with_loops)

    def call(
        x: Tensor,
        weight_l: Tensor,
        bias_l: Tensor,
        weight_r: Tensor,
        bias_r: Tensor,
        att: Tensor,
        bias: Tensor,
    ) -> Tensor:
        x_src = F.linear(x, weight_l, bias_l).view(len(x), problem.heads, -1)  # [N, H, D]
        x_dst = F.linear(x, weight_r, bias_r).view(len(x), problem.heads, -1)  # [N, H, D]
        return attend(x_src, x_dst, att[0]).flatten(1) + bias

    return Runner(call, problem.inputs)


def dot_scores(query: Tensor, key: Tensor, src: Tensor, dst: Tensor) -> Tensor:
    """The scaled dot products [E, H] of each edge, from gathers."""
    products = query.index_select(0, dst) * key.index_select(0, src)
    score: Tensor = products.sum(-1) * query.shape[2] ** -0.5
    return score


def transformer_runner(problem: Problem, attention: Callable[[BenchGraph], DotAttention]) -> Runner:
    """A graph transformer layer written by hand."""
    attend = attention(problem.graph)

    def call(x: Tensor, *maps: Tensor) -> Tensor:
        query, key, value, skip = (
            F.linear(x, weight, bias).view(len(x), problem.heads, -1)
            for weight, bias in zip(maps[::2], maps[1::2], strict=True)
        )  # [N, H, D]
        out: Tensor = (attend(query, key, value) + skip).flatten(1)
        return out

    return Runner(call, problem.inputs)


def module_runner(problem: Problem, layer: torch.nn.Module, edges: Any, **options: Any) -> Runner:
    """A layer of either library, with the parameters of the problem."""
    layer.to(problem.device, problem.dtype)
    layer.load_state_dict({name: v for name, v in problem.inputs.items() if name != "x"})
    return Runner(
        lambda x: layer(x, edges),
        {"x": problem.inputs["x"]},
        parameters=dict(layer.named_parameters()),
        **options,
    )


def four_reductions(three: Iterable[Tensor], mean_square: Tensor) -> Tensor:
    """[N, 4, F] of mean, min and max: the deviation is made of means, and guarded, as PyG's is."""
    mean, least, most = three
    deviation = (mean_square - mean * mean).clamp(min=1e-5).sqrt()
    deviation = deviation.masked_fill(deviation <= 1e-5**0.5, 0.0)
    return torch.stack([mean, least, most, deviation], 1)


def softmax_destinations(problem: Problem) -> Tensor:  # [E]
    """What each score belongs to: its edge's destination, or its segment."""
    graph = problem.graph
    return graph.dst if problem.op == "edge_softmax" else graph.sorted_dst
