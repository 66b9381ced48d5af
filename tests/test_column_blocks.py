"""Sums over blocks of columns: chosen by size alone, and bit for bit those of whole rows."""

import pytest
import torch
from helpers.cases import LAYOUTS, Call, each_index_dtype, normal
from helpers.checks import check_gradient, check_value, poisoned_memory

import gnnkern
from gnnkern import _native
from gnnkern.reference.spmm import spmm_reference

# 0: no weights; 1: one per edge; 2: one per edge and head.
each_weight = pytest.mark.parametrize("heads", [0, 1, 2])
each_reduce = pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min"])


@pytest.fixture
def blocks():
    """Sets the mode; afterwards sizes decide again."""
    yield _native.module().set_column_blocks
    _native.module().set_column_blocks("auto")


def graph(index_dtype=torch.int64):
    # A row of two chunks and a bit, rows around a run, rows of a few edges, empty ones.
    degrees = torch.tensor([0, 4500, 127, 128, 129, 300, *range(20), 0])
    destination = torch.repeat_interleave(degrees)
    source = torch.randint(60, destination.shape)
    order = torch.randperm(len(source))
    edges = torch.stack([source, destination])[:, order].to(index_dtype)
    return gnnkern.Graph.from_edge_index(edges, num_nodes=(60, len(degrees)))


def call(g, width, reduce, heads, dtype=torch.float32):
    x = normal(60, 2, width // 2) if heads == 2 else normal(60, width)
    weight = [] if heads == 0 else [normal(g.num_edges, 2) if heads == 2 else normal(g.num_edges)]

    def op(x, weight=None, *, backend):
        return gnnkern.spmm(g, x, weight, reduce=reduce, backend=backend)

    def reference(x, weight=None):
        return spmm_reference(g, x, weight, reduce)

    return Call(op, reference, (x, *weight)).to(dtype)


def results(case):
    tensors = [tensor.clone().requires_grad_() for tensor in case.tensors]
    out = case.run(*tensors, backend="cpu")
    upstream = torch.linspace(-1, 1, out.numel()).view_as(out).to(out)
    return [out.detach(), *torch.autograd.grad(out, tensors, upstream)]


@each_weight
@each_reduce
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("width", [128, 192, 256])
def test_blocks_change_no_bit(blocks, width, dtype, reduce, heads):
    case = call(graph(), width, reduce, heads, dtype)
    blocks("never")
    whole = results(case)
    blocks("always")
    with poisoned_memory():
        for a, b in zip(whole, results(case), strict=True):
            assert torch.equal(a, b)


@each_weight
@each_reduce
@each_index_dtype
def test_value_and_gradient(blocks, index_dtype, reduce, heads):
    blocks("always")
    case = call(graph(index_dtype), 128, reduce, heads)
    check_value(case, "cpu")
    check_gradient(case.on_grid(), "cpu")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(blocks, layout):
    blocks("always")
    check_value(call(graph(), 128, "sum", 1).laid_out(layout), "cpu")


@pytest.mark.parametrize(
    "rows, edges, row_bytes, much",
    [
        (50_000, 10_000_000, 512, True),
        # Read too seldom; near as it is; so many rows that a block is far as well.
        (50_000, 1_000_000, 512, False),
        (50_000, 10_000_000, 128, False),
        (500_000, 100_000_000, 512, False),
    ],
)
def test_blocks_are_for_tables_that_are_far_and_much_read(rows, edges, row_bytes, much):
    assert _native.module().is_much_read(rows, edges, row_bytes, 32 << 20) is much


def test_an_unknown_mode_is_an_error():
    with pytest.raises(ValueError, match="auto, always or never, got 'often'"):
        _native.module().set_column_blocks("often")
