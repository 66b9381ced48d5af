"""The stand-in for pyg-lib's neighbour samplers: what is sampled is there, and drawn fairly."""

import pytest
import torch

from gnnkern.compat._sampling import Relation, induce, sample
from gnnkern.compat.pyg_lib.sampler import hetero_neighbor_sample, neighbor_sample
from gnnkern.compat.torch_sparse import sampling

N, E = 40, 300


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def csr(num_rows=N, num_cols=N, edges=E):
    """Random edges by row, of which the last rows have none."""
    rows = torch.randint(num_rows - 3, (edges,)).sort().values
    indptr = torch.searchsorted(rows, torch.arange(num_rows + 1))
    return indptr, torch.randint(num_cols, (edges,))


def star(leaves):
    """Node 0 and its neighbours 1 ... leaves."""
    indptr = torch.full((leaves + 2,), leaves)
    indptr[0] = 0
    return indptr, torch.arange(1, leaves + 1)


def chi_square(observed, expected):
    """How many deviations from its mean, by the number of cells."""
    value = float(((observed - expected) ** 2 / expected).sum())
    freedom = expected.numel() - 1
    return (value - freedom) / (2 * freedom) ** 0.5


def check_hops(found, expanded, edges, nodes_per_hop, edges_per_hop, fan_out, counts, replace):
    """Every hop draws at the nodes of the hop before, as many as it may."""
    assert found.shape == expanded.shape == edges.shape
    assert sum(edges_per_hop) == edges.shape[0]
    node = edge = 0
    for hop, wanted in enumerate(fan_out):
        frontier = torch.arange(node, node + nodes_per_hop[hop])
        of_hop = slice(edge, edge + edges_per_hop[hop])
        drawn = torch.bincount(expanded[of_hop], minlength=sum(nodes_per_hop))
        there = counts[frontier]
        if wanted >= 0:
            there = wanted * (there > 0) if replace else there.clamp(max=wanted)
        assert torch.equal(drawn[frontier], there)
        assert drawn.sum() == there.sum()
        node, edge = node + nodes_per_hop[hop], of_hop.stop
        assert (found[of_hop] < node + nodes_per_hop[hop + 1]).all()


@pytest.mark.parametrize("fan_out", [[3, 2], [-1, 1, 4], [0], []], ids=str)
@pytest.mark.parametrize("replace", [False, True], ids=["once", "again"])
@pytest.mark.parametrize("disjoint", [False, True], ids=["together", "disjoint"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
def test_a_sample_is_of_the_graph(fan_out, replace, disjoint, dtype):
    indptr, indices = (x.to(dtype) for x in csr())
    seed = torch.tensor([5, 0, 39, 7], dtype=dtype)
    row, col, node, edge, nodes_per_hop, edges_per_hop = neighbor_sample(
        indptr, indices, seed, fan_out, csc=True, replace=replace, disjoint=disjoint
    )
    assert {x.dtype for x in (row, col, node, edge)} == {dtype}
    tree = node[:, 0] if disjoint else None
    node = node[:, 1] if disjoint else node
    assert torch.equal(node[:4], seed)
    assert len(node) == sum(nodes_per_hop)
    keys = node if tree is None else tree * N + node
    assert len(keys.unique()) == len(keys)
    counts = indptr.diff()[node]
    check_hops(row, col, edge, nodes_per_hop, edges_per_hop, fan_out, counts, replace)
    assert torch.equal(indices[edge], node[row])
    assert ((indptr[node[col]] <= edge) & (edge < indptr[node[col] + 1])).all()
    if tree is not None:
        assert torch.equal(tree[row], tree[col])
    if not replace:
        keys = edge if tree is None else tree[col] * E + edge
        assert len(keys.unique()) == len(keys)
    if len(row):
        swapped = neighbor_sample(indptr, indices, seed, [-1], return_edge_id=False)
        assert (swapped[0] < 4).all()
        assert swapped[3] is None


def test_a_seed_given_twice_is_there_twice():
    indptr, indices = star(4)
    row, col, node, *_ = neighbor_sample(indptr, indices, torch.tensor([0, 0]), [2], csc=True)
    assert node[:2].tolist() == [0, 0]
    assert torch.bincount(col).tolist() == [2, 2]
    assert (row >= 2).all()


@pytest.mark.parametrize(
    ("leaves", "number", "replace"), [(10, 3, False), (10, 3, True), (90, 70, False)]
)
def test_every_neighbour_is_as_likely(leaves, number, replace):
    indptr, indices = star(leaves)
    draws = 3000
    out = neighbor_sample(
        indptr, indices, torch.zeros(draws, dtype=torch.int64), [number], csc=True,
        replace=replace, disjoint=True,
    )  # fmt: skip
    edges = out[3].view(draws, number)
    observed = torch.bincount(edges.flatten(), minlength=leaves)
    expected = torch.full((leaves,), draws * number / leaves)
    assert chi_square(observed, expected) < 4
    if leaves == 10 and not replace:
        # And every pair of them.
        both = torch.zeros(leaves, leaves)
        for a, b in ((0, 1), (0, 2), (1, 2)):
            both += torch.bincount(edges[:, a] * leaves + edges[:, b], minlength=100).view(10, 10)
        both = both[both > 0]
        assert chi_square(both, torch.full((45,), draws * 3 / 45)) < 4


@pytest.mark.parametrize(("number", "replace"), [(1, False), (1, True), (2, True)])
def test_weights(number, replace):
    indptr, indices = star(6)
    weight = torch.tensor([1.0, 0.0, 3.0, 4.0, 0.0, 2.0])
    out = neighbor_sample(
        indptr, indices, torch.zeros(4000, dtype=torch.int64), [number], edge_weight=weight,
        replace=replace, disjoint=True,
    )  # fmt: skip
    observed = torch.bincount(out[3], minlength=6)
    assert observed[weight == 0].sum() == 0
    some = weight > 0
    assert chi_square(observed[some], 400.0 * number * weight[some]) < 4
    every = neighbor_sample(indptr, indices, torch.tensor([0]), [4], edge_weight=weight)
    assert every[3].tolist() == [0, 2, 3, 5]
    three = neighbor_sample(
        indptr, indices, torch.zeros(500, dtype=torch.int64), [3], edge_weight=weight, disjoint=True
    )[3].view(-1, 3)
    assert (three.diff() > 0).all()


@pytest.mark.parametrize("of", ["nodes", "edges"])
@pytest.mark.parametrize("strategy", ["uniform", "last"])
def test_nothing_later_than_the_seed(of, strategy):
    indptr, indices = csr()
    time = torch.rand(N if of == "nodes" else E)
    for begin, end in zip(indptr[:-1].tolist(), indptr[1:].tolist(), strict=True):
        if of == "edges":
            time[begin:end] = time[begin:end].sort().values
        else:
            indices[begin:end] = indices[begin:end][time[indices[begin:end]].argsort()]
    seed, seed_time = torch.arange(20), torch.linspace(0.2, 1, 20)
    row, col, pairs, edge, *_ = neighbor_sample(
        indptr, indices, seed, [2, 2], **{f"{of[:-1]}_time": time}, seed_time=seed_time,
        csc=True, disjoint=True, temporal_strategy=strategy,
    )  # fmt: skip
    at = time[indices] if of == "nodes" else time
    tree, node = pairs.unbind(1)
    assert (at[edge] <= seed_time[tree[col]]).all()
    for place in range(20):
        begin, end = int(indptr[node[place]]), int(indptr[node[place] + 1])
        allowed = [e for e in range(begin, end) if at[e] <= seed_time[place]]
        drawn = sorted(edge[col == place].tolist())
        assert len(drawn) == min(2, len(allowed))
        assert set(drawn) <= set(allowed)
        if strategy == "last":
            assert drawn == allowed[-2:]


def test_several_kinds():
    kinds = [("a", "to", "b"), ("b", "back", "a"), ("a", "self", "a")]
    sizes = {"a": 30, "b": 50}
    graphs = {kind: csr(sizes[kind[2]], sizes[kind[0]]) for kind in kinds}
    fan_out = {kinds[0]: [3, 2], kinds[1]: [2, 2], kinds[2]: [0, 3]}
    seeds = {"a": torch.tensor([3, 1]), "b": torch.tensor([7])}
    rows, cols, nodes, edges, nodes_per_hop, edges_per_hop = hetero_neighbor_sample(
        {kind: graph[0] for kind, graph in graphs.items()},
        {kind: graph[1] for kind, graph in graphs.items()},
        seeds,
        fan_out,
        csc=True,
    )
    for name, seed in seeds.items():
        assert torch.equal(nodes[name][: len(seed)], seed)
        assert len(nodes[name].unique()) == len(nodes[name]) == sum(nodes_per_hop[name])
        assert len(nodes_per_hop[name]) == 3
    for kind, (indptr, indices) in graphs.items():
        src, dst = nodes[kind[0]], nodes[kind[2]]
        assert torch.equal(indices[edges[kind]], src[rows[kind]])
        at = dst[cols[kind]]
        assert ((indptr[at] <= edges[kind]) & (edges[kind] < indptr[at + 1])).all()
        first = torch.bincount(cols[kind][: edges_per_hop[kind][0]], minlength=len(dst))
        there = indptr.diff()[dst].clamp(max=fan_out[kind][0])
        there[len(seeds[kind[2]]) :] = 0
        assert torch.equal(first, there)
        assert sum(edges_per_hop[kind]) == len(edges[kind])


def test_trees_of_several_kinds_are_numbered_through():
    graph = csr()
    relation = Relation("b", "a", *graph, [2])
    seeds = {"a": torch.tensor([1, 2]), "b": torch.tensor([1, 3, 4])}
    found = sample("test", ["a", "b"], {"r": relation}, seeds, disjoint=True)
    assert found.tree["a"][:2].tolist() == [0, 1]
    assert found.tree["b"].tolist() == [2, 3, 4]
    assert torch.equal(found.tree["a"][found.found["r"]], found.tree["b"][found.expanded["r"]])


def test_induced_subgraphs():
    indptr, indices = csr()
    node, row, col, edge = sampling.neighbor_sample(
        indptr, indices, torch.arange(4), [3, 2], False, False
    )
    dst = torch.arange(N).repeat_interleave(indptr.diff())
    inside = torch.isin(dst, node) & torch.isin(indices, node)
    assert torch.equal(edge.sort().values, inside.nonzero().squeeze(1))
    assert torch.equal(node[row], indices[edge])
    assert torch.equal(node[col], dst[edge])
    again = induce(Relation("", "", indptr, indices, []), {"": node})
    assert torch.equal(again[2], edge)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": torch.tensor([40])}, r"seed must be in \[0, 40\), got 40 to 40"),
        ({"seed": torch.tensor([[1]])}, r"seed must have shape \[N\], got \[1, 1\]"),
        ({"directed": False}, "directed must be True"),
        ({"temporal_strategy": "first"}, "temporal_strategy must be one of uniform, last"),
        ({"node_time": torch.zeros(40)}, "times need disjoint=True"),
        (
            {"edge_time": torch.zeros(E), "disjoint": True},
            "seed_time must have a time for each of the 2 seeds",
        ),
    ],
)
def test_refusals(options, message):
    arguments = {"seed": torch.tensor([1, 2]), "num_neighbors": [2]} | options
    with pytest.raises(ValueError, match=f"^neighbor_sample: {message}"):
        neighbor_sample(*csr(), **arguments)


def test_what_is_not_sampled_says_so():
    with pytest.raises(NotImplementedError, match="does not sample for HGTLoader"):
        sampling.hgt_sample({}, {}, {}, {}, 1)
