"""PyG's functions patched, against the same unpatched."""

import subprocess
import sys

import pytest
import torch
from helpers.tolerance import assert_as_good_as_torch

import gnnkern

pytest.importorskip("torch_geometric", reason="torch_geometric is not installed")

import torch_geometric.utils  # noqa: E402
from torch_geometric import EdgeIndex, Index  # noqa: E402
from torch_geometric.nn import conv  # noqa: E402

INDEX = torch.tensor([3, 0, 3, 3, 0, 5, 1])
REDUCES = ("sum", "add", "mean", "mul", "min", "max", "amin", "amax", "any")
ORIGINAL = {
    name: getattr(torch_geometric.utils, name)
    for name in ("scatter", "segment", "softmax", "spmm", "index_sort")
}


@pytest.fixture(autouse=True)
def _patched():
    with gnnkern.patched_pyg("ops"):
        yield


def utils(name):
    function = getattr(torch_geometric.utils, name)
    assert function is not ORIGINAL[name]
    return function


def values(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def both(name, *args, x, **kwargs):
    """Result and gradient, patched and not."""
    outs = []
    for function in (utils(name), ORIGINAL[name]):
        leaf = x.clone().requires_grad_(x.is_floating_point())
        out = function(leaf, *args, **kwargs)
        grad = None
        if out.requires_grad:
            weight = values(*out.shape, dtype=out.dtype)
            (grad,) = torch.autograd.grad((out * weight).sum(), leaf)
        outs.append((out.detach(), grad))
    return outs


def assert_same(name, *args, x, **kwargs):
    (mine, my_grad), (theirs, their_grad) = both(name, *args, x=x, **kwargs)
    exact = both(name, *args, x=x.double(), **kwargs)[1]
    assert mine.is_contiguous()
    assert_as_good_as_torch(mine, theirs, exact[0])
    assert (my_grad is None) == (their_grad is None)
    if my_grad is not None:
        assert_as_good_as_torch(my_grad, their_grad, exact[1], "gradient")


def calls():
    return gnnkern.pyg_report().num_accelerated


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_scatter(reduce, dim, dtype):
    shape = [4, 3, 20]
    shape[dim] = len(INDEX)
    x = values(*shape, dtype=dtype)
    assert_same("scatter", INDEX, dim, 7, reduce, x=x)
    assert_same("scatter", INDEX, dim, None, reduce, x=x)
    if reduce != "any":
        utils("scatter")(x, INDEX, dim, 7, reduce)
        assert calls() > 0


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_scatter_of_halves(reduce, dtype):
    assert_same("scatter", INDEX, 0, 7, reduce, x=values(7, 20, dtype=dtype))


@pytest.mark.parametrize("reduce", ["min", "max"])
def test_equal_elements_share_a_gradient(reduce):
    x = torch.tensor([1.0, 2.0, 1.0, 1.0, 2.0, 3.0, 3.0]).double()
    assert_same("scatter", INDEX, 0, 7, reduce, x=x)
    assert_same("scatter", INDEX, 0, 7, reduce, x=torch.zeros(7, 2).double())


@pytest.mark.parametrize("reduce", ["sum", "mean", "min", "max"])
def test_every_derivative_of_scatter(reduce):
    x = values(7, 2).requires_grad_()

    def call(x):
        return utils("scatter")(x, INDEX, 0, 7, reduce)

    assert torch.autograd.gradcheck(call, (x,))
    assert torch.autograd.gradgradcheck(call, (x,))


@pytest.mark.parametrize("reduce", REDUCES[:6])
def test_scatter_of_integers_and_of_nothing(reduce):
    x = (values(7, 2) * 5).long()
    expected = ORIGINAL["scatter"](x, INDEX, 0, 7, reduce)
    assert torch.equal(utils("scatter")(x, INDEX, 0, 7, reduce), expected)
    assert any(what == "scatter" and "int64" in why for what, why in gnnkern.pyg_report().left)
    empty = torch.zeros(0, 3), INDEX[:0], 0, 4, reduce
    assert torch.equal(utils("scatter")(*empty), ORIGINAL["scatter"](*empty))


def test_infinity_and_nan():
    x = torch.tensor([torch.inf, -torch.inf, 1.0, torch.nan, -torch.inf, -torch.inf, torch.inf])
    for reduce in ("min", "max"):
        assert_same("scatter", INDEX, 0, 7, reduce, x=x)


@pytest.mark.parametrize(
    "arguments",
    [
        (INDEX.view(7, 1), 0, None, "sum"),
        (INDEX, 5, None, "sum"),
        (INDEX, -3, None, "sum"),
        (INDEX, 0, 3, "sum"),
        (INDEX, 0, 3, "max"),
        (INDEX - 1, 0, 6, "sum"),
        (INDEX, 0, None, "median"),
    ],
)
def test_errors_are_pygs(arguments):
    errors = []
    for function in (ORIGINAL["scatter"], utils("scatter")):
        with pytest.raises((ValueError, RuntimeError, IndexError)) as caught:
            function(values(7, 2), *arguments)
        errors.append((type(caught.value), str(caught.value)))
    assert errors[0] == errors[1]
    assert calls() == 0


@pytest.mark.parametrize("reduce", ["sum", "mean", "min", "max"])
@pytest.mark.parametrize("trailing", [(), (5,)])
def test_segment(reduce, trailing):
    ptr = torch.tensor([0, 3, 3, 7])
    assert_same("segment", ptr, reduce, x=values(7, *trailing))
    # Without torch_scatter an infinity counts as the mark of an empty segment.
    x = values(7, *trailing)
    x[0] = torch.inf
    assert torch.equal(utils("segment")(x, ptr, reduce), ORIGINAL["segment"](x, ptr, reduce))


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("by_ptr", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_softmax(dim, by_ptr, dtype):
    shape = [2, 3, 4]
    shape[dim] = 7
    x = values(*shape, dtype=dtype)
    if by_ptr and dim != 0 and not torch_geometric.typing.WITH_TORCH_SCATTER:
        pytest.skip("PyG needs torch_scatter for it")
    index = None if by_ptr else INDEX
    ptr = torch.tensor([0, 3, 3, 7]) if by_ptr else None
    assert_same("softmax", index, ptr, None, dim, x=x)
    assert calls() > 0
    if not by_ptr:
        assert_same("softmax", index, None, 9, dim, x=x)


def test_every_derivative_of_softmax():
    x = values(7, 2).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: utils("softmax")(x, INDEX), (x,))


@pytest.mark.parametrize("reduce", ["sum", "add", "mean", "min", "max"])
def test_spmm(reduce):
    dense = torch.zeros(5, 6).double()
    dense[[3, 0, 3, 3], [1, 0, 0, 5]] = values(4)
    matrix = dense.to_sparse_csr()
    x = values(6, 3)
    expected = ORIGINAL["spmm"](matrix, x, reduce)
    torch.testing.assert_close(utils("spmm")(matrix, x, reduce), expected)
    assert calls() == 1
    grads = []
    for function in (utils("spmm"), ORIGINAL["spmm"]):
        leaf = x.clone().requires_grad_()
        grads.append(torch.autograd.grad(function(matrix, leaf, reduce).square().sum(), leaf)[0])
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("reduce", ["sum", "mean", "min", "max"])
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_products_of_edge_index(reduce, transpose, weighted):
    order = "col" if transpose else "row"
    edges = EdgeIndex([[0, 0, 1, 2], [1, 3, 3, 3]], sparse_size=(3, 4), sort_order=order)
    x = values(3 if transpose else 4, 20, dtype=torch.float32)
    weight = values(4, dtype=torch.float32) if weighted else None
    mine = edges.matmul(x, weight, reduce=reduce, transpose=transpose)
    assert calls() == 1
    gnnkern.unpatch_pyg()
    theirs = edges.matmul(x, weight, reduce=reduce, transpose=transpose)
    torch.testing.assert_close(mine, theirs)


def test_index_sort():
    values, order = utils("index_sort")(INDEX, 6)
    assert torch.equal(values, INDEX.sort().values)
    assert torch.equal(INDEX[order], values)


def test_indices_of_pygs_own_type():
    x = values(7, 20)
    index = Index(INDEX.sort().values, dim_size=7, is_sorted=True)
    out = utils("scatter")(x, index, 0, 7)
    torch.testing.assert_close(out, ORIGINAL["scatter"](x, index.as_tensor(), 0, 7))
    assert calls() == 1


def test_every_name_is_rebound_and_put_back():
    from torch_geometric.nn.aggr import base
    from torch_geometric.nn.conv import gat_conv, gcn_conv

    patched = [base.scatter, gat_conv.softmax, gcn_conv.scatter, gcn_conv.gcn_norm]
    assert base.scatter is torch_geometric.utils.scatter is not ORIGINAL["scatter"]
    gnnkern.unpatch_pyg()
    gnnkern.unpatch_pyg()
    assert base.scatter is torch_geometric.utils.scatter is ORIGINAL["scatter"]
    assert gat_conv.softmax is ORIGINAL["softmax"]
    for module in list(sys.modules.values()):
        for value in list(getattr(module, "__dict__", {}).values()):
            assert not any(value is function for function in patched)


def test_what_is_observed_is_left_to_pyg():
    x = values(7, 20)
    scatter = utils("scatter")
    expected = scatter(x, INDEX, 0, 7)
    before = calls()
    torch.testing.assert_close(
        torch.func.vmap(lambda x: scatter(x, INDEX, 0, 7))(x.T[..., None]),
        (ORIGINAL["scatter"](x, INDEX, 0, 7).T[..., None]),
    )
    traced = torch.jit.trace(lambda x: scatter(x, INDEX, 0, 7), (x,), check_trace=False)
    torch.testing.assert_close(traced(x), expected)
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        assert scatter(mode.from_tensor(x), mode.from_tensor(INDEX), 0, 7).shape == (7, 20)
    assert calls() == before
    reasons = {why for what, why in gnnkern.pyg_report().left}
    assert {"a transform of torch.func", "tracing"} <= reasons


def test_compiled():
    scatter = utils("scatter")
    x = values(7, 20)
    compiled = torch.compile(lambda x: scatter(x * 2, INDEX, 0, 7), backend="aot_eager")
    torch.testing.assert_close(compiled(x), ORIGINAL["scatter"](x * 2, INDEX, 0, 7))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_scripted_layers_are_pygs():
    layer = conv.GCNConv(4, 3)
    edge_index = torch.randint(5, (2, 12))
    x = torch.randn(5, 4)
    torch.testing.assert_close(torch.jit.script(layer)(x, edge_index), layer(x, edge_index))


def test_levels_and_report():
    with pytest.raises(ValueError, match="level must be one of"):
        gnnkern.patch_pyg("everything")
    utils("scatter")(values(7, 2), INDEX)
    utils("scatter")(INDEX, INDEX)
    text = str(gnnkern.pyg_report())
    assert "scatter sum" in text
    assert "scatter: values of torch.int64" in text
    gnnkern.patch_pyg("ops")
    assert calls() == 0


def test_untested_versions_warn(monkeypatch):
    monkeypatch.setattr(torch_geometric, "__version__", "9.9.0")
    with pytest.warns(UserWarning, match=r"torch_geometric 9\.9\.0 was not tested"):
        gnnkern.patch_pyg("ops")


def test_importing_gnnkern_imports_no_pyg():
    code = "import sys, gnnkern; sys.exit('torch_geometric' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=200).returncode == 0
