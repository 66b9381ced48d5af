"""`propagate`: many steps of message passing inside a part for each exchange across parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gnnkern.distributed.cover import SPMM, Cover
from gnnkern.distributed.graph import PartitionedGraph
from gnnkern.distributed.window import Known, Period, WindowedExchange
from gnnkern.distributed.wire import Wire
from gnnkern.graph import Graph
from gnnkern.ops.spmm import spmm

__all__ = ["Deviation", "multirate", "propagate"]

# A step from the rows and the graph to walk: called once per step.
Step = Callable[[Tensor, Graph], Tensor]


@dataclass(frozen=True)
class Deviation:
    """How far a multirate run is from the exact one, known without communicating.

    Attributes:
        steps: By step, the largest distance of a row from what its receivers believed of it, with
            what a wire type rounded.
        cut_mass: The largest sum of absolute weights of the cut edges into one node, times `mix`;
            under a cover every sum that a node is sent counts as an edge of weight 1.
        growth: By how much a step can grow an error: the largest, over the nodes, of
            `|keep| + |mix| * sum |weight|`; 1 for diffusion with row-stochastic weights.
        bound: At least the largest error of an element of the result, but for rounding.
    """

    steps: list[float]
    cut_mass: float
    growth: float
    bound: float


def multirate(
    graph: Graph,
    period: Period = 1,
    predictor: str = "hold",
    *,
    wire: Wire | str | None = None,
    measure: bool = False,
) -> Graph:
    """The same graph, whose ops exchange ghosts' rows every `period` calls and predict between.

    For one call site, where one op runs step after step: make one for each, and anew for each
    forward. The view's `exchange` is a `WindowedExchange`. A plain `Graph` has nothing to exchange
    and is returned as it is.

    Args:
        graph: A `PartitionedGraph` or a `Graph`.
        period: Steps between exchanges, for all links or by kind.
        predictor: "hold" or "linear".
        wire: What rows are rounded to between ranks, with a memory of what was left out.
        measure: Whether to keep the drift.
    """
    if not isinstance(graph, PartitionedGraph):
        return graph
    exchange = graph.exact.with_wire(wire)
    return graph.with_exchange(WindowedExchange(exchange, period, predictor, measure=measure))


def propagate(
    graph: Graph,
    x: Tensor,  # [n, F]
    steps: int,
    *,
    weight: Tensor | None = None,  # [E_local]
    keep: float = 0.0,
    mix: float = 1.0,
    teleport: float = 0.0,
    period: Period = 1,
    predictor: str = "hold",
    wire: Wire | str | None = None,
    recompute: bool = False,
    measure: bool = False,
) -> tuple[Tensor, Deviation | None]:
    """Repeat `x <- keep * x + mix * S x + teleport * x0`, S being the weighted sum over in-edges.

    Euler's diffusion of step h is keep = 1 - h, mix = h with row-stochastic weights; personalised
    propagation (APPNP) is mix = 1 - a, teleport = a; powers of S are the defaults.

    Over a `PartitionedGraph`, S = S_in + S_cut. Rows of other ranks are exchanged every `period`
    steps, the first time at the first step, and predicted between. With period 1 and no wire type,
    the defaults, the result is bit for bit that of one process, and so it is on a `Graph`,
    whatever the period.

    Args:
        graph: A `PartitionedGraph` (every rank calls) or a `Graph`.
        x: [n, F] rows of the owned nodes.
        steps: T, how often.
        weight: [E_local] weights of the edges; None: all 1.
        keep: Share of the row itself.
        mix: Share of the sum.
        teleport: Share of the first rows.
        period: Steps between exchanges, or by kind of link, {"host": 2, "network": 8}.
        predictor: "hold": rows as last received, first order in the period; "linear": the line
            through the last two, second order.
        wire: What rows are rounded to between ranks; what was left out of a row is added when it is
            sent the next time.
        recompute: Keep for the backward only the rows at exchanges, and recompute the steps
            between them, without communication.
        measure: Whether to measure the drift and return it with its bound. Costs a gather of the
            rows to send per step, and one reduction of T + 2 numbers at the end.

    Returns:
        The rows after T steps, and the drift where it was measured.

    Gradients: of x and weight; exact for the scheme that ran, with one reverse exchange for each
    forward one, as if a wire type did not round.

    Bound: with e the error and d_n the drift of step n, |e'| <= growth |e| + cut_mass |d_n| in the
    largest norm, where cut_mass includes mix; the bound is its sum over the steps. What a wire type
    rounds is part of the drift.

    Raises:
        ValueError: a count or option is out of range, or a shape is wrong.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(f"propagate: steps must be an int >= 0, got {steps!r}")
    first = x

    def step(x: Tensor, graph: Graph) -> Tensor:
        total = spmm(graph, x, weight)
        out = total if mix == 1.0 else mix * total
        if keep != 0.0:
            out = out + keep * x
        return out if teleport == 0.0 else out + teleport * first

    view = multirate(graph, period, predictor, wire=wire, measure=measure)
    if not isinstance(view, PartitionedGraph):
        for _ in range(steps):
            x = step(x, view)
        return x, Deviation([0.0] * steps, 0.0, 1.0, 0.0) if measure else None
    exchange = view.exchange
    assert isinstance(exchange, WindowedExchange)
    done = 0
    while done < steps:
        x = step(x, view)
        done += 1
        free = min(exchange.steps_until_due(), steps - done)
        if recompute and free > 0 and not measure and torch.is_grad_enabled():
            x = _window(view, exchange, step, x, free)
            done += free
    if not measure:
        return x, None
    cover = view.cover_of(SPMM, {"x": first, "weight": weight})
    return x, _drift(view, exchange, weight, keep, mix, cover)


def _window(
    view: PartitionedGraph, exchange: WindowedExchange, step: Step, x: Tensor, count: int
) -> Tensor:
    """Steps without an exchange, of which the backward keeps the first rows alone."""
    known, begin = exchange.known(), exchange.time
    # Tensors are handed over one by one, as checkpoint wants them.
    rows = [row for part in known for row in (*part.rows, *(part.rows_before or []))]

    def run(x: Tensor, *given: Tensor) -> Tensor:
        left = iter(given)
        held = [
            Known(
                part.time,
                [next(left) for _ in part.rows],
                part.time_before,
                None if part.rows_before is None else [next(left) for _ in part.rows_before],
            )
            for part in known
        ]
        for number in range(count):
            ghosts = exchange.from_known(held, begin + number)
            x = step(x, view.with_exchange(ghosts))
        return x

    out: Tensor = checkpoint(run, x, *rows, use_reentrant=False)
    exchange.at(begin + count)
    return out


def _drift(
    graph: PartitionedGraph,
    exchange: WindowedExchange,
    weight: Tensor | None,
    keep: float,
    mix: float,
    cover: Cover | None,
) -> Deviation:
    size = torch.ones(graph.num_edges) if weight is None else weight.detach().abs()
    size = size.double().to(graph.device)
    src, dst = graph.edge_index
    mass = size.new_zeros(graph.num_dst).index_add(0, dst, size)
    if cover is None:
        cut = size.new_zeros(graph.num_dst).index_add(0, dst, size * (src >= graph.num_dst))
    else:
        cut = cover.mass(size)
    # Reductions over no rows have no largest: with a zero they do.
    zero = size.new_zeros(1)
    growth = abs(keep) + abs(mix) * torch.cat([mass, zero]).max()
    cut_mass = abs(mix) * torch.cat([cut, zero]).max()
    steps = size.new_tensor(exchange.drift)
    numbers = torch.cat([steps, growth.reshape(1), cut_mass.reshape(1)])
    if not graph.exact.is_alone:
        dist.all_reduce(numbers, dist.ReduceOp.MAX, group=graph.exact.group)
    *by_step, growth_all, cut_all = numbers.tolist()
    bound = 0.0
    for drift in by_step:
        bound = growth_all * bound + cut_all * drift
    return Deviation(by_step, cut_all, growth_all, bound)
