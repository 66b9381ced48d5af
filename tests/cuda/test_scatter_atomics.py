"""scatter_reduce in no order: atomics from the unsorted index, where a caller allows it."""

from contextlib import nullcontext

import pytest
import torch
from helpers.cases import each_dtype, each_index_dtype, each_layout, normal
from helpers.checks import (
    check_compiled,
    check_gradcheck,
    check_gradient,
    check_operators,
    check_second_derivative,
    check_value,
    same_bits,
)
from helpers.devices import DEVICE, device_index, on_device
from helpers.graphs import GRAPHS
from helpers.host_executor import SEEDS, check_rows_that_begin_anywhere, host_module
from ops.test_scatter_reduce import reduce_call

import gnnkern
from gnnkern import _cuda
from gnnkern.backends import Query, choose
from gnnkern.ops.scatter_reduce import IMPLEMENTATIONS, UNORDERED_FIRST

# Poisoned memory comes with torch's flag of determinism, as a warning.
pytestmark = [
    pytest.mark.usefixtures("cuda"),
    pytest.mark.filterwarnings("ignore:scatter_reduce. deterministic must be True"),
]

LINEAR, SELECTING = ("sum", "mean"), ("max", "min")
each_reduce = pytest.mark.parametrize("reduce", [*LINEAR, *SELECTING])
each_linear = pytest.mark.parametrize("reduce", LINEAR)
each_selecting = pytest.mark.parametrize("reduce", SELECTING)
# One row per column of a lane, rows of 16-byte vectors, and of more than a warp of either.
WIDTHS = (0, 1, 3, 8, 33, 64, 264)


@pytest.fixture
def launches(monkeypatch):
    """Names of the launchers that were called."""
    called = []
    original = _cuda.module()

    class Module:
        def __getattr__(self, name):
            called.append(name)
            return getattr(original, name)

    with _cuda.stand_in(Module()) if DEVICE.type == "cpu" else nullcontext():
        if DEVICE.type != "cpu":
            monkeypatch.setattr(_cuda, "module", Module)
        yield called


def unordered_call(reduce, name="hubs", trailing=(3,), dtype=torch.float32, index=torch.int64):
    indices = device_index(name, index)
    return on_device(reduce_call(indices, trailing, reduce, dtype, deterministic=False))


def check(reduce, *arguments, **options):
    """Compare the value, and of sums the gradient: that of max and min goes another way."""
    checks = check_gradient if reduce in LINEAR else check_value
    checks(unordered_call(reduce, *arguments, **options), "cuda")


# Values


@each_reduce
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("trailing", [(), (8,)], ids=["1d", "vectors"])
def test_every_graph(reduce, name, trailing, launches):
    check(reduce, name, trailing)
    assert "scatter_atomics" in launches and "row_reduce" not in launches


@each_reduce
@each_dtype
@pytest.mark.parametrize("width", WIDTHS)
def test_every_dtype_and_width(reduce, dtype, width):
    check(reduce, "hubs", (width,), dtype)


@each_reduce
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_many_rows_of_halves_are_summed_in_float32(reduce, dtype):
    check(reduce, "long_rows", (8,), dtype)


@each_reduce
@each_index_dtype
def test_index_dtypes(reduce, index_dtype):
    check(reduce, "bipartite", (2, 6), index=index_dtype)


@each_reduce
@each_layout
def test_layouts(reduce, layout):
    check_value(unordered_call(reduce, "multi_edges", (2, 4)).laid_out(layout), "cuda")


@each_reduce
def test_rows_that_begin_anywhere(reduce):
    check_rows_that_begin_anywhere(unordered_call(reduce, "multi_edges", (8,)))


@each_reduce
@pytest.mark.parametrize("descending", [False, True])
def test_sorted_index_that_is_strided(reduce, descending):
    index, count = device_index("long_rows")
    index = torch.stack((index.sort(descending=descending).values, index), dim=1)[:, 0]
    check_value(on_device(reduce_call((index, count), (3,), reduce, deterministic=False)), "cuda")


@each_reduce
@pytest.mark.parametrize("value", [float("nan"), -float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_values_that_are_not_finite(reduce, value, dtype):
    call = unordered_call(reduce, "hubs", (8,), dtype)
    call.tensors[0][::7, 1] = value
    call.tensors[0][:32, 2] = value
    call.tensors[0][:, 3] = value
    check_value(call, "cuda")


@each_selecting
def test_zeros_of_either_sign(reduce):
    zeros = torch.tensor([0.0, -0.0, -0.0, 0.0, 0.0, -0.0], device=DEVICE)
    index = torch.tensor([0, 0, 1, 1, 2, 3], device=DEVICE)
    out = gnnkern.scatter_reduce(zeros, index, reduce=reduce, deterministic=False, backend="cuda")
    assert (out == 0).all()
    # Whichever comes first, the sign is one.
    assert out.signbit().tolist() == [reduce == "min", reduce == "min", False, True]


# Order


def in_every_order(call):
    host = host_module()
    if host is None or DEVICE.type != "cpu":
        pytest.skip("the order of threads is the device's own")
    results = []
    for seed in SEEDS:
        host.set_seed(seed)
        try:
            check_value(call, "cuda")
            results.append(call.run(*call.tensors, backend="cuda"))
        finally:
            host.set_seed(0)
    return results


@each_reduce
@pytest.mark.parametrize("trailing", [(3,), (8,)], ids=["elements", "vectors"])
def test_any_order_of_threads_is_right(reduce, trailing):
    # Several warps for one group.
    first, *others = in_every_order(unordered_call(reduce, "long_rows", trailing))
    differ = not all(same_bits(first, other) for other in others)
    assert differ == (reduce in LINEAR)


# Gradients


@each_linear
def test_gradcheck(reduce):
    check_gradcheck(unordered_call(reduce, "tiny", (2,)), "cuda")


@each_linear
def test_second_derivative(reduce, launches):
    check_second_derivative(unordered_call(reduce, "tiny", (2,)), "cuda")
    assert "row_reduce" not in launches


@each_linear
def test_transforms(reduce, launches):
    call = unordered_call(reduce, "hubs", (3,))
    x = normal(2, *call.tensors[0].shape).to(call.tensors[0])
    expected = torch.stack([call.reference(rows) for rows in x])

    def run(rows):
        return call.run(rows, backend="cuda")

    torch.testing.assert_close(torch.func.vmap(run)(x), expected)
    torch.testing.assert_close(torch.stack(torch.func.jvp(run, (x[0],), (x[1],))), expected)
    assert "row_reduce" not in launches


@pytest.mark.parametrize("reduce", ["max", "min", "mul"])
def test_a_gradient_that_asks_who_won_is_in_order(reduce, launches):
    call = unordered_call(reduce, "multi_edges", (3,))
    check_gradient(call.on_grid() if reduce != "mul" else call, "cuda")
    assert "row_reduce" in launches and "scatter_atomics" not in launches


@each_linear
def test_compiles(reduce):
    # Nothing is added twice, so that the order does not matter.
    check_compiled(unordered_call(reduce, "chain", (2,)), "cuda")


@each_reduce
def test_operators(reduce):
    check_operators(unordered_call(reduce, "chain", (1,)), "cuda")


# The choice


def test_it_is_never_chosen_unasked(launches):
    call = on_device(reduce_call(device_index("hubs"), (3,)))
    call.run(*call.tensors, backend="cuda")
    assert "row_reduce" in launches and "scatter_atomics" not in launches


@pytest.fixture
def determinism():
    """Whether torch demands it: set inside of the test, and put back behind it."""
    yield torch.use_deterministic_algorithms
    torch.use_deterministic_algorithms(False)


@each_reduce
def test_it_is_refused_where_determinism_is_demanded(reduce, launches, determinism):
    call = unordered_call(reduce)
    determinism(True)
    with pytest.raises(ValueError, match="scatter_reduce: deterministic must be True while torch"):
        call.run(*call.tensors, backend="cuda")
    assert "scatter_atomics" not in launches
    determinism(True, warn_only=True)
    with pytest.warns(UserWarning, match="deterministic must be True while torch"):
        call.run(*call.tensors, backend="cuda")


def test_a_gradient_is_refused_as_well(determinism):
    index, count = device_index("tiny")
    rows = torch.ones(count, 2, device=DEVICE, requires_grad=True)
    x = torch.ones(len(index), 2, device=DEVICE, requires_grad=True)
    options = {"num_segments": count, "deterministic": False, "backend": "cuda"}
    out = gnnkern.scatter_reduce(x, index, **options)
    (grad,) = torch.autograd.grad(out, x, rows, create_graph=True)
    determinism(True)
    with pytest.raises(ValueError, match="deterministic must be True"):
        torch.autograd.grad(grad.sum(), rows)


@pytest.mark.parametrize("table, first", [(IMPLEMENTATIONS, "triton"), (UNORDERED_FIRST, "cuda")])
def test_auto_prefers_it_where_it_is_allowed(table, first):
    able = [row._replace(unsupported=lambda _: []) for row in table if row.backend != "cpu"]
    assert choose("scatter_reduce", able, Query("cuda", torch.float32), None).backend == first


@pytest.mark.parametrize("deterministic", [True, False])
def test_explain_says_so(deterministic):
    x, (index, _) = torch.ones(84, 2, device=DEVICE), device_index("hubs")
    options = {"deterministic": deterministic, "backend": "cuda"}
    text = str(gnnkern.explain("scatter_reduce", x, index, **options))
    assert ("every call sorts it" in text) == deterministic
    assert ("its atomics, which sort nothing" in text) != deterministic


# Bad groups


@pytest.mark.skipif(DEVICE.type != "cpu", reason="a device raises later, and is lost by it")
@each_reduce
@each_index_dtype
@pytest.mark.parametrize("width", [0, 3, 8])
@pytest.mark.parametrize("bad", [-1, 5, 2**31 - 1])
def test_a_group_out_of_range_raises(reduce, index_dtype, width, bad):
    index = torch.tensor([4, 0, bad, bad, 1], dtype=index_dtype)
    with pytest.raises(ValueError, match=rf"num_segments=5\), got {bad} at position 2"):
        gnnkern.scatter_reduce(
            torch.ones(5, width),
            index,
            num_segments=5,
            reduce=reduce,
            deterministic=False,
            backend="cuda",
        )
