"""The stand-in for torch_sparse, against dense matrices."""

import copy
import io

import pytest
import torch

from gnnkern.compat import torch_sparse
from gnnkern.compat.torch_sparse import SparseStorage, SparseTensor

ROW, COL = torch.tensor([3, 0, 1, 0, 3, 3]), torch.tensor([1, 4, 0, 0, 3, 0])
SIZES = (5, 6)
REDUCES = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax, "min": torch.amin}


def values(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=dtype)


def matrix(*trailing, has_value=True):
    value = values(len(ROW), *trailing) if has_value else None
    return SparseTensor(ROW, None, COL, value, SIZES)


def dense_of(src):
    """By its entries, summed."""
    row, col, value = src.coo()
    value = torch.ones(len(row)).double() if value is None else value
    dense = torch.zeros(src.sizes(), dtype=value.dtype)
    return dense.index_put((row, col), value, accumulate=True)


def assert_sorted(src):
    key = src.storage.row() * src.sparse_size(1) + src.storage.col()
    assert (key[1:] >= key[:-1]).all()
    assert torch.equal(
        src.storage.rowcount(),
        torch.bincount(key // src.sparse_size(1)).new_tensor(
            [(src.storage.row() == i).sum() for i in range(src.sparse_size(0))]
        ),
    )


@pytest.mark.parametrize("trailing", [(), (2,)])
@pytest.mark.parametrize("has_value", [True, False])
def test_entries_are_sorted_and_every_layout_agrees(trailing, has_value):
    src = matrix(*trailing, has_value=has_value)
    assert_sorted(src)
    row, col, value = src.coo()
    rowptr, col_again, _ = src.csr()
    assert torch.equal(torch.arange(5).repeat_interleave(rowptr.diff()), row)
    assert torch.equal(col, col_again)
    colptr, rows, by_column = src.csc()
    assert torch.equal(torch.arange(6).repeat_interleave(colptr.diff()), col[src.storage.csr2csc()])
    assert torch.equal(rows, row[src.storage.csr2csc()])
    assert torch.equal(src.storage.csr2csc()[src.storage.csc2csr()], torch.arange(len(row)))
    if has_value:
        again = src.set_value(by_column, "csc")
        assert torch.equal(again.storage.value(), value)
        dense = torch.zeros(*SIZES, *trailing).double()
        dense[ROW, COL] = values(len(ROW), *trailing)
        assert torch.equal(src.to_dense(), dense)
        assert torch.equal(SparseTensor.from_dense(dense).to_dense(), dense)
    assert src.sizes() == [*SIZES, *(trailing if has_value else ())]
    assert src.nnz() == 6
    assert src.sparse_sizes() == SIZES
    assert src.size(-1) == src.sizes()[-1]


def test_sizes_that_indices_need():
    assert SparseTensor(ROW, None, COL).sparse_sizes() == (4, 5)
    assert SparseTensor(None, torch.tensor([0, 1, 3]), torch.tensor([2, 0, 1])).sparse_sizes() == (
        2,
        3,
    )
    empty = torch.zeros(0, dtype=torch.int64)
    assert SparseTensor(empty, None, empty).sparse_sizes() == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"row": ROW}, "col and one of row and rowptr"),
        ({"row": ROW.int(), "col": COL}, "row must be int64"),
        ({"row": ROW, "col": COL.view(2, 3)}, "col must be int64 of one dimension"),
        ({"row": ROW, "col": COL, "value": values(5)}, r"value must have shape \[6, ...\]"),
        ({"row": ROW, "col": COL, "sparse_sizes": (3, 9)}, "row must be below 3"),
        ({"row": ROW, "col": COL, "sparse_sizes": (9, 3)}, "col must be below 3"),
        (
            {"rowptr": torch.tensor([0, 1]), "col": COL[:1], "sparse_sizes": (2, 6)},
            "rowptr must have 2",
        ),
    ],
)
def test_what_is_no_matrix(arguments, message):
    with pytest.raises(ValueError, match=message):
        SparseTensor(**arguments)


@pytest.mark.parametrize("reduce", [*REDUCES, "add"])
@pytest.mark.parametrize("has_value", [True, False])
def test_products(reduce, has_value):
    src, x = matrix(has_value=has_value), values(6, 3)
    word = "sum" if reduce == "add" else reduce
    expected = torch.zeros(5, 3).double()
    row, col, value = src.coo()
    messages = x[col] if value is None else x[col] * value.unsqueeze(1)
    for i in row.unique():
        expected[i] = REDUCES[word](messages[row == i], 0)
    for out in (src.matmul(x, reduce), torch_sparse.matmul(src, x, reduce)):
        torch.testing.assert_close(out, expected)
    vector = src.spmm(x[:, 0].contiguous(), reduce)
    torch.testing.assert_close(vector, expected[:, 0])
    if word == "sum":
        torch.testing.assert_close(src @ x, expected)


@pytest.mark.parametrize("reduce", REDUCES)
def test_gradients_of_products(reduce):
    x, value = values(6, 3).requires_grad_(), values(6).requires_grad_()

    def call(x, value):
        return SparseTensor(ROW, None, COL, value, SIZES).matmul(x, reduce)

    assert torch.autograd.gradcheck(call, (x, value))
    if reduce in ("sum", "mean"):
        assert torch.autograd.gradgradcheck(call, (x, value))


def test_products_of_two_sparse_matrices():
    a, b = matrix(), matrix().t()
    torch.testing.assert_close((a @ b).to_dense(), dense_of(a) @ dense_of(b))
    index, value = torch_sparse.spspmm(
        torch.stack([ROW, COL]), values(6), torch.stack([COL, ROW]), values(6), 5, 6, 5
    )
    torch.testing.assert_close(
        torch.sparse_coo_tensor(index, value, (5, 5)).to_dense(), dense_of(a) @ dense_of(b)
    )
    with pytest.raises(NotImplementedError, match="are summed"):
        a.matmul(b, "max")


def test_spmm_of_entries():
    index, x = torch.stack([ROW, COL]), values(6, 3)
    out = torch_sparse.spmm(index, values(6), 5, 6, x)
    torch.testing.assert_close(out, dense_of(matrix()) @ x)
    assert torch_sparse.spmm(index, values(6), 5, 6, x[:, 0]).shape == (5, 1)


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("dim", [None, 0, 1, -1, 2])
def test_reductions(reduce, dim):
    src = matrix(2)
    function = getattr(torch_sparse, reduce)
    row, col, value = src.coo()
    if dim is None:
        torch.testing.assert_close(function(src), REDUCES[reduce](value))
        return
    if dim in (2, -1):
        out = function(src, dim).storage.value()
        torch.testing.assert_close(out, REDUCES[reduce](value, 1))
        return
    index = col if dim == 0 else row
    expected = torch.zeros(SIZES[1 - dim], 2).double()
    for i in index.unique():
        expected[i] = REDUCES[reduce](value[index == i], 0)
    torch.testing.assert_close(getattr(src, reduce)(dim), expected)


@pytest.mark.parametrize("dim", [None, 0, 1])
def test_reductions_without_values(dim):
    src = matrix(has_value=False)
    dense = dense_of(src).float()
    expected = dense.sum() if dim is None else dense.sum(dim)
    torch.testing.assert_close(src.sum(dim), expected)
    assert (src.mean(dim) == 1).all()


def test_rows_and_columns_times_and_plus():
    src, dense = matrix(), dense_of(matrix())
    column, line = values(5, 1), values(1, 6)
    torch.testing.assert_close((src * column).to_dense(), dense * column)
    torch.testing.assert_close(torch_sparse.mul(src, line).to_dense(), dense * line)
    there = (dense != 0).double()
    torch.testing.assert_close((src + column).to_dense(), (dense + column) * there)
    torch.testing.assert_close((src + line).to_dense(), (dense + line) * there)
    bare = matrix(has_value=False)
    torch.testing.assert_close((bare * column).to_dense(), column * there)
    torch.testing.assert_close((bare + column).to_dense(), (1 + column) * there)
    changed = src.copy()
    assert changed.mul_(column) is changed
    torch.testing.assert_close(changed.to_dense(), dense * column)
    assert torch.equal(src.to_dense(), dense)
    with pytest.raises(ValueError, match="must have shape"):
        src * values(4, 1)


def test_entries_times_and_plus():
    src, other = matrix(), values(6)
    by_row = src.storage.value()
    torch.testing.assert_close(src.mul_nnz(other).storage.value(), by_row * other)
    torch.testing.assert_close(
        src.add_nnz(other, "csc").storage.value(), by_row + other[src.storage.csc2csr()]
    )


def test_sums_and_products_of_two_matrices():
    a, b = matrix(), SparseTensor(COL % 5, None, ROW, values(6), SIZES).coalesce()
    torch.testing.assert_close((a + b).to_dense(), dense_of(a) + dense_of(b))
    torch.testing.assert_close((a * b).to_dense(), dense_of(a) * dense_of(b))
    assert_sorted(a + b)


@pytest.mark.parametrize("k", [0, 1, -2])
def test_diagonals(k):
    src, dense = matrix(), dense_of(matrix())
    off = dense - torch.diag_embed(dense.diagonal(k), k)[:5, :6].new_zeros(5, 6)
    rows, cols = torch.meshgrid(torch.arange(5), torch.arange(6), indexing="ij")
    on = cols - rows == k
    off = torch.where(on, 0, dense)
    assert torch.equal(src.remove_diag(k).to_dense(), off)
    length = int(on.sum())
    new = values(length) + 9
    expected = off.clone()
    expected[on] = new
    assert torch.equal(src.set_diag(new, k).to_dense(), expected)
    expected[on] = 1.0
    assert torch.equal(torch_sparse.set_diag(src, k=k).to_dense(), expected)
    expected[on] = 7.0
    assert torch.equal(torch_sparse.fill_diag(src, 7.0, k).to_dense(), expected)
    assert_sorted(src.set_diag(new, k))
    bare = torch_sparse.fill_diag(matrix(has_value=False), 7.0, k)
    assert not bare.has_value()
    assert bare.nnz() == src.remove_diag(k).nnz() + length


def test_the_main_diagonal():
    assert torch.equal(matrix().get_diag(), dense_of(matrix()).diagonal())
    assert torch.equal(SparseTensor.eye(3, 4).to_dense(), torch.eye(3, 4))
    assert SparseTensor.eye(3, has_value=False, fill_cache=True).storage.cached_keys()


@pytest.mark.parametrize("dim", [0, 1])
def test_rows_and_columns_chosen(dim):
    src, dense = matrix(2), dense_of(matrix(2))
    index = torch.tensor([3, 0, 3, 2])
    assert torch.equal(src.index_select(dim, index).to_dense(), dense.index_select(dim, index))
    mask = torch.arange(SIZES[dim]) % 3 == 0
    assert torch.equal(
        src.masked_select(dim, mask).to_dense(), dense.index_select(dim, mask.nonzero().flatten())
    )
    assert torch.equal(src.narrow(dim, 1, 3).to_dense(), dense.narrow(dim, 1, 3))
    assert torch.equal(src.select(dim, 3).to_dense(), dense.narrow(dim, 3, 1))
    assert_sorted(src.index_select(dim, index))


def test_items():
    src, dense = matrix(2), dense_of(matrix(2))
    assert torch.equal(src[1:4].to_dense(), dense[1:4])
    assert torch.equal(src[:, -3:].to_dense(), dense[:, -3:])
    assert torch.equal(src[torch.tensor([3, 0]), 1:].to_dense(), dense[[3, 0]][:, 1:])
    assert torch.equal(src[..., 0:1].to_dense(), dense[..., 0:1])
    assert torch.equal(src[torch.arange(5) > 2].to_dense(), dense[3:])
    assert torch.equal(src[3].to_dense(), dense[3:4])
    with pytest.raises(ValueError, match="step of 1"):
        src[::2]


def test_entries_chosen():
    src = matrix()
    mask = src.storage.value() > 0
    chosen = torch_sparse.masked_select_nnz(src, mask, "coo")
    assert torch.equal(chosen.to_dense(), dense_of(src).clamp(min=0))
    by_column = mask[src.storage.csr2csc()]
    assert chosen == torch_sparse.masked_select_nnz(src, by_column, "csc")
    assert chosen == torch_sparse.index_select_nnz(src, mask.nonzero().flatten(), "coo")


def test_transposes_permutations_and_symmetry():
    src, dense = matrix(), dense_of(matrix())
    assert torch.equal(src.t().to_dense(), dense.t())
    assert src.t().t() == src
    assert_sorted(src.t())
    square = src.narrow(1, 0, 5)
    order = torch.tensor([4, 2, 0, 1, 3])
    both = dense[:, :5]
    assert torch.equal(square.permute(order).to_dense(), both[order][:, order])
    assert not square.is_symmetric()
    symmetric = square.to_symmetric()
    assert symmetric.is_symmetric()
    torch.testing.assert_close(symmetric.to_dense(), both + both.t())


def test_joining():
    a, b = matrix(), matrix().narrow(0, 1, 3)
    x, y = dense_of(a), dense_of(b)
    assert torch.equal(torch_sparse.cat([a, b], 0).to_dense(), torch.cat([x, y]))
    assert torch.equal(torch_sparse.cat([b, b], 1).to_dense(), torch.cat([y, y], 1))
    assert torch.equal(torch_sparse.cat([a, b], (0, 1)).to_dense(), torch.block_diag(x, y))
    wide = torch_sparse.cat([matrix(2), matrix(3)], 2)
    assert wide.sizes() == [5, 6, 5]
    for joined in (torch_sparse.cat([b, b], 1), torch_sparse.cat([a, b], (0, 1))):
        assert_sorted(joined)


def test_entries_at_one_place():
    twice = SparseTensor(torch.cat([ROW, ROW]), None, torch.cat([COL, COL]), values(12), SIZES)
    assert not twice.is_coalesced()
    once = twice.coalesce()
    assert once.is_coalesced()
    torch.testing.assert_close(once.to_dense(), dense_of(twice))
    index = torch.stack([torch.cat([ROW, ROW]), torch.cat([COL, COL])])
    joint, value = torch_sparse.coalesce(index, values(12), 5, 6)
    assert SparseTensor(joint[0], None, joint[1], value, SIZES) == once
    turned, value = torch_sparse.transpose(index, values(12), 5, 6)
    assert SparseTensor(turned[0], None, turned[1], value, (6, 5)) == once.t()


def test_torch_and_scipy():
    pytest.importorskip("scipy")
    src, dense = matrix(), dense_of(matrix())
    assert torch.equal(src.to_torch_sparse_coo_tensor().to_dense(), dense)
    assert torch.equal(src.to_torch_sparse_csr_tensor().to_dense(), dense)
    assert torch.equal(src.to_torch_sparse_csc_tensor().to_dense(), dense)
    assert SparseTensor.from_torch_sparse_csr_tensor(dense.to_sparse_csr()) == src
    assert SparseTensor.from_torch_sparse_coo_tensor(dense.to_sparse_coo()) == src
    for layout in ("coo", "csr", "csc"):
        assert src.to_scipy(layout).format == layout
        assert SparseTensor.from_scipy(src.to_scipy(layout)) == src


def test_values_dtypes_and_copies():
    src = matrix()
    assert src.float().dtype() == torch.float32
    assert src.to(torch.bfloat16).dtype() == torch.bfloat16
    assert src.to("cpu", torch.float32).dtype() == torch.float32
    assert src.set_value(None).dtype() == torch.float32
    assert not src.set_value(None).has_value()
    assert torch.equal(src.fill_value(2.0).storage.value(), torch.full((6,), 2.0))
    assert src.has_value()
    copied = copy.deepcopy(src)
    copied.storage.value().zero_()
    assert src.to_dense().any()
    assert src.copy().set_value_(None) is not None
    assert src.has_value()
    assert src.requires_grad_().requires_grad()
    assert not src.detach().requires_grad()
    assert "SparseTensor([5, 6], nnz=6" in repr(src)


def test_saved_and_loaded():
    buffer = io.BytesIO()
    torch.save(matrix(), buffer)
    buffer.seek(0)
    assert torch.load(buffer, weights_only=False) == matrix()


def test_a_storage_by_itself():
    storage = SparseStorage(row=ROW, col=COL, value=values(6), sparse_sizes=SIZES)
    assert storage.fill_cache_().cached_keys() == [
        "rowcount",
        "rowptr",
        "colcount",
        "colptr",
        "csr2csc",
        "csc2csr",
    ]
    assert storage.clear_cache_().cached_keys() == []
    assert SparseTensor.from_storage(storage) == matrix()


def test_what_is_absent_says_so():
    with pytest.raises(AttributeError, match="install torch_sparse for its samplers"):
        torch_sparse.random_walk  # noqa: B018
    assert not hasattr(torch_sparse, "unheard_of")
