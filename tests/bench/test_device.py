"""What a GPU changes about a run: its peers, its graphs, its memory."""

from dataclasses import replace

import pytest
import torch

from gnnkern.bench import device_graphs, peers
from gnnkern.bench import run as run_module
from gnnkern.bench.graphs import RECIPES, bench_graph
from gnnkern.bench.harness import WrongResult, available_memory, bind, check, contenders
from gnnkern.bench.problems import make_problem
from gnnkern.bench.specs import Plan, parse_device, parse_peers
from gnnkern.data import power_law


def names(op, reduce, device_type):
    return [peer.name for peer in peers.peers(op, reduce, device_type)]


def test_a_gpu_has_peers_of_its_own():
    on_cpu, on_gpu = names("spmm", "sum", "cpu"), names("spmm", "sum", "cuda")
    assert set(on_gpu) - set(on_cpu) == {"cusparse", "torch compiled", "pyg compiled"}
    assert set(on_cpu) - set(on_gpu) == {"torch csr reduce"}
    assert "cusparse" not in names("spmm", "max", "cuda")
    for op in ("edge_softmax", "gat_layer", "gatv2_layer", "dot_attention", "multi_reduce"):
        assert "pyg compiled" in names(op, "", "cuda")


def test_the_layers_are_compiled_with_and_without_their_loops():
    assert [peer.name for peer in peers.COMPILED["gat_layer"]] == [
        "pyg compiled",
        "pyg loops ready compiled",
    ]
    for op, compiled in peers.COMPILED.items():
        of_op = [peer.name for peer in compiled]
        assert of_op and len(set(of_op)) == len(of_op), op


def test_an_absent_library_is_listed(monkeypatch):
    peers.absent.cache_clear()
    monkeypatch.setattr(peers.cusparse, "_names", lambda: iter([]))
    peers.cusparse.load.cache_clear()
    try:
        assert "cusparse" not in peers.versions()
        assert peers.versions("cuda")["cusparse"].startswith("cusparse is absent: OSError: ")
    finally:
        peers.absent.cache_clear()
        peers.cusparse.load.cache_clear()


def test_peers_are_chosen_by_group():
    groups = parse_peers("torch-compiled,pyg-compiled,cusparse")
    assert groups == ["torch compiled", "torch_geometric compiled", "cusparse"]
    everybody = contenders("spmm", "sum", packages=groups, device_type="cuda", backend="triton")
    assert [c.name for c in everybody] == ["gnnkern", "cusparse", "torch compiled", "pyg compiled"]


@pytest.fixture
def compiled_calls(monkeypatch):
    """The calls that torch.compile has compiled, without the time that its code generator takes."""
    compile_, calls = torch.compile, []

    def backend(graph, inputs):
        return lambda *arguments: (calls.append(graph), graph(*arguments))[1]

    monkeypatch.setattr(torch, "compile", lambda call, **o: compile_(call, backend=backend, **o))
    torch.compiler.reset()
    return calls


@pytest.mark.parametrize("package", ["torch", "torch_geometric"])
def test_a_compiled_peer_is_compiled_and_gives_the_same(compiled_calls, package):
    if peers.absent(package):
        pytest.skip(peers.absent(package))
    problem = make_problem("edge_softmax", bench_graph("tiny"), 2)
    (peer,) = (p for p in peers.COMPILED["edge_softmax"] if p.package == package)
    runner = peer.build(problem)
    assert runner.inputs is problem.inputs
    for direction in problem.directions:
        timed = bind(problem, runner, direction)
        check(problem, runner, timed)
        before = len(compiled_calls)
        timed.run()
        assert len(compiled_calls) > before


def test_what_torch_does_not_compile_is_no_compiled_peer(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda call, **options: call)
    problem = make_problem("edge_softmax", bench_graph("tiny"), 2)
    runner = peers.COMPILED["edge_softmax"][0].build(problem)
    with pytest.raises(WrongResult, match="compiled nothing"):
        check(problem, runner, bind(problem, runner, "forward"))


def test_power_law_graphs_are_drawn_on_the_device():
    drawn = device_graphs._power_law(2000, 30_000, 700, torch.device("cpu"))
    like = power_law(2000, 30_000, 700)
    for a, b in zip(drawn.edge_index, like.edge_index, strict=True):
        degree_a, degree_b = (torch.bincount(ends, minlength=2000) for ends in (a, b))
        assert degree_a.sum() == 30_000
        # As skewed: the hundred largest of both take the same part.
        top_a, top_b = (degree.topk(100).values.sum() for degree in (degree_a, degree_b))
        assert abs(int(top_a) - int(top_b)) < 0.03 * int(top_b)
    assert int(torch.bincount(drawn.edge_index[1]).max()) == 700


def test_a_hub_and_its_even_twin_are_as_large():
    hub, even = bench_graph("tiny_hub"), bench_graph("tiny_even")
    assert (hub.num_nodes, hub.num_edges) == (even.num_nodes, even.num_edges)
    assert (hub.graph.max_degree, even.graph.max_degree) == (300, 20)
    numbers = [RECIPES[name].source.partition(":")[2].split(",") for name in ("hub", "hub_even")]
    assert numbers[0][:2] == numbers[1][:2] and numbers[0][2] == "228_990"


def test_devices_by_name():
    assert parse_device("cpu") == "cpu"
    assert Plan(device="cuda:0").is_cuda and not Plan().is_cuda
    assert available_memory("cpu") > 0
    with pytest.raises(ValueError, match="bench: device must be a CPU or a CUDA device"):
        parse_device("abacus")
    with pytest.raises(ValueError, match="is not there"):
        parse_device("cuda:63")


def test_a_run_on_a_gpu_is_timed_by_the_clock_of_the_gpu(monkeypatch):
    class Clock:
        def peak_bytes(self, call):
            call()
            return 5_000_000, 1e-3

        def calls_for(self, call, seconds):
            return 1, seconds

        def seconds_of(self, call, calls=1):
            call()
            return 1e-3

    chosen = []
    monkeypatch.setattr(Plan, "is_cuda", True)
    monkeypatch.setattr(run_module, "DeviceClock", lambda device: Clock())
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    plan = Plan(ops=("spmm_sum",), graphs=("tiny",), widths=(4,), packages=("torch", "cusparse"))
    report = run_module.run(replace(plan, commit="of a copy"), "command", progress=False)
    assert chosen == ["cpu"] and report["commit"] == "of a copy"
    assert "cusparse" in report["versions"] and any("CUDA events" in h for h in report["header"])
    for row in report["cells"]:
        for result in row["results"].values():
            told = (result["median_ms"], result["rounds"], result["calls"], result["peak_mb"])
            assert told == (1.0, 30, 1, 5.0)
