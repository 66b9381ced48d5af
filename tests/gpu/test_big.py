"""Tensors of more than 2^31 elements: no offset is 32 bits wide anywhere."""

import pytest
import torch

import gnnkern

pytestmark = [pytest.mark.gpu, pytest.mark.big]

DEVICE = "cuda"
ROWS, WIDTH = 2**20 + 3, 2**11


def far_graph():
    """Rows at both ends of the destinations, from sources at both ends."""
    last = ROWS - 1
    edge_index = torch.tensor([[0, last, last, 1], [0, last - 1, last, last]], device=DEVICE)
    return gnnkern.Graph.from_edge_index(edge_index, (ROWS, ROWS)).prepare()


def far_rows():
    """A number for each of the rows that the graph reads; all others are poison."""
    x = torch.full((ROWS, WIDTH), float("nan"), dtype=torch.bfloat16, device=DEVICE)
    x[0], x[1], x[-1] = 1.0, 2.0, 3.0
    return x


@pytest.mark.parametrize("reduce", ["sum", "max"])
def test_spmm_and_its_gradient(reduce, backend):
    x = far_rows().requires_grad_()
    out = gnnkern.spmm(far_graph(), x, reduce=reduce, backend=backend)
    assert [float(row.min()) for row in (out[0], out[-2], out[-1])] == [
        1.0,
        3.0,
        5.0 if reduce == "sum" else 3.0,
    ]
    assert out[1:-2].count_nonzero() == 0
    (grad,) = torch.autograd.grad(out, x, torch.ones_like(out))
    first, last = float(grad[0].min()), float(grad[-1].min())
    assert (first, last) == (1.0, 2.0)
    assert float(grad[1].max()) == (1.0 if reduce == "sum" else 0.0)
    assert grad[2:-1].count_nonzero() == 0


def test_sddmm_reads_rows_at_both_ends(backend):
    x = far_rows()
    out = gnnkern.sddmm(far_graph(), x, x[:, :], op="sub", backend=backend)[:, 0]
    # The row before the last is poison.
    assert out[0] == 0 and out[1].isnan() and out[2] == 0 and out[3] == 1.0


def test_segment_reduce_at_the_end_of_many_rows(backend):
    x = torch.ones(ROWS, WIDTH, dtype=torch.bfloat16, device=DEVICE)
    x[-3:] = 2.0
    indptr = torch.tensor([0, 1, ROWS - 3, ROWS], device=DEVICE)
    out = gnnkern.segment_reduce(x, indptr, reduce="sum", backend=backend)
    assert (float(out[0].min()), float(out[2].max())) == (1.0, 6.0)
    assert float(out[1].min()) == float(torch.tensor(ROWS - 4.0).bfloat16())


def test_segment_gather_writes_rows_beyond(backend):
    x = torch.tensor([[1.0], [2.0]], dtype=torch.bfloat16, device=DEVICE)
    x = x.expand(2, WIDTH).contiguous()
    indptr = torch.tensor([0, ROWS - 2, ROWS], device=DEVICE)
    out = gnnkern.segment_gather(x, indptr, output_size=ROWS, backend=backend)
    assert out.numel() > 2**31
    assert (float(out[:-2].max()), float(out[-2:].min())) == (1.0, 2.0)
