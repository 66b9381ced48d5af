"""What ranks do in the tests: they run something on their part and compare it with the whole."""

import torch
import torch.distributed as dist
from helpers.graphs import EDGE_LISTS

import gnnkern
from gnnkern.data import power_law
from gnnkern.distributed import PartitionedGraph, load_part, partition

# Graphs whose sources are their destinations, and one with hubs, communities and long rows.
SQUARE = [name for name, make in EDGE_LISTS.items() if make().num_src == make().num_dst]
NAMES = [*SQUARE, "communities", "undirected"]


def whole_graph(name):
    if name in EDGE_LISTS:
        edges = EDGE_LISTS[name]()
        return gnnkern.Graph.from_edge_index(edges.edge_index, edges.num_src)
    num_nodes, num_edges = (60, 400) if name == "few" else (400, 4000)
    data = power_law(num_nodes, num_edges, num_nodes // 2, 0.8, num_communities=8, seed=1)
    edge_index = data.edge_index
    if name == "undirected":
        edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1)
    return gnnkern.Graph.from_edge_index(edge_index, num_nodes)


def parts_of(graph, world, how, **options):
    """Parts by a method; by `lopsided` all in the last part, so that the others are empty."""
    if how == "lopsided":
        how = torch.full((graph.num_dst,), world - 1)
    return partition(graph, world, how, **options)


def my_part(group, name, how, **options):
    graph = whole_graph(name)
    parts = parts_of(graph, dist.get_world_size(group), how)
    return graph, PartitionedGraph.from_graph(graph, parts, group, **options)


def normal(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def propagation_is_bitwise(group, how):
    """Sums, weighted sums, means and maxima of float32 rows, several times in a row."""
    for name in NAMES:
        graph, mine = my_part(group, name, how)
        for width in (1, 3, 32, 100):
            x = normal(graph.num_dst, width)
            weight = normal(graph.num_edges, seed=1)
            my_x, my_weight = x[mine.owned], weight[mine.local_edges]
            for reduce in ("sum", "mean", "max"):
                y = gnnkern.spmm(graph, x, reduce=reduce)
                my_y = gnnkern.spmm(mine, my_x, reduce=reduce)
                assert torch.equal(y[mine.owned], my_y), (name, width, reduce)
                z, my_z = gnnkern.spmm(graph, y, weight), gnnkern.spmm(mine, my_y, my_weight)
                assert torch.equal(z[mine.owned], my_z), (name, width, reduce)
                assert torch.equal(mine.collect(my_z, graph.num_dst), z)


def largest(x):
    return float(x.abs().max()) if x.numel() else 0.0


def assert_near(mine, whole, tolerance, what, scale=0.0):
    """Errors relative to the largest element, to 1 or to `scale`."""
    assert mine.shape == whole.shape, (what, mine.shape, whole.shape)
    error = largest(mine - whole)
    assert error <= tolerance * max(1.0, largest(whole), scale), (what, error, largest(whole))


def values_and_gradients(call, inputs, coefficients):
    """The result of a call, and the gradient of its product with `coefficients` by every input."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    out = call(*leaves)
    (out * coefficients).sum().backward()
    return out.detach(), [torch.zeros_like(x) if x.grad is None else x.grad for x in leaves]


class Case:
    """A call over a graph with tensors on nodes, tensors on edges and tensors of no place."""

    def __init__(self, call, nodes, edges=(), shared=(), result="dst"):
        self.call, self.result = call, result
        self.shapes = {"node": nodes, "edge": edges, "shared": shared}

    def tensors(self, graph, dtype):
        rows = {"node": graph.num_dst, "edge": graph.num_edges}
        return [
            (place, normal(*([rows[place]] if place in rows else []), *shape, seed=k, dtype=dtype))
            for place, shapes in self.shapes.items()
            for k, shape in enumerate(shapes)
        ]

    def check(self, graph, mine, dtype, value, gradient, name, modules=()):
        """Compare this rank's part with the whole: values, gradients, those of the modules."""
        tensors = self.tensors(graph, dtype)
        rows = {"node": mine.owned, "edge": mine.local_edges, "shared": slice(None)}
        place = rows["node" if self.result == "dst" else "edge"]
        with torch.no_grad():
            shape = self.call(graph, *(x for _, x in tensors)).shape
        coefficients = normal(*shape, seed=9, dtype=dtype)

        def of_modules():
            grads = [p.grad for module in modules for p in module.parameters()]
            grads = [torch.zeros(()) if grad is None else grad.clone() for grad in grads]
            for module in modules:
                module.zero_grad()
            return grads

        out, grads = values_and_gradients(
            lambda *given: self.call(graph, *given), [x for _, x in tensors], coefficients
        )
        weights = of_modules()
        my_out, my_grads = values_and_gradients(
            lambda *given: self.call(mine, *given),
            [x[rows[where]] for where, x in tensors],
            coefficients[place],
        )
        my_weights = of_modules()
        assert_near(my_out, out[place], value, (name, "value"))
        for (where, _), grad, my_grad in zip(tensors, grads, my_grads, strict=True):
            if where == "shared":
                mine.sum_over_ranks(my_grad)
            assert_near(my_grad, grad[rows[where]], gradient, (name, where))
        # The gradient of a key's bias is zero but for rounding: all weights share a scale.
        scale = max([largest(grad) for grad in weights], default=0.0)
        for grad, my_grad in zip(weights, my_weights, strict=True):
            mine.sum_over_ranks(my_grad)
            assert_near(my_grad, grad, gradient, (name, "weights"), scale)


def gat(graph, x, to, at, edge):
    return gnnkern.gat_attention(graph, x, to, at, edge_score=edge)


def gatv2(graph, x, to, edge, att):
    return gnnkern.gatv2_attention(graph, x, to, att, edge_x=edge)


def dot(graph, query, key, value, bias):
    return gnnkern.dot_attention(graph, query, key, value, edge_bias=bias)


def softmax(graph, score):
    return gnnkern.edge_softmax(graph, score)


def sddmm(op, targets=("dst", "src")):
    def call(graph, one, other):
        return gnnkern.sddmm(graph, one, other, op=op, targets=targets)

    return call


def spmm(op="mul", reduce="sum"):
    def call(graph, x, weight):
        return gnnkern.spmm(graph, x, weight, op=op, reduce=reduce)

    return call


def of_edges(graph, weight):
    return gnnkern.spmm(graph, None, weight, reduce="mean")


def several(graph, x):
    return gnnkern.multi_reduce(graph, x, reduces=("mean", "max", "std"))


H, D = 2, 5
OPS = {
    "spmm": Case(spmm(), [(7,)], [()]),
    "spmm per head": Case(spmm(reduce="mean"), [(H, D)], [(H,)]),
    "spmm max": Case(spmm(reduce="max"), [(7,)], [()]),
    "spmm add": Case(spmm("add"), [(7,)], [(7,)]),
    "spmm of edges": Case(of_edges, [], [(7,)]),
    "sddmm dot": Case(sddmm("dot"), [(7,), (7,)], result="edge"),
    "sddmm add": Case(sddmm("add"), [(H, D), (H, D)], result="edge"),
    "sddmm of sources": Case(sddmm("mul", ("src", "edge")), [(7,)], [(7,)], result="edge"),
    "edge_softmax": Case(softmax, [], [(H,)], result="edge"),
    "gat_attention": Case(gat, [(H, D), (H,), (H,)], [(H,)]),
    "gatv2_attention": Case(gatv2, [(H, D), (H, D)], [(H, D)], [(H, D)]),
    "dot_attention": Case(dot, [(H, D), (H, D), (H, D)], [(H,)]),
    "multi_reduce": Case(several, [(7,)]),
}


# For what runs over many calls: hubs, communities, loops, repeats, nodes without edges.
SOME = ["few", "isolated_ends", "multi_edges", "self_loops", "star_in"]


def ops_agree(group, how, dtype, value, gradient):
    """Every op over a graph, values and gradients."""
    for graph_name in (*SOME, "undirected"):
        graph, mine = my_part(group, graph_name, how)
        for name, case in OPS.items():
            case.check(graph, mine, dtype, value, gradient, (graph_name, name))


def exchange_is_its_transpose(group, how):
    """<exchange(x), y> = <x, transposed(y)> over all ranks; the backward is `transposed`."""
    for name in NAMES:
        graph, mine = my_part(group, name, how)
        x = normal(graph.num_dst, 3, 2, dtype=torch.float64)[mine.owned].requires_grad_()
        y = normal(graph.num_dst, 3, 2, seed=1, dtype=torch.float64)[mine.exact.plan.ghosts]
        ghosts = mine.exact(x)
        expected = normal(graph.num_dst, 3, 2, dtype=torch.float64)[mine.exact.plan.ghosts]
        assert torch.equal(ghosts, expected), name
        back = mine.exact.transposed(y)
        both = torch.stack([(ghosts * y).sum(), (x * back).sum()]).detach()
        mine.sum_over_ranks(both)
        assert abs(float(both[0] - both[1])) <= 1e-12 * max(1.0, abs(float(both[0]))), name
        (grad,) = torch.autograd.grad(ghosts, x, y)
        assert torch.equal(grad, back), name


def reverse_agrees(group, how):
    """Sums over the out-edges, which are other edges with other ghosts."""
    for name in NAMES:
        graph, mine = my_part(group, name, how, reverse=True)
        case = Case(spmm(), [(4,)], [()])
        assert torch.equal(mine.out_degree.long(), graph.out_degree[mine.owned].long())
        # `reverse` numbers edges as the graph itself does.
        case.check(graph.reverse, mine.reverse, torch.float64, 1e-12, 1e-12, name)


class _Noted(torch.autograd.Function):
    """Identity that says when it runs, in both directions."""

    @staticmethod
    def forward(ctx, x, traffic, what):
        ctx.traffic, ctx.what = traffic, what
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        ctx.traffic.note(f"gradient of {ctx.what}")
        return grad, None, None


def interior_is_computed_meanwhile(group):
    """The exchange starts before and ends after the interior's op, forward and backward."""
    _, mine = my_part(group, "communities", "metis")

    def op(graph, x):
        what = "interior" if graph.num_src == mine.num_dst else "boundary"
        return _Noted.apply(gnnkern.spmm(graph, x), mine.traffic, what)

    mine.traffic.events = []
    x = normal(mine.num_dst, 4).requires_grad_()
    out = mine.run_op(op, {"x": x}, {"x": "src"}, "dst")
    forward = list(mine.traffic.events)
    mine.traffic.events.clear()
    out.sum().backward()
    assert forward == ["start exchange", "interior", "end exchange", "boundary"], forward
    backward = mine.traffic.events
    inner = "gradient of interior"
    expected = ["gradient of boundary", "start gradient", inner, "end gradient"]
    assert [event for event in backward if event in expected] == expected, backward


def traffic_is_counted(group):
    """Rows and bytes by link are those of the partition's report, and half of it in bfloat16."""
    graph = whole_graph("communities")
    world = dist.get_world_size(group)
    hierarchy = (2, world // 2) if world % 2 == 0 else (1, world)
    parts = partition(graph, world, "metis", hierarchy=hierarchy)
    mine = PartitionedGraph.from_graph(graph, parts, group)
    for dtype, size in ((torch.float32, 4), (torch.bfloat16, 2)):
        mine.traffic.reset()
        x = normal(mine.num_dst, 6, dtype=dtype).requires_grad_()
        gnnkern.spmm(mine, x).sum().backward()
        counts = torch.tensor(list(mine.traffic.rows.values()))
        there = torch.tensor(list(parts.quality.ghosts.values()))
        mine.sum_over_ranks(counts)
        # Once there, and the gradient once back.
        assert torch.equal(counts, 2 * there)
        assert mine.traffic.exchanges == 2
        for level, rows in mine.traffic.rows.items():
            assert mine.traffic.bytes[level] == rows * 6 * size


def with_another_plan(group, what):
    """A rank whose plan is of another partition; nothing may be exchanged."""
    graph = whole_graph("communities")
    world, rank = dist.get_world_size(group), dist.get_rank(group)
    seed = 1 if what == "seed" and rank == world - 1 else 0
    count = world + 1 if what == "count" else world
    parts = partition(graph, count, "random", seed=seed)
    mine = PartitionedGraph.from_graph(graph, parts, group)
    if what == "edge" and rank == 0:
        graph = gnnkern.Graph.from_edge_index(graph.edge_index[:, 3900:], graph.num_dst)
        mine = PartitionedGraph.from_graph(graph, parts, group)
    try:
        gnnkern.spmm(mine, normal(mine.num_dst, 3))
    finally:
        assert mine.traffic.exchanges == 0


def bad_rows(group):
    """Wrong shapes are refused before anything is sent."""
    graph, mine = my_part(group, "communities", "metis")
    gnnkern.spmm(mine, torch.zeros(graph.num_dst, 3))


def part_from_disk(group, folder):
    """A rank reads its own file alone and runs on it."""
    rank = dist.get_rank(group)
    part, rows = load_part(folder, rank)
    mine = PartitionedGraph.from_part(part, group)
    graph = whole_graph("communities")
    y = gnnkern.spmm(graph, normal(graph.num_dst, 5))
    assert torch.equal(gnnkern.spmm(mine, rows["x"]), y[mine.owned])


def alone_at_last(group):
    """An exchange with a rank that has died."""
    _, mine = my_part(group, "communities", "random")
    gnnkern.spmm(mine, normal(mine.num_dst, 3))
