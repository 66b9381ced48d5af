"""Where the kernels for GPUs run in a test, and the small graphs and tiles that keep them quick.

Without a GPU Triton's run in its interpreter, which takes a millisecond for each call of a jitted
function in each program of a grid, and those in CUDA on the host executor. So graphs are small, and
so are chunks and tiles: long rows, folds, packed rows, several steps and several tiles all occur in
a few programs.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gnnkern import Graph, _cuda, _triton
from gnnkern._triton import import_error

from .cases import Call
from .graphs import EDGE_LISTS, EdgeList
from .host_executor import NOT_BUILT, host_module

DEVICE = torch.device("cpu" if _triton.INTERPRETS or not torch.cuda.is_available() else "cuda")

# Graphs of tens of edges, one with hubs on both sides.
NAMES = ("hubs", "empty", "no_edges", "one_node", "multi_edges", "isolated_ends", "bipartite")


BACKENDS = ("triton", "cuda")


def cannot_run(backend: str) -> str | None:
    """Return why a backend for GPUs cannot run here."""
    if backend == "cuda":
        if DEVICE.type == "cuda":
            return _cuda.unusable()
        if _triton.INTERPRETS:
            return "with Triton's interpreter, whose process this is, CUDA's kernels do not run"
        return NOT_BUILT if host_module() is None else None
    if import_error() is not None:
        return import_error()
    if DEVICE.type == "cpu" and not _triton.INTERPRETS:
        return "no GPU, and no TRITON_INTERPRET=1 (`make pytest-triton` sets it)"
    return None


def runs_on(backend: str) -> AbstractContextManager[None]:
    """Inside the block CUDA's kernels run on the host executor where there is no GPU."""
    host = host_module() if backend == "cuda" and DEVICE.type == "cpu" else None
    return nullcontext() if host is None else _cuda.stand_in(host)


@contextmanager
def small_tiles(chunk_edges: int = 16) -> Iterator[None]:
    """Inside the block rows of more than 16 edges are long, and tiles are far smaller than rows."""
    from gnnkern._triton.configs import Tiles, configured

    rows = Tiles(rows=4, edges=8, columns=32)
    with configured(
        chunk_edges=chunk_edges,
        sum=rows,
        mul=Tiles(rows=2, edges=2, columns=4),
        select=rows,
        softmax=Tiles(rows=4, edges=8, columns=16),
        edges=Tiles(rows=4, edges=8, columns=16, outputs=2),
        fold=Tiles(rows=1, edges=2, columns=32),
        attention=Tiles(rows=4, edges=8, columns=16, outputs=2),
        attention_backward=Tiles(rows=4, edges=8, columns=16, outputs=2),
        gatv2_backward=Tiles(rows=4, edges=8, columns=16, outputs=2),
        attention_fold=Tiles(rows=1, edges=2, columns=16, outputs=2),
        multi=Tiles(rows=4, edges=4, columns=16),
        # The least that tensor cores take.
        matmul=Tiles(rows=16, edges=16, columns=16),
        outer=Tiles(rows=16, edges=16, columns=16),
    ):
        yield


def _hubs() -> EdgeList:
    # Degrees around the length of a chunk, and far beyond it; every third edge leaves source 3.
    in_degree = torch.tensor([0, 15, 16, 17, 0, 35, 1, 0])
    destination = torch.repeat_interleave(in_degree)  # [E]
    generator = torch.Generator().manual_seed(6)
    source = torch.randint(12, destination.shape, generator=generator)
    source[::3] = 3
    order = torch.randperm(len(source), generator=generator)
    return EdgeList(torch.stack([source, destination])[:, order], 12, 8)


def _tiny() -> EdgeList:
    # For numerical derivatives, which run an op twice for every element of its inputs.
    return EdgeList(torch.tensor([[2, 0, 2, 1, 0], [1, 1, 1, 2, 1]]), 3, 3)


def edge_list(name: str) -> EdgeList:
    """Return one of `NAMES`, "tiny", or one of the graphs of all tests."""
    small = {"hubs": _hubs, "tiny": _tiny}
    return (small.get(name) or EDGE_LISTS[name])()


def device_graph(name: str, index_dtype: torch.dtype = torch.int64) -> Graph:
    """Return a graph on the device, prepared."""
    edges = edge_list(name)
    edge_index = edges.edge_index.to(DEVICE, index_dtype)
    return Graph.from_edge_index(edge_index, (edges.num_src, edges.num_dst)).prepare()


def device_segments(name: str, index_dtype: torch.dtype = torch.int64) -> Tensor:  # [N + 1]
    """Return the boundaries of segments as long as the named graph's in-degrees."""
    edges = edge_list(name)
    degree = torch.bincount(edges.edge_index[1], minlength=edges.num_dst)
    return torch.nn.functional.pad(degree.cumsum(0), (1, 0)).to(DEVICE, index_dtype)


def device_index(name: str, index_dtype: torch.dtype = torch.int64) -> tuple[Tensor, int]:
    """Return the destination of each of the named graph's edges, [E], and their number."""
    edges = edge_list(name)
    return edges.edge_index[1].to(DEVICE, index_dtype), edges.num_dst


def on_device(call: Call) -> Call:
    """Return the call with its tensors on the device, with their strides kept."""
    return replace(call, tensors=tuple(tensor.to(DEVICE) for tensor in call.tensors))


each_name = pytest.mark.parametrize("name", NAMES)
