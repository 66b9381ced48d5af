"""The stand-in beside torch_scatter itself, where that is installed."""

import pytest
import torch

from gnnkern.compat import torch_scatter as ours

theirs = pytest.importorskip("torch_scatter", reason="torch_scatter is not installed")
if getattr(theirs, "__gnnkern__", False):
    pytest.skip("torch_scatter is the stand-in", allow_module_level=True)

INDEX = torch.tensor([3, 0, 3, 3, 0, 5, 1])
PTR = torch.tensor([0, 2, 2, 5, 7])


def values(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    return (x * 4).round().to(dtype) if not dtype.is_floating_point else x.to(dtype)


def both(name, src, *args, **kwargs):
    outs = []
    for package in (ours, theirs):
        leaf = src.clone().requires_grad_(src.is_floating_point())
        given = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in kwargs.items()}
        out = getattr(package, name)(leaf, *args, **given)
        out = list(out) if isinstance(out, tuple) else [out]
        if out[0].requires_grad:
            weight = values(*out[0].shape)
            out.append(torch.autograd.grad((out[0] * weight).sum(), leaf)[0])
        outs.append([o.detach() for o in out])
    return outs


def assert_same(name, src, *args, **kwargs):
    mine, their = both(name, src, *args, **kwargs)
    torch.testing.assert_close(mine, their, rtol=1e-6, atol=1e-6, equal_nan=True)


SCATTERS = ("sum", "add", "mean", "mul", "min", "max")


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64], ids=str)
@pytest.mark.parametrize("name", SCATTERS)
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_scatter(name, dim, dtype):
    shape = [4, 3, 2]
    shape[dim] = len(INDEX)
    src = values(*shape, dtype=dtype)
    dim = dim % 3
    full = INDEX.view(-1, *[1] * (2 - dim)).expand_as(src)
    assert_same(f"scatter_{name}", src, full, dim)
    assert_same(f"scatter_{name}", src, full, dim, dim_size=8)
    size = list(shape)
    size[dim] = 8
    if name not in ("min", "max", "mul") or dtype == torch.int64:
        assert_same(f"scatter_{name}", src, full, dim, out=values(*size, dtype=dtype))


@pytest.mark.parametrize("name", ["min", "max"])
def test_what_extremes_do_with_ties_infinities_and_nan(name):
    inf, nan = torch.inf, torch.nan
    src = torch.tensor([nan, 1.0, 1.0, -inf, inf, nan, -inf]).double()
    index = torch.tensor([0, 0, 0, 1, 2, 3, 4])
    assert_same(f"scatter_{name}", src, index)
    start = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).double()
    results = [
        getattr(package, f"scatter_{name}")(src, index, 0, start.clone())
        for package in (ours, theirs)
    ]
    torch.testing.assert_close(*results, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64], ids=str)
@pytest.mark.parametrize("name", ["sum", "add", "mean", "min", "max"])
def test_segments(name, dtype):
    src = values(7, 3, dtype=dtype)
    assert_same(f"segment_{name}_csr", src, PTR)
    index = INDEX.sort().values
    assert_same(f"segment_{name}_coo", src, index)
    assert_same(f"segment_{name}_coo", src, index, dim_size=8)


def test_gathers():
    assert_same("gather_csr", values(4, 3), PTR)
    assert_same("gather_coo", values(6, 3), INDEX.sort().values)


@pytest.mark.parametrize(
    "name", ["scatter_softmax", "scatter_log_softmax", "scatter_logsumexp", "scatter_std"]
)
def test_composites(name):
    if name == "scatter_std":
        # Where theirs has no gradient: for a group of one element.
        src, index = values(8, 3), torch.tensor([1, 0, 1, 0, 1, 2, 2, 1])
        assert_same(name, src, index, 0)
        return
    assert_same(name, values(7, 3), INDEX, 0)
    assert_same(name, values(3, 7), INDEX)


def test_every_function_is_there():
    public = [name for name in dir(theirs) if name.startswith(("scatter", "segment", "gather"))]
    functions = [name for name in public if callable(getattr(theirs, name))]
    assert set(functions) <= set(ours.__all__)
