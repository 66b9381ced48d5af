"""Policies on ranks, beside an emulation in one process whose ghosts are rows of a table."""

import torch
import torch.distributed as dist
from rank_checks import assert_near, normal, parts_of, spmm, whole_graph
from rank_multirate import hierarchy_of
from rank_training import training

from gnnkern.distributed import PartitionedGraph, over_ranks
from gnnkern.distributed.hierarchy import LEVELS
from gnnkern.distributed.policies import Drift, Exact, Hold, Pipelined, Sampled, parse_policy
from gnnkern.distributed.schedule import Schedule

WIDTH, STEPS = 3, 6
# With a warm-up of two steps, Hold(2) skips the even ones.
WARMUP = 2
POLICIES = ["exact", "hold:2", "drift:0.3", "pipelined", "sampled:0.5,7"]
# With few nodes, and rows in all directions; all in one part; with ranks that only send.
GRAPHS = [("few", "random"), ("few", "lopsided"), ("star_in", "random")]


class Emulation:
    """Two calls per step on the whole graph; what other parts hold of a node is in a table.

    All receivers of a row hold the same of it, so a site has one table [N, WIDTH] for all.
    """

    def __init__(self, graph, parts, weight, policy):
        self.src, self.dst = graph.edge_index
        self.part, self.hierarchy = parts.part, parts.hierarchy
        self.weight, self.policy = weight, policy
        self.inside = self.part[self.src] == self.part[self.dst]
        self.tables = {}
        # Every ghost once: the node, and the part that reads it.
        pairs = torch.stack([self.src, self.part[self.dst]])[:, ~self.inside]
        self.ghosts = torch.unique(pairs, dim=1).T.tolist()

    def step(self, x, maps, step):
        self.sent, self.late, self.moved, self.size = [], [], 0.0, 0.0
        for site, linear in enumerate(maps):
            x = self.call(x @ linear, site, step)
            x = torch.tanh(x) if site == 0 else x
        return x

    def call(self, rows, site, step):
        first = site not in self.tables
        held = torch.zeros_like(rows) if first else self.tables[site]
        gap, size = (rows.detach() - held).norm(dim=1), held.norm(dim=1)
        exact = first or step < WARMUP
        late = self.policy == Pipelined() and not exact
        skipped = self.policy == Hold(2) and not exact and step % 2 == 0
        sends = torch.ones_like(gap, dtype=torch.bool)
        if skipped:
            sends = ~sends
        elif isinstance(self.policy, Drift) and not exact:
            sends = gap > self.policy.tol * size
        elif isinstance(self.policy, Sampled) and not exact:
            sends = self.policy.chosen(torch.arange(len(gap)), step, site)
        if not first and not skipped:
            nodes = [node for node, _ in self.ghosts]
            self.moved += float(gap[nodes].square().sum())
            self.size += float(size[nodes].square().sum())
        new = torch.where(sends[:, None], rows, held)
        self.tables[site] = new.detach()
        self.sent.append(sends)
        self.late.append(late)
        seen = held if late else new
        read = torch.where(self.inside[:, None], rows[self.src], seen[self.src])
        return torch.zeros_like(rows).index_add(0, self.dst, read * self.weight[:, None])

    def traffic(self, rank, tells):
        """Rows and bytes that a rank sends in the step, by kind of link."""
        rows, told = dict.fromkeys(LEVELS, 0), dict.fromkeys(LEVELS, 0)
        pairs = {}
        for node, reader in self.ghosts:
            owner = int(self.part[node])
            level = LEVELS[self.hierarchy.level(owner, reader)]
            for sends, late in zip(self.sent, self.late, strict=True):
                rows[level] += int(sends[node]) * ((owner == rank) + (reader == rank and not late))
            if owner == rank:
                pairs[reader, level] = pairs.get((reader, level), 0) + 1
        for (_, level), count in pairs.items():
            # A bit per row and call, in whole bytes.
            told[level] += len(self.sent) * -(-count // 8) * tells
        return rows, {level: rows[level] * WIDTH * 8 + told[level] for level in LEVELS}


def setting(group, name, how, dtype=torch.float64):
    """The graph, its parts, this rank's part, weights of edges, and rows for every step."""
    graph = whole_graph(name)
    world = dist.get_world_size(group)
    parts = parts_of(graph, world, how, hierarchy=hierarchy_of(world))
    mine = PartitionedGraph.from_graph(graph, parts, group)
    weight = normal(graph.num_edges, seed=1, dtype=dtype)
    # Some rows move a lot, some a little, some not at all.
    scale = torch.tensor([1.0, 0.3, 0.05, 0.0])[torch.arange(graph.num_dst) % 4, None].to(dtype)
    xs = [normal(graph.num_dst, WIDTH, seed=2, dtype=dtype)]
    for step in range(1, STEPS):
        xs.append(xs[-1] + scale * normal(graph.num_dst, WIDTH, seed=2 + step, dtype=dtype))
    return graph, parts, mine, weight, xs


def two_layers(graph, x, weight, maps):
    call = spmm()
    return call(graph, torch.tanh(call(graph, x @ maps[0], weight)) @ maps[1], weight)


def equals_the_emulation(group, text):
    """Values, gradients, traffic and drift of every step."""
    for name, how in GRAPHS:
        graph, parts, mine, weight, xs = setting(group, name, how)
        policy = parse_policy(text)
        schedule = Schedule(mine, policy, steps=STEPS, warmup=WARMUP, measure=True)
        whole = Emulation(graph, parts, weight, policy)
        maps = [normal(WIDTH, WIDTH, seed=seed, dtype=torch.float64) for seed in (8, 9)]
        coefficients = normal(graph.num_dst, WIDTH, seed=5, dtype=torch.float64)
        for step, rows in enumerate(xs):
            what = (name, how, text, step)
            x, my_x, *leaves = (
                leaf.clone().requires_grad_() for leaf in (rows, rows[mine.owned], *maps, *maps)
            )
            expected = whole.step(x, leaves[:2], step)
            out = two_layers(schedule.begin(step), my_x, weight[mine.local_edges], leaves[2:])
            assert_near(out.detach(), expected.detach()[mine.owned], 1e-12, what)
            (expected * coefficients).sum().backward()
            (out * coefficients[mine.owned]).sum().backward()
            assert_near(my_x.grad, x.grad[mine.owned], 1e-12, what)
            for leaf, my_leaf in zip(leaves[:2], leaves[2:], strict=True):
                assert_near(mine.sum_over_ranks(my_leaf.grad), leaf.grad, 1e-12, what)
            record = schedule.record()
            tells = isinstance(policy, Drift) and step >= WARMUP
            assert (record.rows, record.bytes) == whole.traffic(dist.get_rank(group), tells), what
            (record,) = over_ranks(mine, [record])
            assert abs(record.moved - whole.moved) < 1e-9 * max(1.0, whole.moved), what
            assert abs(record.size - whole.size) < 1e-9 * max(1.0, whole.size), what
        schedule.settle()


def the_extremes_are_exact(group):
    """A tolerance of 0 and a rate of 1, bit for bit in float32, beside `Exact`."""
    _, _, mine, weight, xs = setting(group, "communities", "random", torch.float32)
    maps = [normal(WIDTH, WIDTH, seed=seed) for seed in (8, 9)]
    found = {}
    for policy in (Exact(), Drift(0.0), Sampled(1.0)):
        schedule = Schedule(mine, policy, steps=STEPS)
        results = []
        mine.traffic.reset()
        for step, rows in enumerate(xs):
            x = rows[mine.owned].requires_grad_()
            out = two_layers(schedule.begin(step), x, weight[mine.local_edges], maps)
            results.append((out.detach(), *torch.autograd.grad(out.sum(), x)))
        found[policy] = results, sum(mine.traffic.rows.values())
    (exact, rows), (drift, drift_rows), (sampled, sampled_rows) = found.values()
    for (out, grad), (drift_out, _), (sampled_out, sampled_grad) in zip(
        exact, drift, sampled, strict=True
    ):
        assert torch.equal(out, drift_out)
        assert torch.equal(out, sampled_out) and torch.equal(grad, sampled_grad)
    assert sampled_rows == rows
    # The first layer's rows that do not move stay where they are.
    assert drift_rows < rows or rows == 0


def what_was_sent_arrives_a_step_later(group):
    """Pipelined: a step starts its own exchange, and ends that of the step before."""
    _, _, mine, weight, xs = setting(group, "communities", "metis")
    schedule = Schedule(mine, Pipelined(), steps=STEPS)
    seen = []
    for step, rows in enumerate(xs[:3]):
        mine.traffic.events = []
        spmm()(schedule.begin(step), rows[mine.owned], weight[mine.local_edges])
        seen.append(mine.traffic.events)
    mine.traffic.events = []
    schedule.settle()
    first, second, third = seen
    assert first == third == ["start exchange", "interior", "end exchange", "boundary"]
    assert second == ["start exchange", "interior", "boundary"]
    assert mine.traffic.events == ["end exchange"]


def records_are_the_traffic(group, text):
    """Of a training with evaluations: what its steps sent, and that alone."""
    made = training(group, dist.get_world_size(group), "gcn", text, 4, warmup=1, measure=True)
    bytes_sent = []
    for step in range(4):
        made.graph.traffic.reset()
        made.step(step)
        bytes_sent.append(sum(made.graph.traffic.bytes.values()))
        made.evaluate()
    made.schedule.settle()
    expected = made.graph.sum_over_ranks(torch.tensor(bytes_sent)).tolist()
    records = over_ranks(made.graph, made.records)
    # Degrees, which the first step exchanges as well, are no rows of a step.
    assert [sum(each.bytes.values()) for each in records[1:]] == expected[1:]
    assert [each.step for each in records] == [0, 1, 2, 3]
    if dist.get_world_size(group) > 1:
        assert records[0].drift is None and min(each.drift for each in records[1:]) > 0


def windows_take_the_noise_out(group):
    """Rows sent in the steps of a training with dropout whose masks stay for 4 steps."""
    made = training(group, dist.get_world_size(group), "gcn", "drift:0.3,4", 12, warmup=4)
    for step in range(12):
        made.step(step)
    return [sum(each.rows.values()) for each in over_ranks(made.graph, made.records)]
