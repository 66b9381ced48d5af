"""A training loop of your own over two processes, each with half of a graph.

    python examples/partitioned.py

Each of the processes holds a part of a graph of digits, and together they train one network: first
exactly, then by policies that send fewer rows from one process to the other. One process trains on
the whole graph for comparison. `work` is what a script under `torchrun` would do; here the
processes are spawned. So small a graph is not worth two: see the bytes, not the seconds.
"""

import multiprocessing
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from shared import Run, digits, steps
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

import gnnkern
import gnnkern.distributed as gd
from gnnkern.nn import GCNConv

WORLD = 2
POLICIES = ("exact", "anneal:8,4,2,1", "drift:0.1", "sampled:0.3", "pipelined")


class Fit(NamedTuple):
    """A training, how well it did, and what it sent."""

    run: Run
    accuracy: float
    num_bytes: int


class GCN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = GCNConv(64, 32)
        self.conv2 = GCNConv(32, 10)

    def forward(self, x: Tensor, graph: gnnkern.Graph) -> Tensor:
        out: Tensor = self.conv2(F.relu(self.conv1(x, graph)), graph)
        return out


def fit(policy: gd.Policy, count: int) -> Fit:
    """Train on the part of this process; without a process group that is the whole graph."""
    data = digits(k=32)
    whole = gnnkern.Graph.from_edge_index(data.edge_index, len(data.y))
    world = dist.get_world_size() if dist.is_initialized() else 1
    graph = gd.PartitionedGraph.from_graph(whole, gd.partition(whole, world, "fennel"))
    x, y, known, test = (rows[graph.owned] for rows in (data.x, data.y, data.known, data.test))

    torch.manual_seed(0)
    net = GCN()
    gd.share_weights(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    schedule = gd.Schedule(graph, policy, steps=count, warmup=3)
    losses, seconds, records = [], [], []
    for step in range(count):
        start = time.perf_counter()
        optimizer.zero_grad()
        logits = net(x, schedule.begin(step))
        # The mean over the known nodes of all processes, of which these are some.
        loss = F.cross_entropy(logits[known], y[known], reduction="sum") / int(data.known.sum())
        loss.backward()
        losses.append(gd.sum_gradients(net, loss, graph, step))
        optimizer.step()
        seconds.append(time.perf_counter() - start)
        records.append(schedule.record())
    schedule.settle()

    with torch.no_grad():
        right = (net(x, graph).argmax(1) == y)[test].sum()  # exact
    accuracy = int(graph.sum_over_ranks(right)) / int(data.test.sum())
    totals = gd.summary(gd.over_ranks(graph, records))
    return Fit(Run(losses, median(seconds)), accuracy, sum(totals["bytes"].values()))


def work(rank: int, count: int, store: str, results: Any) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD)
    found = {text: fit(gd.parse_policy(text), count) for text in POLICIES}
    if rank == 0:
        results.put(found)
    dist.destroy_process_group()


def main() -> None:
    count = steps(100, 8, __doc__)
    alone = fit(gd.Exact(), count)
    print(f"one process: test accuracy: {alone.accuracy:.3f} after {count} steps")

    results = multiprocessing.get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        spawn(work, (count, str(Path(folder) / "store"), results), nprocs=WORLD)
    found: dict[str, Fit] = results.get()
    exact = found["exact"]
    for text, each in found.items():
        share = each.num_bytes / exact.num_bytes
        print(
            f"{WORLD} processes, {text}: test accuracy: {each.accuracy:.3f}, "
            f"{each.num_bytes / 2**10:.0f} KiB sent, {share:.2f} of exact"
        )
    print(exact.run.compared(f"{WORLD} processes beside one", alone.run))


if __name__ == "__main__":
    main()
