"""Words of the command line: ops, graphs, widths, dtypes, peers."""

import numpy as np
import pytest

from gnnkern.bench.graphs import AS_IT_COMES, SORTED, bench_graph
from gnnkern.bench.problems import KINDS, make_problem
from gnnkern.bench.specs import Plan, parse_counts, parse_dtypes, parse_ops, parse_peers


def test_ops_by_name_by_first_words_and_all():
    assert parse_ops(["sddmm_dot"]) == ["sddmm_dot"]
    assert parse_ops(["spmm"]) == [op for op in KINDS if op.startswith("spmm_")]
    assert parse_ops(["spmm_max", "spmm"])[0] == "spmm_max"
    assert parse_ops(["edge_softmax", "edge_softmax"]) == ["edge_softmax"]
    assert parse_ops(["all"]) == list(KINDS)


@pytest.mark.parametrize(
    ("parse", "message"),
    [
        (lambda: parse_ops(["spm"]), "bench: op must be some of .*spmm_sum.* or all, got 'spm'"),
        (lambda: parse_counts("width", "16,x"), "bench: width must be positive numbers .*'16,x'"),
        (lambda: parse_counts("heads", "0"), "bench: heads must be positive numbers"),
        (lambda: parse_dtypes("float8"), "bench: dtype must be some of float32, .*'float8'"),
        (lambda: parse_peers("numpy"), "bench: peer must be some of torch, pyg, .*'numpy'"),
    ],
)
def test_what_names_nothing_is_refused(parse, message):
    with pytest.raises(ValueError, match=message):
        parse()


def test_lists():
    assert parse_counts("width", "16,64,16") == [16, 64]
    assert parse_dtypes("bfloat16,float32") == ["bfloat16", "float32"]
    assert parse_peers("pyg,dgl") == ["torch_geometric", "dgl"]
    assert parse_peers("none") == []


def test_cells_go_graph_by_graph_and_heads_stand_for_widths():
    plan = Plan(["spmm_sum", "edge_softmax"], ["a", "b"], widths=[8], heads=[1, 4])
    cells = [(cell.graph, cell.op, cell.width) for cell in plan.cells()]
    per_graph = [("spmm_sum", 8), ("edge_softmax", 1), ("edge_softmax", 4)]
    assert cells == [(graph, *cell) for graph in ("a", "b") for cell in per_graph]


@pytest.mark.parametrize(
    ("spec", "nodes", "edges", "order"),
    [
        ("tiny", 200, 1500, SORTED),
        ("powerlaw:200,1_500,50", 200, 1500, SORTED),
        ("uniform:30,100", 30, 100, AS_IT_COMES),
        ("rmat:30,100", 30, 100, AS_IT_COMES),
        ("grid:3,4", 12, 34, SORTED),
        ("star:9", 10, 9, SORTED),
    ],
)
def test_graphs_by_description(spec, nodes, edges, order):
    graph = bench_graph(spec)
    assert (graph.name, graph.num_nodes, graph.num_edges) == (spec, nodes, edges)
    assert graph.order == order
    assert graph.facts["num_edges"] == edges


def test_a_file_is_called_by_its_stem_and_has_both_directions(tmp_path):
    path = tmp_path / "little.npz"
    np.savez(path, edges=np.array([[0, 1], [1, 2]]), node_labels=np.array([0, 1, 0]))
    graph = bench_graph(str(path))
    assert (graph.name, graph.num_nodes, graph.num_edges) == ("little", 3, 4)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("nowhere.npz", FileNotFoundError, "bench: no graph 'nowhere.npz': not one of tiny"),
        ("powerlaw:5", ValueError, "should read 'powerlaw:nodes,edges,max_degree"),
        ("uniform:5,x", ValueError, "should read 'uniform:nodes,edges'"),
    ],
)
def test_no_such_graph(spec, error, message):
    with pytest.raises(error, match=message):
        bench_graph(spec)


def test_width_must_be_shared_by_the_heads():
    with pytest.raises(ValueError, match="gat_layer: width must be a multiple of its 4 heads"):
        make_problem("gat_layer", bench_graph("tiny"), 6)
