"""The peers' adapters give the reference's values; DGL's run on a stand-in for its interface."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from gnnkern import Graph
from gnnkern.bench import peers
from gnnkern.bench.graphs import bench_graph
from gnnkern.bench.harness import bind, check, contenders
from gnnkern.bench.problems import KINDS, make_problem
from gnnkern.reference.edge_softmax import edge_softmax_reference
from gnnkern.reference.gather_matmul import gather_matmul_reference
from gnnkern.reference.scatter_reduce import scatter_reduce_reference
from gnnkern.reference.segment_matmul import segment_matmul_reference


@pytest.mark.parametrize("package", ["torch_sparse", "dgl"])
@pytest.mark.parametrize("graph", ["tiny", "tiny_unsorted"])
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients(package, graph, kind, request):
    if package == "dgl":
        request.getfixturevalue("dgl_stand_in")
    elif peers.absent(package):
        pytest.skip(peers.absent(package))
    problem = make_problem(kind, bench_graph(graph), 4)
    _, *others = contenders(problem.op, problem.reduce, packages=[package])
    for contender in others:
        runner = contender.build(problem)
        for direction in problem.directions:
            check(problem, runner, bind(problem, runner, direction))


def test_a_package_that_does_not_import_is_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "dgl", None)
    peers.absent.cache_clear()
    try:
        assert peers.absent("dgl").startswith("dgl is absent: ModuleNotFoundError: ")
        problem = make_problem("spmm_sum", bench_graph("tiny"), 4)
        everybody = contenders("spmm", "sum", packages=["dgl"])
        assert [contender.name for contender in everybody] == ["gnnkern", "dgl"]
        assert "dgl is absent" in everybody[1].obstacle(problem, "forward", float("inf"))
    finally:
        peers.absent.cache_clear()


# -- what the DGL adapters call, by its documentation ----------------------------------------------


@pytest.fixture
def dgl_stand_in(monkeypatch):
    modules = {name: ModuleType(name) for name in ("dgl", "dgl.nn", "dgl.nn.pytorch")}
    modules["dgl"].graph = _graph
    modules["dgl"].ops = SimpleNamespace(
        gspmm=_gspmm,
        gsddmm=_gsddmm,
        edge_softmax=_edge_softmax,
        segment_reduce=_segment_reduce,
        segment_mm=_segment_mm,
        gather_mm=_gather_mm,
    )
    modules["dgl.nn.pytorch"].GATConv = _GATConv
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "gnnkern.bench.peer_dgl", raising=False)
    peers.absent.cache_clear()
    yield
    sys.modules.pop("gnnkern.bench.peer_dgl", None)
    peers.absent.cache_clear()


def _graph(ends, *, num_nodes):
    src, dst = ends
    return SimpleNamespace(src=src, dst=dst, nodes=num_nodes, create_formats_=lambda: None)


def _gspmm(graph, op, reduce_op, lhs_data, rhs_data):
    if op == "copy_rhs":
        assert lhs_data is None
        message = rhs_data
    elif op == "copy_lhs":
        assert rhs_data is None
        message = lhs_data[graph.src]
    else:
        message = {"mul": torch.mul, "add": torch.add}[op](lhs_data[graph.src], rhs_data)
    return scatter_reduce_reference(message, graph.dst, graph.nodes, reduce_op)


def _gsddmm(graph, op, lhs_data, rhs_data):
    lhs, rhs = lhs_data[graph.src], rhs_data[graph.dst]
    return {"dot": lambda: (lhs * rhs).sum(-1, keepdim=True), "add": lambda: lhs + rhs}[op]()


def _edge_softmax(graph, logits):
    edges = Graph.from_edge_index(torch.stack([graph.src, graph.dst]), graph.nodes)
    return edge_softmax_reference(edges, logits)


def _segment_reduce(seglen, value, reducer="sum"):
    segment = torch.repeat_interleave(torch.arange(len(seglen)), seglen)
    return scatter_reduce_reference(value, segment, len(seglen), reducer)


def _segment_mm(a, b, seglen_a):
    return segment_matmul_reference(a, F.pad(seglen_a.cumsum(0), (1, 0)), b)


def _gather_mm(a, b, *, idx_b):
    return gather_matmul_reference(a, b, idx_b)


class _GATConv(torch.nn.Module):
    def __init__(self, in_feats, out_feats, num_heads, *, negative_slope):
        super().__init__()
        self.heads, self.slope = num_heads, negative_slope
        self.fc = torch.nn.Linear(in_feats, out_feats * num_heads, bias=False)
        self.attn_l = torch.nn.Parameter(torch.empty(1, num_heads, out_feats))
        self.attn_r = torch.nn.Parameter(torch.empty(1, num_heads, out_feats))
        self.bias = torch.nn.Parameter(torch.empty(num_heads * out_feats))

    def forward(self, graph, feat):
        h = self.fc(feat).view(len(feat), self.heads, -1)  # [N, H, D]
        score = _gsddmm(graph, "add", (h * self.attn_l).sum(-1), (h * self.attn_r).sum(-1))
        alpha = _edge_softmax(graph, F.leaky_relu(score, self.slope))
        out = _gspmm(graph, "mul", "sum", h, alpha[:, :, None])
        return out + self.bias.view(1, self.heads, -1)
