"""The plan of a training: counts of real parts, times by the model, parts near their neighbours."""

import itertools
import json
import math

import pytest
import rank_planning
import torch
from helpers.machines import made_up_machine
from rank_checks import NAMES, parts_of, whole_graph

import gnnkern
from gnnkern.cli import main
from gnnkern.data import grid
from gnnkern.distributed import LEVELS, Hierarchy, cut, partition
from gnnkern.distributed.forecast import Compute, Forecast, LinkSpeeds, Workload
from gnnkern.distributed.loads import Loads
from gnnkern.distributed.placement import place
from gnnkern.distributed.plan_command import parse_parts
from gnnkern.distributed.planning import hierarchy_for, prospects

WORKLOAD = Workload(8, (16, 4))
COMPUTE = Compute((2e-6, 1e-6), (3e-6, 1e-6), 1e-6)


def square(side):
    return gnnkern.Graph.from_edge_index(grid(side, side).edge_index, side * side)


def loads_of(side=40, hierarchy=(2, 3, 2)):
    graph = square(side)
    parts = math.prod(hierarchy)
    return Loads.of(graph, partition(graph, parts, "metis", hierarchy=hierarchy))


def forecast_of(loads=None, compute=COMPUTE, workload=WORKLOAD, latency=(), rate=()):
    speeds = LinkSpeeds().updated(dict(latency), dict(rate))
    return Forecast(loads_of() if loads is None else loads, workload, compute, speeds)


@pytest.mark.dist
@pytest.mark.parametrize("how", ["metis", "random"])
def test_bytes_of_an_exchange_are_those_that_ranks_send(run, how):
    run(rank_planning.bytes_are_those_of_the_plan, how, 5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["random", "lopsided"])
def test_loads_are_those_of_the_parts(name, how):
    graph = whole_graph(name)
    made = parts_of(graph, 3, how)
    loads = Loads.of(graph, made)
    for part in cut(graph, made):
        rank, edges = part.rank, part.forward
        first, last = edges.interior
        assert int(loads.nodes[rank]) == len(part.owned)
        assert int(loads.edges[rank]) == len(edges.indices)
        assert int(loads.interior_edges[rank]) == int(edges.indptr[last] - edges.indptr[first])
        assert loads.rows[rank].tolist() == edges.send_splits.tolist()
        assert int(loads.ghosts[rank]) == len(edges.ghosts)


def test_rows_go_over_the_links_between_their_ranks():
    loads = loads_of()
    hierarchy = loads.hierarchy
    for one, other in itertools.product(range(hierarchy.size), repeat=2):
        level = hierarchy.level(one, other)
        for number, name in enumerate(LEVELS):
            expected = int(loads.rows[one, other]) if number == level else 0
            assert int(loads.over(name)[one, other]) == expected
    assert sum(int(loads.sent(level).sum()) for level in LEVELS) == int(loads.rows.sum())
    assert int(loads.partners("host").max()) <= 4


def test_placed_parts_keep_their_loads():
    loads = loads_of()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    placed = loads.placed(order, Hierarchy(3, 4))
    for rank, part in enumerate(order.tolist()):
        assert placed.nodes[rank] == loads.nodes[part]
        assert placed.interior_edges[rank] == loads.interior_edges[part]
        for other, other_part in enumerate(order.tolist()):
            assert placed.rows[rank, other] == loads.rows[part, other_part]


# -- placement -------------------------------------------------------------------------------------


def between_hosts(rows, order, hierarchy):
    host = torch.empty(len(order), dtype=torch.int64)
    host[order] = torch.arange(len(order)) // (hierarchy.size // hierarchy.hosts)
    return int(rows[host[:, None] != host].sum())


@pytest.mark.parametrize("hierarchy", [(4, 8), (8, 4), (2, 4, 4), (32, 1), (1, 32)])
def test_parts_of_a_grid_are_placed_by_their_neighbours(hierarchy):
    graph, hierarchy = square(60), Hierarchy(*hierarchy)
    numbers = torch.randperm(32, generator=torch.Generator().manual_seed(1))
    rows = Loads.of(graph, partition(graph, 32, "metis")).rows[numbers][:, numbers]
    order = place(rows, hierarchy)
    assert sorted(order.tolist()) == list(range(32))
    before = between_hosts(rows, torch.arange(32), hierarchy)
    after = between_hosts(rows, order, hierarchy)
    assert after <= before
    if hierarchy.hosts in (2, 4, 8):
        # A square of 32 / hosts parts has 4 sqrt(32 / hosts) of its sides outside.
        assert after < 0.6 * before
        assert after < 2.2 * int(rows.sum()) / math.sqrt(32 / hierarchy.hosts) / 2


def test_groups_that_are_there_are_found():
    generator = torch.Generator().manual_seed(3)
    group = torch.randperm(24, generator=generator) % 4
    rows = torch.randint(3, (24, 24), generator=generator)
    rows += 100 * (group[:, None] == group)
    order = place(rows, Hierarchy(4, 6))
    assert all(len(set(group[host].tolist())) == 1 for host in order.chunk(4))
    assert torch.equal(order, place(rows, Hierarchy(4, 6)))


def test_empty_traffic_is_placed():
    assert sorted(place(torch.zeros(6, 6, dtype=torch.int64), Hierarchy(3, 2)).tolist()) == [
        *range(6)
    ]
    with pytest.raises(ValueError, match=r"place: rows must have shape \[P=4, P\], got \[3, 3\]"):
        place(torch.zeros(3, 3), Hierarchy(2, 2))


# -- times -----------------------------------------------------------------------------------------


def test_a_step_by_hand():
    """Two hosts with one rank each, that send 30 and 10 rows."""
    loads = Loads(
        Hierarchy(2, 1),
        torch.tensor([100, 90]),
        torch.tensor([1000, 800]),
        torch.tensor([600, 700]),
        torch.tensor([[0, 30], [10, 0]]),
    )
    workload = Workload(2, (4,))
    made = forecast_of(
        loads,
        Compute((1e-6,), (2e-6,), 1e-5),
        workload,
        latency={"network": 1e-4},
        rate={"network": 1e6},
    )
    travels = 1e-4 + 30 * 16 / 1e6
    assert made.exchange_s(4, ("network",)).tolist() == pytest.approx([travels, travels])
    # Of 12 weights, in a tree of one level and a ring of two.
    gradients = 2 * 1e-4 + 12 * 4 / 1e6
    assert made.gradients_s() == pytest.approx(gradients)
    forward = max(max(600e-6, travels) + 400e-6, max(700e-6, travels) + 100e-6)
    backward = max(max(1200e-6, travels) + 800e-6, max(1400e-6, travels) + 200e-6)
    assert made.step_s() == pytest.approx(1e-3 + gradients + forward + backward)
    assert made.compute_s == pytest.approx(1e-3 + 3e-3 + gradients)


def test_ranks_of_a_host_share_its_network():
    hierarchy = Hierarchy(2, 2)
    rows = torch.zeros(4, 4, dtype=torch.int64)
    rows[0, 2], rows[1, 3], rows[0, 1] = 100, 50, 7
    count = torch.full((4,), 1000)
    loads = Loads(hierarchy, count, count, count, rows)
    made = forecast_of(
        loads, latency=dict.fromkeys(LEVELS, 0.0), rate={"network": 1e6, "host": 1e6}
    )
    width = 4
    assert made.exchange_s(width, ("network",)).tolist() == pytest.approx([150 * 16 / 1e6] * 4)
    seconds = made.exchange_s(width, ("host",)).tolist()
    assert seconds == pytest.approx([7 * 16 / 1e6] * 2 + [0.0, 0.0])
    # Kinds of links work at the same time.
    assert torch.equal(made.exchange_s(width, LEVELS), made.exchange_s(width, ("network",)))


def test_what_is_hidden_costs_nothing():
    rows = torch.tensor([[0, 5], [5, 0]])
    count = torch.tensor([1000, 1000])
    loads = Loads(Hierarchy(1, 2), count, count, count // 2, rows)
    assert forecast_of(loads).step_s() == pytest.approx(forecast_of(loads).compute_s)
    assert forecast_of(loads).balancing_period("host") == 1
    slow = forecast_of(loads, rate={"host": 1e5})
    assert slow.step_s() > 1.1 * slow.compute_s


def test_times_grow_with_what_they_are_made_of():
    base = forecast_of(rate={"network": 1e6})
    slower = [
        forecast_of(rate={"network": 5e5}),
        forecast_of(rate={"network": 1e6}, latency={"network": 1e-2}),
        forecast_of(rate={"network": 1e6}, workload=Workload(8, (32, 4))),
        forecast_of(rate={"network": 1e6}, workload=Workload(8, (16, 4), wire_bytes=8)),
    ]
    assert all(each.step_s() > base.step_s() for each in slower)
    halves = forecast_of(rate={"network": 1e6}, workload=Workload(8, (16, 4), wire_bytes=2))
    assert halves.step_s() < base.step_s()
    assert halves.compute_s == base.compute_s
    due = [(), ("device",), ("device", "host"), LEVELS]
    times = [base.step_s(each) for each in due]
    # Equal ones differ in their last bits.
    assert all(b >= a * (1 - 1e-12) for a, b in itertools.pairwise(times))
    means = [base.mean_step_s({"network": period}) for period in (1, 2, 5, 50)]
    assert means == sorted(means, reverse=True)
    assert means[0] == pytest.approx(base.step_s())


@pytest.mark.parametrize(
    "period", [{}, {"network": 4}, {"device": 2, "host": 3, "network": 8}, {"host": 5}]
)
def test_the_mean_is_that_of_all_steps(period):
    made = forecast_of(rate={"network": 1e6, "host": 2e6})
    steps = math.lcm(*period.values())
    seconds = [
        made.step_s([level for level in LEVELS if step % period.get(level, 1) == 0])
        for step in range(steps)
    ]
    assert made.mean_step_s(period) == pytest.approx(sum(seconds) / steps)


@pytest.mark.parametrize("rate", [1e8, 1e6, 1e5, 1e4])
def test_the_balancing_period_is_the_smallest(rate):
    made = forecast_of(rate={"network": rate})
    period = made.balancing_period("network")
    waiting = made.step_s(("network",)) - made.compute_s
    assert waiting / period <= made.compute_s * (1 + 1e-6)
    assert period == 1 or waiting / (period - 1) > made.compute_s


def test_a_measured_epoch_keeps_the_shares():
    graph = square(40)
    modelled = Compute.modelled(graph, WORKLOAD, made_up_machine())
    counts = (graph.num_dst, graph.num_edges)
    scaled = modelled.scaled(3.0, *counts)
    assert scaled.whole_s(*counts) == pytest.approx(3.0)
    factor = 3.0 / modelled.whole_s(*counts)
    assert scaled.forward_s[0] == pytest.approx(factor * modelled.forward_s[0])
    assert scaled.node_s == pytest.approx(factor * modelled.node_s)


def test_one_rank_waits_for_nobody():
    (made,) = prospects(square(20), [1], WORKLOAD, COMPUTE)
    assert made.forecast.step_s() == made.forecast.compute_s == made.forecast.mean_step_s({})
    assert made.to_dict()["links"] == {}


def test_parts_are_placed_in_the_prospects():
    made = prospects(square(60), [4, 16], WORKLOAD, COMPUTE, method="random", devices=4)
    assert [each.hierarchy for each in made] == [Hierarchy(1, 4), Hierarchy(4, 4)]
    share = made[1].network_share
    assert share["by_chance"] == pytest.approx(12 / 15)
    assert share["placed"] <= share["as_numbered"]
    memory = [float(each.forecast.memory_bytes().double().mean()) for each in made]
    assert memory[1] < memory[0]
    (nested,) = prospects(square(60), [16], WORKLOAD, COMPUTE, devices=4, nested=True)
    assert nested.partition.hierarchy == Hierarchy(4, 4)
    assert nested.network_share["placed"] <= nested.network_share["as_numbered"]


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path):
    path = tmp_path / "machine.json"
    path.write_text(json.dumps(made_up_machine().to_dict()))
    return str(path)


def test_the_command_prints_what_it_found(machine, capsys):
    command = ["plan", "--data", "grid:30,30", "--machine", machine, "--parts", "2..8"]
    command += ["--devices", "4", "--bandwidth", "network:0.001", "--period", "host:2,network:8"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "grid-30-30: 900 nodes" in text and "host:2,network:8" in text
    assert main([*command, "--json", "--epoch-seconds", "0.5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["parts"] for each in found] == [2, 4, 8]
    assert list(found[0]["links"]) == ["host"] and set(found[2]["links"]) == {"host", "network"}
    seconds = found[2]["seconds"]
    assert seconds["computing"] < seconds["with_period"] < seconds["exact"]
    # One of two parts, of which the larger has little more than half.
    assert 0.25 <= found[0]["seconds"]["computing"] < 0.3
    rows, sizes = (found[2]["links"]["network"][f"{x}_per_exchange"] for x in ("rows", "bytes"))
    assert [size["max"] for size in sizes] == [rows["max"] * 64 * 4] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--parts", "0"], "plan: parts must be numbers >= 1, got '0'"),
        (["--parts", "2.."], "plan: parts must be numbers >= 1, got ''"),
        (["--parts", "6", "--devices", "4"], "parts must fill hosts of 4 devices with 1 ranks"),
        (["--devices", "0"], "plan: parts, devices and ranks must be >= 1, got 2, 0 and 1"),
        (["--widths", "4,x"], "plan: widths must be numbers >= 1, got '4,x'"),
        (["--in-width", "0"], "Workload: widths must be at least one and >= 1, got 0 and (64, 64)"),
        (["--wire-bytes", "0"], "Workload: wire_bytes must be >= 1, got 0"),
        (["--bandwidth", "street:2"], "plan: bandwidth must be numbers of device, host, network"),
        (["--bandwidth", "host:0"], "bytes_per_s of host must be positive and finite, got 0.0"),
        (["--latency", "host:-1"], "latency_s of host must be positive and finite, got -1e-06"),
        (["--latency", "host:nan"], "latency_s of host must be positive and finite, got nan"),
        (["--period", "host:0"], "period: must be >= 1, got 0 for host"),
        (["--epoch-seconds", "0"], "Compute: seconds must be positive and finite, got 0.0"),
        (["--machine", "/dev/null"], "plan: /dev/null is of no machine"),
    ],
)
def test_what_cannot_be_planned(options, message, machine, capsys):
    command = ["plan", "--data", "grid:8,8", "--parts", "2", "--machine", machine]
    assert main([*command, *options]) == 2
    assert message in capsys.readouterr().err


def test_loads_of_another_graph():
    parts = partition(square(8), 2, "metis")
    with pytest.raises(ValueError, match="the partition has 64 nodes, the graph 81"):
        Loads.of(square(9), parts)


@pytest.mark.parametrize(
    ("text", "parts"), [("4,12", [4, 12]), ("2..20", [2, 4, 8, 16]), ("3..3", [3])]
)
def test_numbers_of_ranks(text, parts):
    assert parse_parts(text) == parts


def test_hosts_that_ranks_fill():
    assert hierarchy_for(4, 8) == Hierarchy(1, 4)
    assert hierarchy_for(32, 8, 2) == Hierarchy(2, 8, 2)
    with pytest.raises(ValueError, match="fill hosts of 8 devices with 2 ranks each, got 24"):
        hierarchy_for(24, 8, 2)
