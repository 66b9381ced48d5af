"""cuSPARSE as a peer, on a stand-in for the library."""

import pytest
import torch
from helpers.fake_cusparse import FakeCusparse

from gnnkern.bench import cusparse, peer_cusparse
from gnnkern.bench.cusparse import ALGORITHMS, CusparseError, Product, fastest
from gnnkern.bench.graphs import bench_graph
from gnnkern.bench.harness import bind, check
from gnnkern.bench.problems import make_problem


class HostClock:
    def __init__(self, device):
        pass

    def seconds_of(self, run):
        run()
        return 1.0


@pytest.fixture
def library(monkeypatch):
    fake = FakeCusparse(refuses=(ALGORITHMS["CSR_ALG1"],))
    monkeypatch.setattr(cusparse, "load", lambda: fake)
    monkeypatch.setattr(peer_cusparse, "DeviceClock", HostClock)
    return fake


@pytest.mark.parametrize("graph", ["tiny", "tiny_unsorted"])
@pytest.mark.parametrize("kind", ["spmm_sum", "spmm_weighted"])
def test_values_and_gradients(library, kind, graph):
    problem = make_problem(kind, bench_graph(graph), 4)
    runner = peer_cusparse.spmm(problem)
    for direction in list(problem.directions)[:2]:
        check(problem, runner, bind(problem, runner, direction))
    before = len(library.calls)
    bind(problem, runner, "forward").run()
    # Nothing is prepared in a call: the addresses change, and the product is made.
    assert library.calls[before:] == 2 * ["cusparseDnMatSetValues"] + ["cusparseSpMM"]


def test_the_gradient_of_a_weight_is_not_offered(library):
    problem = make_problem("spmm_weighted", bench_graph("tiny"), 4)
    runner = peer_cusparse.spmm(problem)
    both = bind(problem, runner, "forward + backward of x and weight")
    with pytest.raises(NotImplementedError, match="no gradient"):
        both.run()


def test_the_fastest_algorithm_that_takes_the_product_is_kept():
    graph = bench_graph("tiny").graph
    values = torch.ones(graph.num_edges)
    library = FakeCusparse(refuses=(4,))
    seconds = {4: 0.1, 6: 3.0, 12: 2.0}
    made = []

    def make(algorithm):
        product = Product(graph.indptr, graph.indices, values, 200, 4, algorithm, library)
        made.append(algorithm)
        return product

    def seconds_of(run):
        run()
        return seconds[made[-1]]

    product = fastest(make, torch.ones(200, 4), seconds_of)
    assert product._arguments[-1] == 12
    with pytest.raises(CusparseError, match="algorithm 4: cusparseSpMM_bufferSize returned status"):
        fastest(make, torch.ones(200, 4), seconds_of, [4])


def test_what_the_library_made_is_freed():
    graph = bench_graph("tiny").graph
    library = FakeCusparse()
    values = torch.ones(graph.num_edges)
    Product(graph.indptr, graph.indices, values, 200, 4, 6, library)
    assert [name for name in library.calls if "Destroy" in name] == [
        "cusparseDestroyDnMat",
        "cusparseDestroyDnMat",
        "cusparseDestroySpMat",
        "cusparseDestroy",
    ]


def test_a_library_that_is_nowhere_is_named(monkeypatch):
    monkeypatch.setattr(cusparse, "_names", lambda: iter(["libnowhere.so"]))
    cusparse.load.cache_clear()
    with pytest.raises(OSError, match="libcusparse is neither loaded with torch nor installed"):
        cusparse.load()
    cusparse.load.cache_clear()
