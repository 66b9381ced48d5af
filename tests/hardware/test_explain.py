"""What `explain` says, and that it runs nothing."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import gnnkern
from gnnkern import Graph, explain, hardware, ops


def graph(shuffled=False):
    generator = torch.Generator().manual_seed(0)
    dst = torch.randint(50, (400,), generator=generator)
    dst = dst if shuffled else dst.sort().values
    return Graph.from_edge_index(torch.stack((torch.randint(60, (400,)), dst)), (60, 50))


def arguments(g):
    """The arguments of every op, by its name."""
    rows = torch.randn(400, 8)
    indptr = g.indptr.long()
    return {
        "dot_attention": (g, torch.randn(50, 2, 4), torch.randn(60, 2, 4), torch.randn(60, 2, 4)),
        "edge_softmax": (g, torch.randn(400, 2)),
        "gat_attention": (g, torch.randn(60, 2, 4), torch.randn(60, 2), torch.randn(50, 2)),
        "gather_matmul": (rows, torch.randn(3, 8, 5), torch.randint(3, (400,))),
        "gatv2_attention": (g, torch.randn(60, 2, 4), torch.randn(50, 2, 4), torch.randn(2, 4)),
        "multi_reduce": (g, torch.randn(60, 8)),
        "scatter_logsumexp": (rows, torch.randint(50, (400,))),
        "scatter_reduce": (rows, torch.randint(50, (400,))),
        "scatter_std": (rows, torch.randint(50, (400,))),
        "sddmm": (g, torch.randn(50, 8), torch.randn(60, 8)),
        "segment_gather": (torch.randn(50, 8), indptr),
        "segment_logsumexp": (rows, indptr),
        "segment_matmul": (rows, torch.tensor([0, 100, 400]), torch.randn(2, 8, 5)),
        "segment_reduce": (rows, indptr),
        "segment_softmax": (rows, indptr),
        "spmm": (g, torch.randn(60, 8)),
    }


class _NoKernels(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.namespace != "gnnkern", f"{func} ran"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("op", ops.__all__)
@pytest.mark.parametrize("gradients", [False, True])
def test_every_op_takes_its_own_arguments(op, gradients, machine):
    given = arguments(graph())[op]
    if gradients:
        given = [
            t.requires_grad_() if isinstance(t, torch.Tensor) and t.is_floating_point() else t
            for t in given
        ]
    with _NoKernels():
        explanation = explain(op, *given, machine=machine)
    assert explanation.backend == "cpu"
    assert set(explanation.against) == {"reference", "triton", "cuda"}
    assert set(explanation.predicted_s) == {"cpu", "reference"}
    assert bool(explanation.call["backward"]) == gradients
    text = str(explanation)
    assert text.startswith(f"{op} runs on cpu: ")
    for word in ("not on reference: it can run", "bytes: ", "time: at least ", "predicted cpu "):
        assert word in text
    # The arguments are those of the op: it runs on them.
    getattr(gnnkern, op)(*given)


def test_what_it_says_of_a_call(machine):
    g = graph(shuffled=True)
    x = torch.randn(60, 64, requires_grad=True)
    explanation = explain("spmm", g, x, torch.randn(400), reduce="mean", machine=machine)
    text = str(explanation)
    for line in (
        "call: forward and the gradients of x; float32, width 64",
        "edges: 400 from 60 to 50 nodes, at most ",
        "the caller's order is not that of the destinations",
        "plan: 2 items of up to 2,048 edges",
        "in 2 gathers",
        "rows are read, 256 B each; fits into L1d; such rows come at 80.0 GB/s",
        "would help: g.prepare() now, or the first gradient sorts the reversed graph",
        "would help: edges listed by destination",
        "would help: several small graphs in one",
    ):
        assert line in text
    assert g._reverse is None
    assert "g.prepare()" not in str(explain("spmm", g.prepare(), x, machine=machine))


def test_large_tables_and_copied_rows(machine):
    g = Graph.from_edge_index(torch.randint(100_000, (2, 400_000)), 100_000)
    x = torch.randn(64, 100_000).t()
    text = str(explain("spmm", g, x, machine=machine))
    for line in (
        "fits into no cache",
        "would help: contiguous x: every call copies what is not",
        "would help: bfloat16: ",
        "would help: numbering the nodes so that neighbours lie close",
    ):
        assert line in text


def test_long_rows_are_told(machine):
    g = Graph.from_edge_index(torch.zeros(2, 5000, dtype=torch.int64), 1)
    text = str(explain("spmm", g, torch.randn(1, 8), machine=machine))
    assert "1 longer rows are cut into 3 chunks" in text


def test_scatter_sorts_at_every_call(machine):
    given = (torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0]))
    explanation = explain("scatter_reduce", *given, machine=machine)
    assert explanation.edges.num_dst == 3
    assert "every call sorts it" in str(explanation)


def test_the_backend_asked_for():
    g, x = graph(), torch.randn(60, 8)
    assert explain("spmm", g, x, backend="reference").backend == "reference"
    with gnnkern.use_backend("reference"):
        explanation = explain("spmm", g, x)
    assert explanation.backend == "reference"
    assert explanation.against["cpu"] == ["it can run, but another is asked for"]
    nowhere = explain("spmm", g, x, backend="cuda")
    assert nowhere.backend is None
    assert nowhere.against["cuda"][0] == "it runs on CUDA tensors, got cpu"
    assert "runs nowhere: backend= asks for cuda, which cannot run it" in str(nowhere)


def test_autocast_counts():
    g, x = graph(), torch.randn(60, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert explain("spmm", g, x).call["dtype"] == torch.bfloat16
        assert explain("edge_softmax", g, torch.randn(400)).call["dtype"] == torch.float32
        assert explain("spmm", g, x.double()).call["dtype"] == torch.float64


@pytest.mark.parametrize("op", ops.__all__)
def test_autocast_counts_for_every_op(op):
    given = arguments(graph())[op]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = getattr(gnnkern, op)(*given)
        assert explain(op, *given).call["dtype"] == out.dtype


def test_without_a_probe_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(hardware, "_measure", lambda *given: pytest.fail("measured"))
    explanation = explain("spmm", graph(), torch.randn(60, 8))
    assert explanation.machine is None and explanation.times is None
    assert "time: unknown: `gnnkern probe`" in str(explanation)


def test_the_kept_probe_is_used(tiny, monkeypatch, machine):
    monkeypatch.setattr(hardware, "_measure", lambda *given: machine)
    hardware.probe()
    assert explain("spmm", graph(), torch.randn(60, 8)).machine == machine


def test_sddmm_keeps_its_own_op(machine):
    given = arguments(graph())["sddmm"]
    dot, add = (explain("sddmm", *given, op=op, machine=machine).cost for op in ("dot", "add"))
    assert add.compulsory_bytes - dot.compulsory_bytes == 400 * 4 * 7


def test_rows_on_edges(machine):
    g = graph()
    x, rows = torch.randn(60, 8), torch.randn(400, 8)
    bare, row, column, alone = (
        explain("spmm", g, *given, op="add", reduce="max", machine=machine)
        for given in ((x,), (x, rows), (x, rows[:, :1]), (None, rows))
    )
    assert row.cost.compulsory_bytes - bare.cost.compulsory_bytes == 400 * 8 * 4
    assert column.cost.compulsory_bytes - bare.cost.compulsory_bytes == 400 * 4
    assert alone.cost.gathers == () and alone.call["width"] == 8
    assert alone.cost.compulsory_bytes > 400 * 8 * 4
    ends = explain("sddmm", g, rows, x, targets=("edge", "src"), machine=machine)
    assert ends.cost.compulsory_bytes > 400 * 8 * 4
    copied = explain("sddmm", g, None, x, op="copy_rhs", machine=machine)
    assert copied.call["width"] == 8
    copied = explain("sddmm", g, torch.randn(3), x, op="copy_rhs", machine=machine)
    assert copied.call["width"] == 8
    heads, column = torch.randn(50, 2, 3, 4), torch.randn(60, 4)
    call = explain("sddmm", g, heads, column, machine=machine).call
    assert (call["width"], call["heads"]) == (24, 6)
    call = explain("sddmm", g, heads, column[:, :1], op="mul", machine=machine).call
    assert call["width"] == 24
    with pytest.raises(ValueError, match="sddmm: rows of shapes .* do not broadcast"):
        explain("sddmm", g, heads, torch.randn(60, 3), op="mul")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: explain("spnm"), ValueError, "explain: op must be one of .*spmm.*, got 'spnm'"),
        (lambda: explain("spmm"), TypeError, "explain: spmm: missing a required argument: 'g'"),
        (lambda: explain("spmm", graph()), TypeError, "missing a required argument: 'x'"),
        (
            lambda: explain("spmm", graph(), torch.ones(60, 1), rate=3),
            TypeError,
            "explain: spmm: got an unexpected keyword argument 'rate'",
        ),
        (lambda: explain("spmm", 3, 4), TypeError, "spmm: g must be a gnnkern.Graph, got int"),
        (lambda: explain("spmm", graph(), 4), TypeError, "spmm: x must be a tensor, got int"),
        (
            lambda: explain("spmm", graph(), torch.ones(50, 3)),
            ValueError,
            r"spmm: x must have shape \[num_src=60, ...\], got \[50, 3\]",
        ),
        (
            lambda: explain("segment_reduce", torch.ones(5), [0, 5]),
            TypeError,
            "segment_reduce: indptr must be a tensor, got list",
        ),
        (
            lambda: explain("spmm", graph(), torch.ones(60, 3), backend="toaster"),
            ValueError,
            "spmm: backend must be one of .*, got 'toaster'",
        ),
    ],
)
def test_rejects(call, error, message):
    with pytest.raises(error, match=message):
        call()
