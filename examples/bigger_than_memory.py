"""A graph whose features do not fit in one process: divided in one step, trained by four ranks.

    python examples/bigger_than_memory.py

Every step is a process that may allocate as much as LIMIT says on top of what importing torch
takes, and the features alone are more; pages of mapped files, which the system can drop, do not
count. The first step divides the edges and writes a file per part,
with the rows of the features that belong there, read from a mapped file a part at a time. Then each
of four ranks reads its own file and they train together, here in a loop of their own;
`torchrun --nproc-per-node 4 -m gnnkern train --parts 4 --data FOLDER` would do as well. One process
with the whole graph tries the same, and fails.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from shared import steps
from torch import Tensor

import gnnkern.distributed as gd
from gnnkern.data import power_law
from gnnkern.nn.models import gcn

LIMIT = 128 * 2**20
RANKS, NODES, EDGES, WIDTH, CLASSES = 4, 100_000, 500_000, 512, 10
# Rows of features that are made at a time.
BLOCK = 5_000


def write_features(folder: Path) -> int:
    """A file of features [N, WIDTH], as another program would have left it; the bytes of it."""
    generator = np.random.default_rng(0)
    centre = generator.standard_normal((CLASSES, WIDTH), dtype=np.float32)
    shape = (NODES, WIDTH)
    x = np.lib.format.open_memmap(folder / "x.npy", mode="w+", dtype=np.float32, shape=shape)
    for first in range(0, NODES, BLOCK):
        block = slice(first, first + BLOCK)
        noise = generator.standard_normal((BLOCK, WIDTH), dtype=np.float32)
        x[block] = 0.1 * centre[classes(torch.arange(NODES)[block]).numpy()] + noise
    return int(x.nbytes)


def classes(nodes: Tensor) -> Tensor:
    """The class of a node: its community."""
    return nodes * CLASSES // NODES


def divide(folder: Path) -> str:
    """Write the parts; of the features there is one part in memory at a time."""
    data = power_law(NODES, EDGES, 1000, community_fraction=0.8, num_communities=CLASSES, seed=0)
    graph = data.graph()
    parts = gd.partition(graph, RANKS, "fennel")
    x = np.load(folder / "x.npy", mmap_mode="r")

    def rows(nodes: Tensor) -> dict[str, Tensor]:
        known = nodes % 2 == 0
        return {"x": torch.from_numpy(x[nodes.numpy()]), "y": classes(nodes), "known": known}

    gd.save_parts(folder / "parts", gd.cut(graph, parts), parts, node_tensors=rows)
    return repr(parts)


def train(folder: Path, rank: int, count: int) -> tuple[float, float]:
    """Train on a rank's own part: the accuracy on nodes that are not known, seconds per step."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/ranks", rank=rank, world_size=RANKS
    )
    part, rows = gd.load_part(folder / "parts", rank)
    graph = gd.PartitionedGraph.from_part(part)
    x, y, known = rows["x"], rows["y"], rows["known"]
    torch.manual_seed(0)
    net = gcn(WIDTH, CLASSES, hidden=16, dropout=0.0)
    gd.share_weights(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    schedule = gd.Schedule(graph, gd.Anneal(4, 2, 1), steps=count)
    counts = graph.sum_over_ranks(torch.stack([known.sum(), (~known).sum()]))
    seconds = []
    # Inside a watch, ranks say which of them is gone where one is.
    with gd.Watch():
        for step in range(count):
            begin = time.perf_counter()
            optimizer.zero_grad()
            logits = net(x, schedule.begin(step))  # [n, C]
            loss = F.cross_entropy(logits[known], y[known], reduction="sum") / counts[0]
            loss.backward()
            gd.sum_gradients(net, loss, graph, step)
            optimizer.step()
            seconds.append(time.perf_counter() - begin)
        with torch.no_grad():
            right = (net(x, graph).argmax(1) == y) & ~known
        hits = graph.sum_over_ranks(right.sum())
    dist.destroy_process_group()
    return float(hits / counts[1]), statistics.median(seconds)


def train_alone(folder: Path) -> str:
    """What one process says that is to hold all of the features."""
    try:
        # The file is mapped; the copy that a network needs is not.
        x = torch.from_numpy(np.load(folder / "x.npy"))
    except (MemoryError, RuntimeError) as error:
        return f"no memory: {str(error).splitlines()[0]}"
    return f"{x.nbytes / 2**20:.0f} MiB of features fit, so there was no need for ranks"


def load_optimizer() -> None:
    """The first step of the first optimizer loads half of torch, which is no cost of a graph."""
    weight = torch.zeros(1, requires_grad=True)
    weight.grad = torch.zeros(1)
    torch.optim.Adam([weight]).step()


def limited(step: Callable[..., Any], *arguments: Any) -> Any:
    """Run a step that cannot allocate more than the limit."""
    torch.set_num_threads(1)
    status = Path("/proc/self/status").read_text()
    allocated = int(status.partition("VmData:")[2].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (allocated + LIMIT, resource.RLIM_INFINITY))
    return step(*arguments)


def main() -> None:
    count = steps(60, 12, __doc__)
    load_optimizer()
    # Processes come from one that has imported everything and done nothing yet.
    processes = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        size = write_features(folder)
        print(
            f"{NODES} nodes, {EDGES} edges, {size / 2**20:.0f} MiB of features; a process may "
            f"allocate {LIMIT / 2**20:.0f} MiB"
        )

        def run(*tasks: tuple[Any, ...]) -> list[Any]:
            with processes.Pool(len(tasks), maxtasksperchild=1) as pool:
                return pool.starmap(limited, tasks, chunksize=1)

        print(*run((divide, folder)))
        print("one process:", *run((train_alone, folder)))
        share, seconds = run(*((train, folder, rank, count) for rank in range(RANKS)))[0]
        print(f"{RANKS} ranks: {1e3 * seconds:.0f} ms per step\ntest accuracy: {share:.3f}")


if __name__ == "__main__":
    main()
