"""`gnnkern train --parts P` under torchrun: the training of `gnnkern train`, on P ranks."""

from __future__ import annotations

import argparse
import datetime
import time
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from gnnkern.data import load
from gnnkern.distributed.command import node_tensors_of
from gnnkern.distributed.cut import cut
from gnnkern.distributed.graph import PartitionedGraph
from gnnkern.distributed.hierarchy import LEVELS
from gnnkern.distributed.methods import METHODS
from gnnkern.distributed.partition import Partition, partition
from gnnkern.distributed.policies import parse_policy
from gnnkern.distributed.record import over_ranks, summary
from gnnkern.distributed.storage import load_manifest, load_part
from gnnkern.distributed.train_log import EpochLog
from gnnkern.distributed.training import PartTraining
from gnnkern.distributed.wire import as_wire
from gnnkern.memory import PeakMemory
from gnnkern.progress import Epoch, Report, training_progress
from gnnkern.train import (
    SPARSE_FILL,
    TrainResult,
    check_trainable,
    network,
    optimizer_for,
    recipe_for,
    seeded,
    to_sum_one,
)

__all__ = ["add_ranks", "train_parts"]


def add_ranks(parser: argparse.ArgumentParser) -> None:
    """Add the options of a training on several ranks."""
    ranks = parser.add_argument_group(
        "ranks", "torchrun --nproc-per-node 4 -m gnnkern train --parts 4 ..."
    )
    ranks.add_argument(
        "--parts", type=int, metavar="P", help="train on P ranks, which torchrun starts"
    )
    ranks.add_argument(
        "--method", choices=list(METHODS), default="metis", help="partitioner; default: metis"
    )
    ranks.add_argument(
        "--policy",
        default="exact",
        metavar="NAME",
        help="which rows travel in which epochs: exact, hold:4, anneal:8,4,2,1, drift:0.05, "
        "pipelined or sampled:0.5; default: exact",
    )
    ranks.add_argument(
        "--warmup", type=int, default=5, metavar="N", help="exact epochs at first; default: 5"
    )
    # Not --log: torchrun takes it for a beginning of its own --log-dir.
    ranks.add_argument(
        "--log-file",
        type=Path,
        metavar="FILE",
        help="write a line of JSON per epoch: loss, rows and bytes sent, how far rows moved",
    )
    ranks.add_argument(
        "--wire",
        metavar="TYPE",
        help="round rows between ranks to bfloat16, float16 or int8; int8,bfloat16: and their "
        "gradients; default: neither",
    )
    ranks.add_argument(
        "--cover",
        action="store_true",
        help="exchange rows or sums over them for sums and means, whichever are fewer",
    )
    ranks.add_argument(
        "--timeout",
        type=float,
        default=600.0,
        metavar="X",
        help="seconds after which a rank gives up waiting for the others; default: 600",
    )


# Options of a training in one process that one on ranks does not have.
_ALONE = {"plain": False, "backend": None, "device": "cpu", "patience": None}
_ALONE |= {"seeds": None, "splits": None}
_RECIPE = ("epochs", "lr", "weight_decay", "hidden", "heads", "dropout")


def train_parts(options: argparse.Namespace) -> TrainResult | None:
    """Train on this rank's part; the result on rank 0, None on the others.

    Args:
        options: Of the command line; `data` may be a folder that `gnnkern partition` wrote.

    Raises:
        ValueError: an option cannot be, or there are other than `parts` ranks.
    """
    for name, usual in _ALONE.items():
        if getattr(options, name) != usual:
            raise ValueError(f"train: --{name} is not for a training with --parts")
    ours = not dist.is_initialized() and dist.is_torchelastic_launched()
    if ours:
        timeout = datetime.timedelta(seconds=options.timeout)
        dist.init_process_group("gloo", timeout=timeout)
    try:
        return _train(options)
    finally:
        if ours:
            dist.destroy_process_group()


def _train(options: argparse.Namespace) -> TrainResult | None:
    world = dist.get_world_size() if dist.is_initialized() else 1
    rank = dist.get_rank() if dist.is_initialized() else 0
    if world != options.parts:
        raise ValueError(
            f"train: --parts {options.parts} needs as many ranks, got {world}; start them with "
            f"torchrun --nproc-per-node {options.parts} -m gnnkern train ..."
        )
    recipe = recipe_for(options.model, {name: getattr(options, name) for name in _RECIPE})
    policy, wire = parse_policy(options.policy), as_wire(options.wire)
    begin = time.perf_counter()
    memory = PeakMemory("cpu")
    with memory, seeded(options.seed, torch.device("cpu")):
        name, graph, rows, num_nodes, num_classes = _part(options, rank)
        rows["x"] = _scaled(rows["x"], graph)
        net = network(options.model, rows["x"].shape[1], num_classes, recipe)
        training = PartTraining(
            graph,
            rows,
            net,
            optimizer_for(net, recipe),
            recipe,
            num_nodes=num_nodes,
            num_classes=num_classes,
            policy=policy,
            warmup=options.warmup,
            wire=wire,
            seed=options.seed,
            split=options.split,
            measure=options.log_file is not None,
        )
        graph.prepare()
        prepared = time.perf_counter()
        title = f"{name} {options.model} on {world} ranks"
        with training_progress(title, enabled=rank == 0 and not options.quiet) as report:
            _run(training, report, options.log_file, rank)
    totals = summary(over_ranks(graph, training.records))
    sent = torch.tensor([graph.traffic.bytes[level] for level in LEVELS])
    by_level = dict(zip(LEVELS, graph.sum_over_ranks(sent).tolist(), strict=True))
    if rank != 0:
        return None
    return TrainResult(
        data=name,
        model=options.model,
        path=f"{world} ranks, {options.policy}" + (f", {options.wire}" if wire else ""),
        seed=options.seed,
        split=options.split,
        metric=training.metric,
        test=training.best.test,
        val=training.best.val,
        best_epoch=training.best_epoch,
        stopped="epochs",
        prepare_seconds=prepared - begin,
        train_seconds=time.perf_counter() - prepared,
        peak_memory=memory.added,
        threads=torch.get_num_threads(),
        settings=asdict(recipe)
        | {"parts": world, "policy": options.policy, "bytes_sent": by_level}
        | {"exchanges": totals, "wire": options.wire, "cover": options.cover},
        losses=training.losses,
        val_scores=training.val_scores,
        epoch_seconds=training.epoch_seconds,
    )


def _run(training: PartTraining, report: Report, path: Path | None, rank: int) -> None:
    """Train, with a log where one is asked for."""
    if path is None:
        training.train(report)
        return
    log = EpochLog(training, path if rank == 0 else None)

    def after(epoch: Epoch) -> None:
        report(epoch)
        log(epoch)

    try:
        training.train(after)
    finally:
        log.close()


def _part(
    options: argparse.Namespace, rank: int
) -> tuple[str, PartitionedGraph, dict[str, Tensor], int, int]:
    """Name, graph, rows of this rank, and the counts of nodes and classes of the whole."""
    if isinstance(options.data, str) and (Path(options.data) / "manifest.json").is_file():
        manifest = load_manifest(options.data)
        if manifest.num_parts != options.parts:
            raise ValueError(
                f"train: {options.data} has {manifest.num_parts} parts, got --parts {options.parts}"
            )
        part, rows = load_part(options.data, rank)
        missing = [
            name for name in ("x", "y", "train_mask", "val_mask", "test_mask") if name not in rows
        ]
        if missing:
            raise ValueError(f"train: {options.data} has no {', '.join(missing)}")
        name, num_classes = manifest.extra["data"], manifest.extra["num_classes"]
        graph = PartitionedGraph.from_part(part, cover=options.cover)
        return name, graph, rows, manifest.num_nodes, num_classes
    data = load(options.data)
    check_trainable(data, options.split)
    made: list[Partition | None] = [None]
    if rank == 0:
        made = [partition(data.graph(), options.parts, options.method, seed=options.seed)]
    if dist.is_initialized():
        # Made once: a partitioner need not give two processes the same.
        dist.broadcast_object_list(made, 0)
    assert made[0] is not None
    (part,) = cut(data.graph(), made[0], ranks=range(rank, rank + 1))
    rows = {name: tensor[part.owned] for name, tensor in node_tensors_of(data).items()}
    graph = PartitionedGraph.from_part(part, cover=options.cover)
    return data.name, graph, rows, data.num_nodes, data.num_classes


def _scaled(x: Tensor, graph: PartitionedGraph) -> Tensor:  # [n, F]
    """Bag-of-words features with rows that sum to 1, others as they are; as all ranks find."""
    found = torch.stack([(x < 0).sum(), x.count_nonzero(), torch.tensor(x.numel())])
    negative, filled, total = graph.sum_over_ranks(found).tolist()
    if total == 0 or negative or filled > SPARSE_FILL * total:
        return x
    return to_sum_one(x)
