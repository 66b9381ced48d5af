"""Partitioners: METIS, KaMinPar, our own Fennel, and parts drawn at random."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gnnkern import _native
from gnnkern.distributed.adjacency import is_symmetric, simple_adjacency
from gnnkern.graph import Graph

__all__ = ["METHODS", "Report", "fennel", "kaminpar", "metis", "random"]

# Called with (steps done, all steps, what comes).
Report = Callable[[int, int, str], None]

# METIS counts in 32-bit integers.
_METIS_MOST = 2**31
# Weights of nodes are rounded to this many units per mean weight for partitioners that count.
_UNITS = 64

# By how much a part of KaMinPar may be heavier than the mean: its default, and METIS's.
_SLACK = 0.03

# By how much a part of Fennel may be heavier than the mean, and how often it passes over the nodes.
FENNEL_SLACK = 0.03
FENNEL_PASSES = 8
# Share of the paper's price of load: at the whole of it a grid of 40 thousand nodes in 8 parts is
# cut by 5.2 % instead of 2.4 %, and a power law with communities by 18.8 % at either (METIS: 1.2 %
# and 18.0 %). The limit on load holds all the same.
_PRICE_SHARE = 0.3


def metis(
    graph: Graph,
    parts: int,
    weight: Tensor | None,  # [N], mean 1
    seed: int,
    report: Report,
) -> Tensor:  # int64 [N]
    """METIS's multilevel k-way partition, through pymetis.

    Self loops and multiple edges are taken out before, since METIS crashes on them; how often an
    edge was there is its weight.
    """
    try:
        import pymetis
    except ImportError as error:
        raise ImportError(
            f"partition: method 'metis' needs pymetis: pip install gnnkern[partition] ({error})"
        ) from error
    adjacency = simple_adjacency(graph)
    non_zeros = len(adjacency.indices)
    if non_zeros >= _METIS_MOST:
        raise ValueError(
            f"partition: METIS counts in 32 bits and takes fewer than 2^31 = {_METIS_MOST} "
            f"non-zeros, got {non_zeros}; use method 'kaminpar' or 'fennel'"
        )
    if non_zeros == 0:
        # Nothing to cut, and METIS would put all nodes into one part.
        return random(graph, parts, weight, seed, report)
    report(1, 2, "METIS")
    options = pymetis.Options(seed=seed)
    many = adjacency.multiplicity
    uniform = bool((many == many[0]).all())
    result = pymetis.part_graph(
        parts,
        pymetis.CSRAdjacency(
            adjacency.indptr.numpy().astype(np.int32), adjacency.indices.numpy().astype(np.int32)
        ),
        vweights=None if weight is None else _units(weight).numpy().astype(np.int32),
        eweights=None if uniform else many.numpy().astype(np.int32),
        options=options,
    )
    return torch.as_tensor(np.asarray(result.vertex_part, dtype=np.int64))


def kaminpar(
    graph: Graph, parts: int, weight: Tensor | None, seed: int, report: Report
) -> Tensor:  # int64 [N]
    """KaMinPar's partition, in a seventh of METIS's memory; the graph goes through a file.

    Repeatable with one thread only, so one thread it is.
    """
    try:
        import kaminpar as library
    except ImportError as error:
        raise ImportError(
            f"partition: method 'kaminpar' needs kaminpar: pip install kaminpar ({error})"
        ) from error
    adjacency = simple_adjacency(graph)
    if len(adjacency.indices) == 0:
        return random(graph, parts, weight, seed, report)
    with tempfile.TemporaryDirectory(prefix="gnnkern-partition-") as folder:
        path = Path(folder) / "graph.parhip"
        _write_parhip(path, adjacency.indptr, adjacency.indices, adjacency.multiplicity, weight)
        loaded = library.load_graph(str(path), library.GraphFileFormat.PARHIP)
        report(1, 2, "KaMinPar")
        library.reseed(seed)
        solver = library.KaMinPar(1, library.default_context())
        return torch.tensor(solver.compute_partition(loaded, parts, eps=_SLACK), dtype=torch.int64)


def _write_parhip(
    path: Path,
    indptr: Tensor,  # [N + 1]
    indices: Tensor,  # [M]
    multiplicity: Tensor,  # [M]
    weight: Tensor | None,  # [N]
) -> None:
    """A ParHIP binary: version, counts, where rows begin in bytes, neighbours, weights."""
    num_nodes, num_edges = len(indptr) - 1, len(indices)
    # Bits of the version say what is absent: 1 weights of edges, 2 weights of nodes.
    version = 0 if weight is not None else 2
    begins = 8 * (3 + num_nodes + 1) + 8 * indptr
    with path.open("wb") as file:
        np.array([version, num_nodes, num_edges], dtype=np.uint64).tofile(file)
        arrays = [begins, indices]
        if weight is not None:
            arrays.append(_units(weight))
        for array in (*arrays, multiplicity):
            array.numpy().astype(np.uint64).tofile(file)


def fennel(
    graph: Graph,
    parts: int,
    weight: Tensor | None,
    seed: int,
    report: Report,
    passes: int = FENNEL_PASSES,
    slack: float = FENNEL_SLACK,
) -> Tensor:  # int64 [N]
    """Passes over the nodes, each to the part with most of its neighbours less the price of load.

    Memory: 4 bytes per node (8 with weights) and a few per part, beside the graph, and beside its
    reverse where it is not symmetric. Repeats bit for bit; one thread.

    Source: Tsourakakis et al., "FENNEL: streaming graph partitioning for massive scale graphs",
    2014; passes as in Nishimura and Ugander, "Restreaming graph partitioning", 2013.
    """
    module = _native.module()
    num_nodes = graph.num_dst
    part = torch.full((num_nodes,), -1, dtype=torch.int32)
    if num_nodes == 0:
        return part.long()
    symmetric = is_symmetric(graph)
    other = None if symmetric else graph.reverse
    num_edges = graph.num_edges / 2 if symmetric else graph.num_edges
    # The paper's alpha = sqrt(P) E / N^1.5 and gamma = 1.5; a pass pays the derivative.
    price = _PRICE_SHARE * 1.5 * parts**0.5 * num_edges / num_nodes**1.5
    first = int(torch.randint(num_nodes, (1,), generator=torch.Generator().manual_seed(seed)))
    light = None if weight is None else weight.float().contiguous()
    for done in range(passes):
        report(done, passes, f"pass {done + 1} of {passes}")
        moved = module.fennel_pass(
            _native.INDEX_CODES[graph.index_dtype],
            graph.indptr.data_ptr(),
            graph.indices.data_ptr(),
            0 if other is None else other.indptr.data_ptr(),
            0 if other is None else other.indices.data_ptr(),
            num_nodes,
            parts,
            first,
            0 if light is None else light.data_ptr(),
            price,
            (1.0 + slack) * num_nodes / parts,
            part.data_ptr(),
        )
        if moved == 0:
            break
    return part.long()


def random(
    graph: Graph, parts: int, weight: Tensor | None, seed: int, report: Report
) -> Tensor:  # int64 [N]
    """Nodes in random order, dealt to the parts in turn; weights have no say."""
    order = torch.randperm(graph.num_dst, generator=torch.Generator().manual_seed(seed))
    part = torch.empty(graph.num_dst, dtype=torch.int64)
    part[order] = torch.arange(graph.num_dst) % parts
    return part


def _units(weight: Tensor) -> Tensor:  # int64 [N], at least 1
    return (weight.double() * _UNITS).round().clamp(min=1).long()


METHODS = {"metis": metis, "kaminpar": kaminpar, "fennel": fennel, "random": random}
