"""Rows taken out of a table and rows added to one, as halos are packed and unpacked."""

import pytest
import torch
from helpers.cases import each_dtype, each_index_dtype
from helpers.devices import DEVICE

from gnnkern._cuda.halo import gather_rows, scatter_add_rows

pytestmark = pytest.mark.usefixtures("cuda", "poison")

# Rows of 16-byte vectors and of other units, some wider than a warp takes at a time.
WIDTHS = (1, 3, 8, 33, 64, 160)


def rows(count, *shape, dtype=torch.float32):
    return torch.randn(count, *shape).to(DEVICE, dtype)


def picked(count, high, index_dtype=torch.int64):
    return torch.randint(high, (count,)).to(DEVICE, index_dtype)


@pytest.mark.parametrize("width", WIDTHS)
@each_dtype
def test_gathered_rows(width, dtype):
    x, index = rows(23, width, dtype=dtype), picked(70, 23)
    assert torch.equal(gather_rows(x, index), x[index])


@each_index_dtype
@pytest.mark.parametrize("count", [0, 1, 31, 1030])
def test_gathered_rows_of_every_count(count, index_dtype):
    x, index = rows(9, 2, 5), picked(count, 9, index_dtype)
    assert torch.equal(gather_rows(x, index), x[index.long()])


def test_gathered_rows_of_strided_tables():
    table, index = rows(20, 24), picked(50, 10)
    # Rows apart, rows whose begin is not aligned, and columns apart.
    for x in (table[::2, :16], table[:, 3:19], table[:, ::2], table.t()):
        assert torch.equal(gather_rows(x, index), x[index])


@pytest.mark.parametrize("width", WIDTHS)
@each_dtype
def test_added_rows(width, dtype):
    out, x = rows(40, width, dtype=dtype), rows(17, width, dtype=dtype)
    target = torch.randperm(40)[:17].to(DEVICE)
    # Rounded once, from the sum in float32 or wider.
    wide = torch.promote_types(dtype, torch.float32)
    expected = out.to(wide).index_add(0, target, x.to(wide)).to(dtype)
    scatter_add_rows(out, target, x)
    assert torch.equal(out, expected)


@each_index_dtype
@each_dtype
def test_rows_added_in_order(dtype, index_dtype):
    degree = torch.tensor([0, 1, 5, 0, 40, 2])
    order = torch.randperm(int(degree.sum()))
    begin = torch.nn.functional.pad(degree.cumsum(0), (1, 0))
    target = torch.randperm(9)[: len(degree)]
    out, x = rows(9, 12, dtype=dtype), rows(len(order), 12, dtype=dtype)
    wide = torch.promote_types(dtype, torch.float32)
    expected = out.to(wide)
    for row, (first, last) in enumerate(zip(begin[:-1], begin[1:], strict=True)):
        for position in order[first:last].tolist():
            expected[target[row]] += x[position].to(wide)
    arrays = [array.to(DEVICE, index_dtype) for array in (target, begin, order)]
    scatter_add_rows(out, arrays[0], x, *arrays[1:])
    assert torch.equal(out, expected.to(dtype))


def test_rows_are_added_to_a_part_of_wider_rows():
    table, x = rows(8, 24), rows(3, 8)
    target = torch.tensor([5, 0, 2], device=DEVICE)
    expected = table.clone()
    expected[:, 8:16].index_add_(0, target, x)
    scatter_add_rows(table[:, 8:16], target, x)
    assert torch.equal(table, expected)
