"""The stand-in for torch_scatter, against loops over single elements."""

import itertools
import math

import pytest
import torch
from helpers.tolerance import assert_as_good_as_torch

from gnnkern.compat import torch_scatter

REDUCES = ("sum", "mean", "mul", "min", "max")
LINEAR_FORMS = ("flat", "column", "expanded", "leading", "elements")
INDEX = torch.tensor([3, 0, 3, 3, 0, 5, 1])

each_reduce = pytest.mark.parametrize("reduce", REDUCES)
each_dim = pytest.mark.parametrize("dim", [0, 1, -1])
each_form = pytest.mark.parametrize("form", LINEAR_FORMS)


def values(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    return (x * 4).round().to(dtype) if not dtype.is_floating_point else x.to(dtype)


def source(dim, dtype=torch.float64):
    """[4, 3, 2] with seven rows at dim."""
    shape = [4, 3, 2]
    shape[dim] = len(INDEX)
    return values(*shape, dtype=dtype)


def form_of(form, src, dim):
    """An index of one form, and the same with an entry for every element."""
    dim = dim % src.dim()
    column = INDEX.view(-1, *[1] * (src.dim() - dim - 1))
    if form == "flat":
        return INDEX, column.expand_as(src)
    if form == "column":
        shape = [1] * src.dim()
        shape[dim] = -1
        return INDEX.view(shape), column.expand_as(src)
    if form == "expanded":
        return column.expand_as(src), column.expand_as(src)
    generator = torch.Generator().manual_seed(1)
    if form == "leading":
        index = torch.randint(6, src.shape[: dim + 1], generator=generator)
        full = index.view(*index.shape, *[1] * (src.dim() - dim - 1)).expand_as(src)
        return index, full
    index = torch.randint(6, src.shape, generator=generator)
    return index, index


def by_loops(src, index, dim, size, reduce, out=None):
    """(result, position of a minimum or maximum) by the definition, one element at a time."""
    dim = dim % src.dim()
    shape = list(src.shape)
    shape[dim] = size
    groups = {}
    for where in itertools.product(*map(range, src.shape)):
        group = (*where[:dim], int(index[where]), *where[dim + 1 :])
        groups.setdefault(group, []).append((src[where].item(), where[dim]))
    result = torch.zeros(shape, dtype=torch.float64)
    position = torch.full(shape, src.shape[dim])
    for group in itertools.product(*map(range, shape)):
        members = groups.get(group, [])
        terms = [value for value, _ in members]
        first = None if out is None else out[group].item()
        if reduce in ("sum", "mean"):
            total = sum(terms) + (first or 0.0)
            result[group] = total / max(len(terms), 1) if reduce == "mean" else total
        elif reduce == "mul":
            result[group] = math.prod(terms) * (1 if first is None else first)
        else:
            sign = 1 if reduce == "max" else -1
            best, at = (None, src.shape[dim]) if first is None else (first, src.shape[dim])
            for value, where in members:
                if not math.isnan(value) and value * sign > (
                    -math.inf if best is None else best * sign
                ):
                    best, at = value, where
            result[group] = 0.0 if best is None else best
            position[group] = at
    return result, position


@each_reduce
@each_dim
@each_form
def test_every_form_of_the_index(reduce, dim, form):
    src = source(dim)
    index, full = form_of(form, src, dim)
    out = torch_scatter.scatter(src, index, dim, reduce=reduce, dim_size=7)
    expected, position = by_loops(src, full, dim, 7, reduce)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    if reduce in ("min", "max"):
        function = getattr(torch_scatter, f"scatter_{reduce}")
        selected, argument = function(src, index, dim, dim_size=7)
        assert torch.equal(selected, out)
        assert torch.equal(argument, position)


@each_reduce
@pytest.mark.parametrize("form", ["flat", "elements"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_every_float(reduce, form, dtype):
    src = source(0, dtype)
    index, full = form_of(form, src, 0)
    out = torch_scatter.scatter(src, index, 0, reduce=reduce)
    exact, _ = by_loops(src, full, 0, 6, reduce)
    assert_as_good_as_torch(out, exact.to(dtype), exact)


@each_reduce
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
def test_integers(reduce, dtype):
    src = source(0, dtype)
    out = torch_scatter.scatter(src, INDEX, 0, reduce=reduce)
    expected, _ = by_loops(src, form_of("flat", src, 0)[1], 0, 6, reduce)
    assert out.dtype == dtype
    assert torch.equal(out, expected.floor().to(dtype))


@each_reduce
@each_form
def test_out_takes_part_and_is_returned(reduce, form):
    src = source(0)
    index, full = form_of(form, src, 0)
    out = values(7, 3, 2, seed=2)
    expected, position = by_loops(src, full, 0, 7, reduce, out)
    # Not contiguous: written in place all the same.
    given = out.mT.contiguous().mT
    assert torch_scatter.scatter(src, index, 0, given, reduce=reduce) is given
    torch.testing.assert_close(given, expected, rtol=1e-12, atol=1e-12)
    if reduce in ("min", "max"):
        function = getattr(torch_scatter, f"scatter_{reduce}")
        assert torch.equal(function(src, index, 0, out)[1], position)


@pytest.mark.parametrize("reduce", ["sum", "mean", "min", "max"])
@pytest.mark.parametrize("form", ["flat", "leading", "elements"])
def test_gradients_of_src_and_out(reduce, form):
    src = source(0).requires_grad_()
    index, _ = form_of(form, src, 0)
    start = values(7, 3, 2, seed=2).requires_grad_()

    def call(src, start):
        return torch_scatter.scatter(src, index, 0, start.clone(), reduce=reduce)

    assert torch.autograd.gradcheck(call, (src, start))


@each_reduce
@pytest.mark.parametrize("form", ["flat", "leading", "elements"])
def test_second_derivatives(reduce, form):
    src = source(1).requires_grad_()
    index, _ = form_of(form, src, 1)

    def call(src):
        return torch_scatter.scatter(src, index, 1, reduce=reduce)

    assert torch.autograd.gradcheck(call, (src,))
    assert torch.autograd.gradgradcheck(call, (src,))


def test_a_zero_alone_in_its_group_has_the_product_of_the_others_for_its_gradient():
    src = torch.tensor([2.0, 0.0, 3.0], requires_grad=True)
    torch_scatter.scatter_mul(src, torch.tensor([0, 0, 0])).sum().backward()
    assert src.grad.tolist() == [0.0, 6.0, 0.0]


@pytest.mark.parametrize("form", ["flat", "elements"])
def test_nan_and_infinity_win_nothing(form):
    nan, inf = math.nan, math.inf
    src = torch.tensor([nan, 1.0, nan, -inf, inf, -inf, 2.0, 2.0])
    index = torch.tensor([0, 0, 1, 2, 3, 3, 4, 4])
    if form == "elements":
        src, index = torch.stack([src, src], 1), torch.stack([index, index.flip(0)], 1)
    out, argument = torch_scatter.scatter_max(src, index, 0, dim_size=6)
    if form == "elements":
        out, argument = out[:, 0], argument[:, 0]
    assert out.tolist() == [1.0, 0.0, 0.0, inf, 2.0, 0.0]
    assert argument.tolist() == [1, 8, 8, 4, 6, 8]
    out, argument = torch_scatter.scatter_min(-src, index, 0, dim_size=6)
    assert (out if form == "flat" else out[:, 0]).tolist() == [-1.0, 0.0, 0.0, -inf, -2.0, 0.0]


@each_reduce
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64], ids=str)
def test_no_elements(reduce, dtype):
    src, index = torch.zeros(0, 3, dtype=dtype), torch.zeros(0, dtype=torch.int64)
    out = torch_scatter.scatter(src, index, 0, dim_size=2, reduce=reduce)
    assert out.tolist() == [[1.0 if reduce == "mul" else 0.0] * 3] * 2
    assert torch_scatter.scatter(src, index, 0, reduce=reduce).shape == (0, 3)
    assert torch_scatter.scatter(src.T, index, reduce=reduce).shape == (3, 0)
    assert torch_scatter.scatter(src[:, :0], index, 0, dim_size=2, reduce=reduce).shape == (2, 0)


def test_the_last_dimension_is_the_default():
    src = values(3, 7)
    out = torch_scatter.scatter_add(src, INDEX)
    assert torch.equal(out, torch_scatter.scatter_sum(src, INDEX, 1))
    assert out.shape == (3, 6)


@pytest.mark.parametrize("leading", [False, True])
@pytest.mark.parametrize("reduce", ["sum", "add", "mean", "min", "max"])
def test_segments_by_index(leading, reduce):
    src = values(2, 7, 3)
    index = INDEX.sort().values
    index = torch.stack([index, index.clamp(max=4)]) if leading else index.view(1, -1)
    full = index.expand(2, 7).unsqueeze(-1).expand_as(src)
    word = "sum" if reduce == "add" else reduce
    expected, position = by_loops(src, full, 1, 6, word)
    out = torch_scatter.segment_coo(src, index, reduce=reduce)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    function = getattr(torch_scatter, f"segment_{reduce}_coo")
    named = function(src, index, dim_size=6)
    if word in ("min", "max"):
        assert torch.equal(named[0], out)
        assert torch.equal(named[1], position)
    else:
        assert torch.equal(named, out)
    given = values(2, 6, 3, seed=2)
    expected, _ = by_loops(src, full, 1, 6, word, given)
    assert torch_scatter.segment_coo(src, index, given, reduce=reduce) is given
    torch.testing.assert_close(given, expected, rtol=1e-12, atol=1e-12)


BOUNDARIES = {
    "shared": torch.tensor([[0, 2, 2, 5, 7]]),
    "own": torch.tensor([[0, 2, 2, 5, 7], [0, 0, 3, 3, 7]]),
    "gaps": torch.tensor([[1, 2, 2, 5, 6]]),
}


@pytest.mark.parametrize("name", BOUNDARIES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.int64], ids=str)
@pytest.mark.parametrize("reduce", ["sum", "add", "mean", "min", "max"])
def test_segments_by_boundaries(name, dtype, reduce):
    src, indptr = values(2, 7, 3, dtype=dtype), BOUNDARIES[name]
    full = torch.full((2, 7, 3), 4)
    for i, j in itertools.product(range(2), range(4)):
        begins = indptr.expand(2, 5)[i]
        full[i, begins[j] : begins[j + 1]] = j
    word = "sum" if reduce == "add" else reduce
    expected, position = by_loops(src, full, 1, 5, word)
    expected, position = expected[:, :4], position[:, :4]
    if dtype == torch.int64:
        expected = expected.trunc()
    out = torch_scatter.segment_csr(src, indptr, reduce=reduce)
    torch.testing.assert_close(out, expected.to(dtype), rtol=1e-12, atol=1e-12)
    named = getattr(torch_scatter, f"segment_{reduce}_csr")(src, indptr)
    if word in ("min", "max"):
        assert torch.equal(named[1], position)
        named = named[0]
    assert torch.equal(named, out)
    given = values(2, 4, 3, dtype=dtype, seed=2)
    assert torch_scatter.segment_csr(src, indptr, given, reduce=reduce) is given
    assert torch.equal(given, out)


@pytest.mark.parametrize("reduce", ["sum", "mean", "min", "max"])
def test_one_vector_of_boundaries(reduce):
    src = values(7, 3).requires_grad_()
    indptr = torch.tensor([0, 2, 2, 5, 7])
    out = torch_scatter.segment_csr(src, indptr, reduce=reduce)
    rows = [src[a:b] for a, b in itertools.pairwise(indptr.tolist())]
    function = {"sum": torch.sum, "mean": torch.mean, "min": torch.amin, "max": torch.amax}[reduce]
    expected = torch.stack([function(r, 0) if len(r) else torch.zeros(3) for r in rows])
    torch.testing.assert_close(out, expected.double(), rtol=1e-12, atol=1e-12)

    def call(src):
        return torch_scatter.segment_csr(src, indptr, reduce=reduce)

    assert torch.autograd.gradgradcheck(call, (src,))


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64], ids=str)
@pytest.mark.parametrize("name", ["shared", "own"])
def test_gathers_undo_segments(dtype, name):
    indptr = BOUNDARIES[name]
    src = values(2, 4, 3, dtype=dtype)
    lengths = indptr.expand(2, 5).diff(dim=1)
    expected = torch.stack([src[i].repeat_interleave(lengths[i], 0) for i in range(2)])
    assert torch.equal(torch_scatter.gather_csr(src, indptr), expected)
    index = torch.stack([torch.arange(4).repeat_interleave(lengths[i]) for i in range(2)])
    assert torch.equal(torch_scatter.gather_coo(src, index), expected)
    given = torch.zeros_like(expected)
    assert torch_scatter.gather_csr(src, indptr, given) is given
    assert torch.equal(given, expected)
    if dtype.is_floating_point:
        src.requires_grad_()
        for call in (
            lambda x: torch_scatter.gather_csr(x, indptr),
            lambda x: torch_scatter.gather_coo(x, index),
        ):
            assert torch.autograd.gradcheck(call, (src,))
            assert torch.autograd.gradgradcheck(call, (src,))


COMPOSITES = ("scatter_softmax", "scatter_log_softmax", "scatter_logsumexp", "scatter_std")


def in_torch(name, src, index, size):
    """By masks: [E, K] values and one group for each element."""
    columns = []
    for k in range(src.shape[1]):
        result = src.new_zeros(size if name in COMPOSITES[2:] else len(src))
        for group in range(size):
            member = index[:, k] == group
            x = src[member, k]
            if name == "scatter_softmax":
                result[member] = x.softmax(0)
            elif name == "scatter_log_softmax":
                result[member] = x.log_softmax(0)
            elif name == "scatter_logsumexp":
                result[group] = x.logsumexp(0) if len(x) else 0.0
            elif len(x) > 1:
                result[group] = x.std()
        columns.append(result)
    return torch.stack(columns, 1)


@pytest.mark.parametrize("name", COMPOSITES)
@pytest.mark.parametrize("form", ["flat", "expanded", "elements"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_composites(name, form, dtype):
    src = values(7, 3, dtype=dtype)
    index, full = form_of(form, src, 0)
    out = getattr(torch_scatter, name)(src, index, 0, dim_size=7)
    exact = in_torch(name, src.double(), full, 7)
    assert_as_good_as_torch(out, in_torch(name, src, full, 7), exact, terms=10.0)
    src = values(7, 3).requires_grad_()

    def call(x):
        return getattr(torch_scatter, name)(x, index, 0)

    assert torch.autograd.gradcheck(call, (src,))
    assert torch.autograd.gradgradcheck(call, (src,))


def test_softmax_of_minus_infinities_is_zero_and_a_large_epsilon_counts():
    src = torch.tensor([-math.inf, -math.inf, 0.0, 0.0])
    index = torch.tensor([0, 0, 1, 1])
    assert torch_scatter.scatter_softmax(src, index).tolist() == [0.0, 0.0, 0.5, 0.5]
    assert torch_scatter.scatter_softmax(src, index, epsilon=2.0).tolist() == [0, 0, 0.25, 0.25]


def test_logsumexp_with_out():
    src, index = torch.tensor([1.0, 2.0]), torch.tensor([0, 0])
    out = torch.tensor([0.5, 7.0])
    assert torch_scatter.scatter_logsumexp(src, index, 0, out) is out
    expected = torch.tensor([0.5, 1.0, 2.0]).logsumexp(0)
    torch.testing.assert_close(out, torch.stack([expected, torch.tensor(7.0)]))


def test_std_of_the_population_and_with_out():
    src, index = values(7, 3), INDEX
    biased = torch_scatter.scatter_std(src, index, 0, unbiased=False)
    torch.testing.assert_close(biased[3], src[[0, 2, 3]].std(0, correction=0))
    out = torch.zeros(6, 3, dtype=torch.float64)
    assert torch_scatter.scatter_std(src, index, 0, out) is out
    torch.testing.assert_close(out, torch_scatter.scatter_std(src, index, 0))


@pytest.mark.parametrize("form", ["flat", "leading"])
def test_an_index_out_of_range_is_refused(form):
    src = source(1)
    index, _ = form_of(form, src, 1)
    with pytest.raises(ValueError, match="index must be in"):
        torch_scatter.scatter(src, index, 1, dim_size=3)


@pytest.mark.parametrize("name", ["scatter", "segment_coo", "segment_csr"])
def test_an_unknown_reduction_is_refused(name):
    with pytest.raises(ValueError, match="reduce must be"):
        getattr(torch_scatter, name)(values(2), torch.tensor([0, 1]), reduce="median")


@pytest.mark.parametrize("name", COMPOSITES[:3])
def test_composites_refuse_integers(name):
    with pytest.raises(ValueError, match=f"{name}: src must be of a floating dtype"):
        getattr(torch_scatter, name)(INDEX, INDEX)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("name", torch_scatter.__all__)
def test_torchscript_calls_every_function(name):
    function = getattr(torch_scatter, name)
    index = torch.tensor([0, 2, 3]) if name.endswith("csr") else torch.tensor([0, 0, 1])
    src = values(2 if name.startswith("gather") else 3)
    expected = function(src, index)
    torch.testing.assert_close(torch.jit.script(function)(src, index), expected, rtol=0, atol=0)
