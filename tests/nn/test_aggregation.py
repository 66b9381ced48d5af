"""Aggregations and readouts against PyG's of the same names."""

import pytest
import torch
from layer_pairs import DTYPES, TOLERANCE, same_state
from torch import nn

import gnnkern.nn as ours
from gnnkern.nn.rows import Scattered, Segments

M, F_IN, GROUPS = 20, 5, 6
HISTOGRAM = torch.tensor([1, 2, 0, 3, 4])

CASES = {
    "sum": ("SumAggregation", {}),
    "mean": ("MeanAggregation", {}),
    "max": ("MaxAggregation", {}),
    "min": ("MinAggregation", {}),
    "mul": ("MulAggregation", {}),
    "var": ("VarAggregation", {}),
    "std": ("StdAggregation", {}),
    "softmax": ("SoftmaxAggregation", {"t": 0.5}),
    "softmax_learned": ("SoftmaxAggregation", {"learn": True, "channels": F_IN}),
    "softmax_semi": ("SoftmaxAggregation", {"semi_grad": True}),
    "lstm": ("LSTMAggregation", {"in_channels": F_IN, "out_channels": 3}),
    "attention": ("AttentionalAggregation", {"gate_nn": lambda: nn.Linear(F_IN, 1)}),
    "attention_nn": (
        "AttentionalAggregation",
        {"gate_nn": lambda: nn.Linear(F_IN, 3), "nn": lambda: nn.Linear(F_IN, 3)},
    ),
    "scaled": (
        "DegreeScalerAggregation",
        {
            "aggr": ["mean", "std"],
            "scaler": ["identity", "amplification", "attenuation", "linear", "inverse_linear"],
            "deg": HISTOGRAM,
        },
    ),
    "scaled_one": (
        "DegreeScalerAggregation",
        {"aggr": "max", "scaler": "linear", "deg": HISTOGRAM, "train_norm": True},
    ),
}
MODES = ["cat", "sum", "mean", "max", "min", "logsumexp", "std", "var"]
for mode in MODES:
    CASES[f"several_{mode}"] = (
        "MultiAggregation",
        {"aggrs": ["mean", "std", "max", "softmax", "mul"], "mode": mode},
    )
CASES["several_proj"] = (
    "MultiAggregation",
    {
        "aggrs": ["sum", "softmax"],
        "aggrs_kwargs": [{}, {"learn": True}],
        "mode": "proj",
        "mode_kwargs": {"in_channels": F_IN, "out_channels": 2},
    },
)
CASES["several_one"] = ("MultiAggregation", {"aggrs": ["sum"]})


def _groups() -> tuple[torch.Tensor, torch.Tensor]:
    """Group 2 and the last are empty; in order, as PyG wants for an LSTM."""
    index = torch.randint(GROUPS - 1, (M,))
    index[index == 2] = 1
    index = index.sort().values
    return index, torch.searchsorted(index, torch.arange(GROUPS + 1))


def _pair(case, dtype):
    pyg = pytest.importorskip("torch_geometric.nn")
    name, options = CASES[case]

    def make(package):
        given = {key: value() if callable(value) else value for key, value in options.items()}
        return getattr(package, name)(**given)

    return same_state(make(ours), make(pyg.aggr), dtype)


def _run(aggr, x, **groups):
    x = x.clone().requires_grad_()
    aggr.zero_grad()
    out = aggr(x, **groups)
    (out * torch.linspace(-1, 1, out.numel(), dtype=x.dtype).view_as(out)).sum().backward()
    grads = [parameter.grad for _, parameter in sorted(aggr.named_parameters())]
    return [out.detach(), x.grad, *(torch.zeros(1) if grad is None else grad for grad in grads)]


def _assert_same(mine, theirs, dtype):
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_same_as_pyg(case, dtype):
    mine, theirs = _pair(case, dtype)
    index, ptr = _groups()
    x = torch.randn(M, F_IN, dtype=dtype)
    expected = _run(theirs, x, index=index, dim_size=GROUPS)
    _assert_same(_run(mine, x, index=index, dim_size=GROUPS), expected, dtype)
    _assert_same(_run(mine, x, ptr=ptr), expected, dtype)
    order = torch.randperm(M)
    if case != "lstm":
        shuffled = _run(mine, x[order], index=index[order], dim_size=GROUPS)
        _assert_same([shuffled[0], *shuffled[2:]], [expected[0], *expected[2:]], dtype)


@pytest.mark.parametrize("case", ["sum", "max", "std", "softmax"])
def test_other_dimensions_same_as_pyg(case):
    mine, theirs = _pair(case, torch.float64)
    index, _ = _groups()
    x = torch.randn(3, M, F_IN, dtype=torch.float64)
    groups = {"index": index, "dim_size": GROUPS}
    _assert_same(_run(mine, x, **groups), _run(theirs, x, **groups), torch.float64)
    x = x.movedim(0, 2)
    _assert_same(_run(mine, x, dim=0, **groups), _run(theirs, x, dim=0, **groups), torch.float64)


@pytest.mark.parametrize("case", ["mean", "max", "attention", "several_cat"])
def test_one_group_and_unknown_size_same_as_pyg(case):
    mine, theirs = _pair(case, torch.float64)
    x = torch.randn(M, F_IN, dtype=torch.float64)
    _assert_same(_run(mine, x), _run(theirs, x), torch.float64)
    index = _groups()[0]
    _assert_same(_run(mine, x, index=index), _run(theirs, x, index=index), torch.float64)


@pytest.mark.parametrize("name", ["global_add_pool", "global_mean_pool", "global_max_pool"])
def test_pools_same_as_pyg(name):
    pyg = pytest.importorskip("torch_geometric.nn")
    mine, theirs = getattr(ours, name), getattr(pyg, name)
    index = _groups()[0]
    for shape, batches in [((M, F_IN), (index, None)), ((M,), (index, None)), ((2, M, 3), (None,))]:
        x = torch.randn(*shape, dtype=torch.float64)
        for batch in batches:
            torch.testing.assert_close(mine(x, batch), theirs(x, batch))
    torch.testing.assert_close(mine(x[0], index, GROUPS), theirs(x[0], index, GROUPS))


@pytest.mark.parametrize("groups", ["index", "ptr"])
@pytest.mark.parametrize("case", ["mean", "attention", "softmax_learned"])
def test_readouts_compile_whole(case, groups):
    torch._dynamo.reset()
    mine = _pair(case, torch.float32)[0]
    index, ptr = _groups()
    options = {"index": index, "dim_size": GROUPS} if groups == "index" else {"ptr": ptr}
    x = torch.randn(M, F_IN)
    compiled = torch.compile(mine, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, **options), mine(x, **options))


def test_sizes_of_groups():
    index, ptr = _groups()
    x = torch.randn(M, F_IN)
    counts = torch.bincount(index, minlength=GROUPS)
    for rows in (Scattered(x, index, GROUPS), Segments(x, ptr)):
        assert torch.equal(rows.degree(), counts)
        assert torch.equal(rows.on_graph().degree().long(), counts)
        torch.testing.assert_close(rows.on_graph().made(), x)


def test_foreign_aggregations_are_called_as_pyg_calls_them():
    pyg = pytest.importorskip("torch_geometric.nn")
    edges = torch.tensor([[0, 1, 2, 2], [1, 1, 0, 1]])
    x = torch.randn(4, F_IN)
    foreign = ours.SAGEConv(F_IN, 3, aggr=pyg.aggr.MedianAggregation())
    theirs = pyg.SAGEConv(F_IN, 3, aggr="median")
    theirs.load_state_dict(foreign.state_dict())
    torch.testing.assert_close(foreign(x, edges), theirs(x, edges))


def test_bad_arguments():
    x, index = torch.randn(M, F_IN), _groups()[0]
    with pytest.raises(ValueError, match="SumAggregation: dim must be in"):
        ours.SumAggregation()(x, index, dim=2)
    with pytest.raises(ValueError, match="SumAggregation: dim_size must be 2 as in ptr, got 3"):
        ours.SumAggregation()(x, ptr=torch.tensor([0, 3, M]), dim_size=3)
    with pytest.raises(ValueError, match="index must be in"):
        ours.SumAggregation()(x, index + 9, dim_size=GROUPS)
    with pytest.raises(NotImplementedError, match="Aggregation: a subclass must define aggregate"):
        ours.Aggregation()(x, index)
    with pytest.raises(ValueError, match="SoftmaxAggregation: semi_grad=True needs learn=False"):
        ours.SoftmaxAggregation(learn=True, semi_grad=True)
    with pytest.raises(ValueError, match="SoftmaxAggregation: channels=2 needs learn=True"):
        ours.SoftmaxAggregation(channels=2)
    with pytest.raises(ValueError, match="LSTMAggregation: in_channels must be >= 1, got -1"):
        ours.LSTMAggregation(-1, 3)
    with pytest.raises(ValueError, match="MultiAggregation: aggrs must be a list"):
        ours.MultiAggregation([])
    with pytest.raises(ValueError, match="aggrs_kwargs must have 2 entries as aggrs, got 1"):
        ours.MultiAggregation(["sum", "max"], [{}])
    with pytest.raises(ValueError, match="MultiAggregation: mode must be one of .* got 'attn'"):
        ours.MultiAggregation(["sum", "max"], mode="attn")
    with pytest.raises(ValueError, match="mode='proj' needs several aggrs, and mode_kwargs"):
        ours.MultiAggregation(["sum", "max"], mode="proj")
    with pytest.raises(ValueError, match="scaler must be one or more of .* got 'log'"):
        ours.DegreeScalerAggregation("sum", "log", HISTOGRAM)
    with pytest.raises(ValueError, match="deg must be a histogram"):
        ours.DegreeScalerAggregation("sum", "linear", torch.zeros(3))
