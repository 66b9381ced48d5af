"""`partition`: a part for every node, so that few edges are cut and parts are even."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gnnkern.distributed.adjacency import subgraph
from gnnkern.distributed.hierarchy import Hierarchy, as_hierarchy
from gnnkern.distributed.methods import METHODS, Report
from gnnkern.distributed.quality import Quality, measure
from gnnkern.graph import Graph

__all__ = ["BALANCES", "Partition", "partition"]

# What parts may be even in; several are joined by "+".
BALANCES = ("nodes", "edges", "training")


@dataclass(frozen=True, eq=False)
class Partition:
    """A part for every node; an edge belongs to the part of its destination.

    Attributes:
        part: int64 [N] on the CPU.
        hierarchy: Which parts share a device and which a host.
        method: How it was made.
        seed: Of the method.
        quality: What it costs on the graph it was made for.
    """

    part: Tensor  # [N]
    hierarchy: Hierarchy
    method: str
    seed: int
    quality: Quality

    @property
    def num_parts(self) -> int:
        """P."""
        return self.hierarchy.size

    @property
    def num_nodes(self) -> int:
        """N."""
        return len(self.part)

    @property
    def fingerprint(self) -> int:
        """A 63-bit digest of the parts and their hierarchy, which ranks compare."""
        digest = hashlib.blake2b(self.part.numpy().tobytes(), digest_size=8)
        digest.update(repr(tuple(self.hierarchy)).encode())
        return int.from_bytes(digest.digest(), "little") >> 1

    def __repr__(self) -> str:
        """Counts, cut and balance in one line."""
        quality = self.quality
        return (
            f"Partition({self.num_nodes:,} nodes in {self.num_parts} parts, {self.method}, "
            f"cut {100 * quality.cut:.1f} %, replication {quality.replication:.2f}, largest part "
            f"{quality.balance('nodes'):.2f} of the mean in nodes, "
            f"{quality.balance('edges'):.2f} in edges)"
        )


def partition(
    graph: Graph,
    parts: int,
    method: str | Tensor | np.ndarray | Sequence[int] = "metis",
    *,
    hierarchy: Sequence[int] | None = None,
    balance: str | Tensor = "nodes",
    train_mask: Tensor | None = None,  # bool [N]
    seed: int = 0,
    report: Report | None = None,
) -> Partition:
    """Divide the nodes of a graph among `parts` ranks.

    With a hierarchy the nodes are divided among the hosts first, then those of each host among its
    devices, so that the dearest links are cut least.

    Args:
        graph: The graph, with as many sources as destinations. Its direction is ignored.
        parts: P, how many parts.
        method: "metis" (small graphs; needs pymetis), "kaminpar" (large ones; needs kaminpar),
            "fennel" (any size, in hardly more memory than the graph), "random", or the parts
            themselves, [N] ints in [0, P).
        hierarchy: (hosts, devices per host), or (hosts, devices per host, ranks per device); by
            default one host with a device for each part.
        balance: What parts shall be even in: "nodes", "edges", "training" (needs train_mask),
            several joined by "+", or a weight per node [N]. "random" deals nodes whatever it says.
        train_mask: bool [N], which nodes have a loss; also for the report.
        seed: Of the method; the same seed gives the same parts.
        report: Called with (steps done, all steps, what comes).

    Returns:
        The parts and what they cost. Parts may be empty where there are fewer nodes than parts.

    Memory beside the graph: Fennel 4 to 12 bytes per node; METIS and KaMinPar about 48 bytes per
    edge for the undirected copy that they read, and what they need themselves.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the graph is bipartite, or an option or a part is out of range; METIS is given
            2^31 non-zeros or more.
        ImportError: the package behind the method is missing.
    """
    if not isinstance(graph, Graph):
        raise TypeError(f"partition: graph must be a gnnkern.Graph, got {type(graph).__name__}")
    if isinstance(parts, bool) or not isinstance(parts, int):
        raise TypeError(f"partition: parts must be an int, got {type(parts).__name__}")
    if parts < 1:
        raise ValueError(f"partition: parts must be >= 1, got {parts}")
    if graph.num_src != graph.num_dst:
        raise ValueError(
            f"partition: needs num_src == num_dst, got {graph.num_src} and {graph.num_dst}"
        )
    ranks = as_hierarchy("partition", parts, hierarchy)
    graph = graph.to("cpu")
    weight = node_weights(graph, balance, train_mask)
    if isinstance(method, str):
        if method not in METHODS:
            raise ValueError(
                f"partition: method must be one of {', '.join(METHODS)} or the parts, "
                f"got {method!r}"
            )
        say = report or (lambda done, steps, what: None)
        part = _divide(graph, list(ranks), method, weight, seed, say)
        name = method
    else:
        part, name = _given(method, graph.num_dst, parts), "given"
    return Partition(part, ranks, name, seed, measure(graph, part, ranks, train_mask))


def node_weights(
    graph: Graph, balance: str | Tensor, train_mask: Tensor | None
) -> Tensor | None:  # float64 [N], mean 1
    """What each node weighs for `balance`; None where all weigh the same."""
    if isinstance(balance, Tensor):
        if balance.shape != (graph.num_dst,):
            raise ValueError(
                f"partition: balance must have shape [N={graph.num_dst}], got {list(balance.shape)}"
            )
        weight = balance.detach().cpu().double()
        if not bool(torch.isfinite(weight).all() and (weight >= 0).all()):
            raise ValueError("partition: balance must be finite and not negative")
        return weight * (len(weight) / weight.sum().clamp(min=1e-300))
    kinds = balance.split("+") if isinstance(balance, str) else []
    if not kinds or any(kind not in BALANCES for kind in kinds):
        raise ValueError(
            f"partition: balance must be a weight per node, or of {', '.join(BALANCES)}, joined "
            f"by '+', got {balance!r}"
        )
    if "training" in kinds and train_mask is None:
        raise ValueError("partition: balance 'training' needs train_mask")
    if train_mask is not None and (
        train_mask.dtype != torch.bool or train_mask.shape != (graph.num_dst,)
    ):
        raise ValueError(
            f"partition: train_mask must be bool [N={graph.num_dst}], got {train_mask.dtype} "
            f"{list(train_mask.shape)}"
        )
    if kinds == ["nodes"]:
        return None
    weight = torch.zeros(graph.num_dst, dtype=torch.float64)
    for kind in kinds:
        if kind == "nodes":
            share = torch.ones_like(weight)
        elif kind == "edges":
            share = graph.in_degree.double()
        else:
            assert train_mask is not None
            share = train_mask.cpu().double()
        weight += share / share.sum().clamp(min=1.0)
    return weight * (len(weight) / weight.sum().clamp(min=1e-300))


def _divide(
    graph: Graph,
    counts: list[int],
    method: str,
    weight: Tensor | None,
    seed: int,
    report: Report,
) -> Tensor:  # int64 [N]
    """Parts by the first of `counts`, each divided again by those behind it."""
    while len(counts) > 1 and counts[0] == 1:
        counts = counts[1:]
    first, rest = counts[0], counts[1:]
    inner = int(np.prod(rest)) if rest else 1
    if first * inner == 1:
        return torch.zeros(graph.num_dst, dtype=torch.int64)
    if first >= graph.num_dst:
        # Fewer nodes than parts: one each.
        return torch.arange(graph.num_dst) * inner
    part = METHODS[method](graph, first, weight, seed, report)
    if inner == 1:
        return part
    out = torch.empty_like(part)
    for number in range(first):
        nodes = (part == number).nonzero().squeeze(1)
        within = None if weight is None else weight[nodes]
        if within is not None:
            within = within * (len(within) / within.sum().clamp(min=1e-300))
        out[nodes] = number * inner + _divide(
            subgraph(graph, nodes), rest, method, within, seed, report
        )
    return out


def _given(method: Tensor | np.ndarray | Sequence[int], num_nodes: int, parts: int) -> Tensor:
    part = torch.as_tensor(method).detach().cpu()
    if part.is_floating_point() or part.is_complex() or part.dtype == torch.bool:
        raise TypeError(f"partition: parts must be integers, got {part.dtype}")
    part = part.long().contiguous().clone()
    if part.shape != (num_nodes,):
        raise ValueError(
            f"partition: parts must have shape [N={num_nodes}], got {list(part.shape)}"
        )
    bad = ((part < 0) | (part >= parts)).nonzero()
    if len(bad):
        node = int(bad[0])
        raise ValueError(
            f"partition: node {node} is in part {int(part[node])}, expected one of [0, {parts})"
        )
    return part
