"""Partitions: every method gives parts that are even and cut little, and a true report."""

import pytest
import torch
from helpers.graphs import EDGE_LISTS
from rank_checks import NAMES, whole_graph

import gnnkern
from gnnkern.data import grid, power_law
from gnnkern.distributed import Hierarchy, methods, partition
from gnnkern.distributed.adjacency import edge_blocks, is_symmetric, simple_adjacency

each_method = pytest.mark.parametrize("method", ["metis", "kaminpar", "fennel", "random"])


@pytest.fixture(scope="module")
def communities():
    """A graph of which METIS cuts a fifth in eight parts; random parts cut seven eighths."""
    return power_law(4000, 40000, 200, 0.8, num_communities=40, shuffle=True).graph()


@each_method
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("parts", [1, 3, 40])
def test_every_node_has_a_part(method, name, parts):
    graph = whole_graph(name)
    made = partition(graph, parts, method)
    assert made.part.shape == (graph.num_dst,) and made.part.dtype == torch.int64
    assert bool(((made.part >= 0) & (made.part < parts)).all())
    assert torch.equal(made.part, partition(graph, parts, method).part)


@each_method
@pytest.mark.parametrize("graph_of", ["communities", "grid"])
def test_parts_are_even_and_cut_little(method, graph_of, communities):
    graph = communities if graph_of == "communities" else grid(60, 60).graph()
    most = {"communities": 0.3, "grid": 0.09}[graph_of] if method != "random" else 0.9
    quality = partition(graph, 8, method).quality
    assert quality.cut < most
    assert quality.balance("nodes") < 1.04


def test_fennel_is_near_metis(communities):
    cuts = {name: partition(communities, 8, name).quality.cut for name in ("metis", "fennel")}
    assert cuts["fennel"] < 1.4 * cuts["metis"]


@pytest.mark.parametrize("method", ["metis", "kaminpar", "fennel"])
@pytest.mark.parametrize("balance", ["edges", "nodes+edges", "training"])
def test_balance(method, balance, communities):
    # Nodes of low numbers are those that are trained on: nothing else would make them even.
    mask = torch.arange(communities.num_dst) < 1000
    made = partition(communities, 4, method, balance=balance, train_mask=mask)
    kinds = {"edges": ["edges"], "nodes+edges": ["nodes", "edges"], "training": ["training"]}
    for kind in kinds[balance]:
        assert made.quality.balance(kind) < 1.3, made.quality
    by_tensor = torch.where(mask, 5.0, 1.0)
    made = partition(communities, 4, method, balance=by_tensor)
    loads = torch.zeros(4).index_add(0, made.part, by_tensor)
    assert float(loads.max() / loads.mean()) < 1.1


def test_a_hierarchy_spares_the_network():
    graph = grid(40, 40).graph()
    # The same parts with no thought of hosts: METIS numbers those that are near one another alike.
    dealt = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])[partition(graph, 8, "metis").part]
    flat = partition(graph, 8, dealt, hierarchy=(4, 2)).quality.cut_edges
    made = partition(graph, 8, "metis", hierarchy=(4, 2))
    assert made.hierarchy == Hierarchy(4, 2)
    assert made.quality.cut_edges["network"] < flat["network"]
    # One edge in all of the parts of a device: nobody shares one here.
    assert made.quality.cut_edges["device"] == 0


@pytest.mark.parametrize("hierarchy", [(1, 4), (2, 2), (2, 1, 2), (1, 1, 4)])
def test_levels_and_the_report_by_counting(hierarchy):
    graph = whole_graph("communities")
    made = partition(graph, 4, "random", hierarchy=hierarchy, seed=3)
    src, dst = graph.edge_index.tolist()
    part = made.part.tolist()
    hosts, devices, ranks = (*hierarchy, 1)[:3]

    def link(one, other):
        if one // ranks == other // ranks:
            return "device"
        return "host" if one // (ranks * devices) == other // (ranks * devices) else "network"

    cut = [(u, v) for u, v in zip(src, dst, strict=True) if part[u] != part[v]]
    ghosts = {(u, part[v]) for u, v in cut}
    for level in ("device", "host", "network"):
        edges = sum(link(part[u], part[v]) == level for u, v in cut)
        rows = sum(link(part[u], receiver) == level for u, receiver in ghosts)
        assert made.quality.cut_edges[level] == edges
        assert made.quality.ghosts[level] == rows
    for rank in range(4):
        assert made.quality.nodes[rank] == part.count(rank)
        assert made.quality.edges[rank] == sum(part[v] == rank for v in dst)
        assert made.quality.part_ghosts[rank] == sum(r == rank for _, r in ghosts)
    assert made.quality.cut == len(cut) / len(src)


def test_the_fingerprint_is_of_parts_and_hierarchy():
    graph = whole_graph("communities")
    first = partition(graph, 4, "random")
    assert first.fingerprint == partition(graph, 4, first.part).fingerprint
    assert first.fingerprint != partition(graph, 4, "random", seed=1).fingerprint
    assert first.fingerprint != partition(graph, 4, first.part, hierarchy=(2, 2)).fingerprint


@pytest.mark.parametrize("block", [1, 7, 10**6])
def test_blocks_are_all_edges_once(block):
    graph = whole_graph("long_rows" if "long_rows" in NAMES else "communities")
    blocks = list(edge_blocks(graph, block))
    src, dst = torch.cat([src for src, _ in blocks]), torch.cat([dst for _, dst in blocks])
    assert torch.equal(src, graph.indices.long())
    assert torch.equal(torch.bincount(dst, minlength=graph.num_dst), graph.in_degree.long())


@pytest.mark.parametrize("name", NAMES)
def test_neighbours_are_simple_and_mutual(name):
    graph = whole_graph(name)
    adjacency = simple_adjacency(graph)
    edges = set()
    for node in range(graph.num_dst):
        row = adjacency.indices[adjacency.indptr[node] : adjacency.indptr[node + 1]].tolist()
        assert len(set(row)) == len(row) and node not in row
        edges |= {(node, other) for other in row}
    assert edges == {(v, u) for u, v in edges}
    assert edges == {
        pair
        for u, v in zip(*graph.edge_index.tolist(), strict=True)
        if u != v
        for pair in ((u, v), (v, u))
    }


@pytest.mark.parametrize("name", NAMES)
def test_symmetry_is_seen(name):
    graph = whole_graph(name)
    src, dst = graph.edge_index.tolist()
    pairs = [(u, v) for u, v in zip(src, dst, strict=True) if u != v]
    assert is_symmetric(graph) == (sorted(pairs) == sorted((v, u) for u, v in pairs))


def test_metis_refuses_more_than_it_can_count(monkeypatch):
    graph = whole_graph("undirected")
    monkeypatch.setattr(methods, "_METIS_MOST", len(simple_adjacency(graph).indices))
    with pytest.raises(ValueError, match=r"fewer than 2\^31 .* use method 'kaminpar' or 'fennel'"):
        partition(graph, 2, "metis")


@pytest.mark.parametrize(("method", "module"), [("metis", "pymetis"), ("kaminpar", "kaminpar")])
def test_a_missing_package_is_named(method, module, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ImportError, match=f"method '{method}' needs {module}: pip install"):
        partition(whole_graph("chain"), 2, method)


GRAPH = whole_graph("chain")
N = GRAPH.num_dst


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("graph", 2), {}, "graph must be a gnnkern.Graph, got str"),
        ((GRAPH, 2.0), {}, "parts must be an int, got float"),
        ((GRAPH, 0), {}, "parts must be >= 1, got 0"),
        ((GRAPH, 2, "scotch"), {}, "method must be one of metis, .* got 'scotch'"),
        ((GRAPH, 2, torch.zeros(N + 1, dtype=torch.int64)), {}, r"shape \[N=\d+\], got"),
        ((GRAPH, 2, torch.zeros(N)), {}, "parts must be integers, got torch.float32"),
        ((GRAPH, 2, [2] * N), {}, r"node 0 is in part 2, expected one of \[0, 2\)"),
        ((GRAPH, 2), {"hierarchy": (2, 2)}, r"product is parts=2, got \(2, 2\)"),
        ((GRAPH, 2), {"hierarchy": (2,)}, r"must be \(hosts, devices\)"),
        ((GRAPH, 2), {"balance": "luck"}, "of nodes, edges, training, .* got 'luck'"),
        ((GRAPH, 2), {"balance": "training"}, "needs train_mask"),
        ((GRAPH, 2), {"train_mask": torch.zeros(N)}, "train_mask must be bool"),
        ((GRAPH, 2), {"balance": torch.full((N,), -1.0)}, "finite and not negative"),
    ],
)
def test_rejects(arguments, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        partition(*arguments, **options)


def test_a_bipartite_graph_has_no_parts():
    edges = EDGE_LISTS["bipartite"]()
    graph = gnnkern.Graph.from_edge_index(edges.edge_index, (edges.num_src, edges.num_dst))
    with pytest.raises(ValueError, match="needs num_src == num_dst"):
        partition(graph, 2)
