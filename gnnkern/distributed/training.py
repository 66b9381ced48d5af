"""Training on ranks: a globally normalised loss, equal weights everywhere, exact evaluation."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from gnnkern.distributed.dropout import KeyedDropout
from gnnkern.distributed.graph import PartitionedGraph
from gnnkern.distributed.link_schedule import schedule_for
from gnnkern.distributed.origin import origin_of
from gnnkern.distributed.policies import Policy
from gnnkern.distributed.record import StepRecord
from gnnkern.distributed.waiting import all_reduce, begin_step, waiting_for
from gnnkern.distributed.wire import Wire
from gnnkern.metrics import roc_auc
from gnnkern.nn.net import Net
from gnnkern.progress import Epoch, Report
from gnnkern.recipes import Recipe

__all__ = ["NotFinite", "PartTraining", "Scores", "share_weights", "sum_gradients"]


class NotFinite(ArithmeticError):
    """A loss or a gradient is not a number; every rank raises this."""


def share_weights(module: nn.Module, group: dist.ProcessGroup | None = None) -> None:
    """Give every rank the parameters and buffers of the group's first rank."""
    if not dist.is_initialized():
        return
    source = 0 if group is None else dist.get_global_rank(group, 0)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            with waiting_for("broadcast of weights", group):
                dist.broadcast(tensor, source, group=group)


def sum_gradients(module: nn.Module, loss: Tensor, graph: PartitionedGraph, step: int) -> float:
    """Replace every gradient by its sum over the ranks, and return the sum of the losses.

    One reduction for all. Parameters without a gradient here take part with zeros, so that no rank
    waits for another. Gradients are the same bits on every rank, and so are the weights that an
    optimizer makes of them.

    Args:
        module: Whose parameters.
        loss: This rank's share of the loss: a sum over its nodes, divided by the count of all.
        graph: Whose process group.
        step: For the error.

    Raises:
        NotFinite: on every rank, where the loss or a gradient of one is not finite.
    """
    parameters = [each for each in module.parameters() if each.requires_grad]
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    grads = [each.grad for each in parameters if each.grad is not None]
    flat = torch.cat([loss.detach().reshape(1), *(grad.reshape(-1) for grad in grads)])
    # The sum is finite only if every element is.
    mine_is_finite = bool(torch.isfinite(flat.sum()))
    flat = graph.sum_over_ranks(flat)
    if not bool(torch.isfinite(flat.sum())):
        raise NotFinite(_whose(graph, mine_is_finite, step))
    for grad, part in zip(grads, flat[1:].split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(part.view_as(grad))
    return float(flat[0])


def _whose(graph: PartitionedGraph, finite: bool, step: int) -> str:
    rank, world = graph.exact.plan.rank, graph.exact.plan.hierarchy.size
    first = torch.tensor([world if finite else rank])
    if not graph.exact.is_alone:
        all_reduce(first, graph.exact.group, dist.ReduceOp.MIN)
    return (
        f"training: the loss or a gradient of rank {int(first)} is not finite in step {step}; no "
        "weight was changed"
    )


@dataclass(frozen=True)
class Scores:
    """Scores of the validation and the test nodes of all ranks."""

    val: float
    val_loss: float
    test: float

    def better_than(self, other: Scores) -> bool:
        """By validation score, then by validation loss."""
        return (self.val, -self.val_loss) > (other.val, -other.val_loss)


class PartTraining:
    """A training of node classes on a rank's part; every rank makes one, and calls it alike.

    The loss is the mean over the training nodes of all ranks, so gradients, and with them weights,
    are those of one process. Dropout of features follows from global node ids: in exact mode a
    training does not depend on the parts, but for the rounding of sums over ranks and the dropout
    of attention weights. Evaluation is exact whatever the policy.

    Args:
        graph: This rank's part.
        rows: Its rows: "x" [n, F], "y" [n], "train_mask", "val_mask" and "test_mask" [n, S] or [n].
        net: The same network on every rank; the first rank's weights are taken.
        recipe: What to train with.
        num_nodes: N of the whole graph.
        num_classes: Of the whole graph.
        policy: Which rows travel at which step; or a policy for each kind of link.
        warmup: Steps at the beginning that are exact.
        wire: What rows are rounded to between ranks, as `Schedule` has it.
        seed: Of the dropout masks.
        split: Which of the masks' columns.
        measure: Whether `records` have the drift of rows (`Schedule`).

    Attributes:
        records: What this rank exchanged in each step.
    """

    def __init__(
        self,
        graph: PartitionedGraph,
        rows: Mapping[str, Tensor],
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        recipe: Recipe,
        *,
        num_nodes: int,
        num_classes: int,
        policy: Policy | Mapping[str, Policy],
        warmup: int = 0,
        wire: Wire | str | None = None,
        seed: int = 0,
        split: int = 0,
        measure: bool = False,
    ) -> None:
        self.graph, self.net, self.optimizer, self.recipe = graph, net, optimizer, recipe
        self.x, self.y = rows["x"], rows["y"]
        self.masks = {
            part: _column(rows[f"{part}_mask"], split) for part in ("train", "val", "test")
        }
        counts = torch.stack([mask.sum() for mask in self.masks.values()])
        counts = graph.sum_over_ranks(counts)
        self.counts = dict(zip(self.masks, counts.tolist(), strict=True))
        self.num_nodes, self.num_classes = num_nodes, num_classes
        self.schedule = schedule_for(
            graph, policy, steps=recipe.epochs, warmup=warmup, wire=wire, measure=measure
        )
        self.dropout = KeyedDropout(graph.owned, seed)
        if isinstance(net, Net):
            net.drop = self.dropout
        share_weights(net, graph.exact.group)
        self.losses: list[float] = []
        self.records: list[StepRecord] = []
        self.val_scores: list[float] = []
        self.epoch_seconds: list[float] = []
        self.best, self.best_epoch = Scores(-1.0, float("inf"), 0.0), 0

    @property
    def metric(self) -> str:
        """What scores are."""
        return "ROC AUC" if self.num_classes == 2 else "accuracy"

    def train(self, report: Report | None = None) -> None:
        """Train for what is left of the recipe's epochs.

        Raises:
            NotFinite: on every rank, where a loss or a gradient is not finite.
        """
        epochs = self.recipe.epochs
        for epoch in range(len(self.losses) + 1, epochs + 1):
            begin = time.perf_counter()
            self.losses.append(self.step(epoch - 1))
            self.epoch_seconds.append(time.perf_counter() - begin)
            scores = self.evaluate()
            self.val_scores.append(scores.val)
            if scores.better_than(self.best):
                self.best, self.best_epoch = scores, epoch
            if report is not None:
                report(Epoch(epoch, epochs, self.losses[-1], scores.val))
        self.schedule.settle()

    def step(self, step: int) -> float:
        """One epoch, numbered from 0; the loss over all training nodes."""
        begin_step(f"step {step}")
        self.net.train()
        self.optimizer.zero_grad()
        loss = self._loss(step, self.schedule.begin(step))
        # On every rank, with nodes to train on or without: others wait for its gradients.
        loss.backward()
        try:
            total = sum_gradients(self.net, loss, self.graph, step)
        except NotFinite as error:
            whose = origin_of(self.graph, self.x, lambda graph: self._loss(step, graph))
            if whose is None:
                raise
            raise NotFinite(f"training: {whose}, in step {step}; no weight was changed") from error
        self.optimizer.step()
        self.records.append(self.schedule.end())
        return total

    def _loss(self, step: int, graph: PartitionedGraph) -> Tensor:
        """This rank's share of the loss."""
        self.dropout.begin(self.schedule.window(step))
        logits = self.net(self.x, graph)  # [n, C]
        mask = self.masks["train"]
        loss = F.cross_entropy(logits[mask], self.y[mask], reduction="sum")
        share: Tensor = loss / max(self.counts["train"], 1)
        return share

    @torch.no_grad()
    def evaluate(self) -> Scores:
        """Exact scores over the nodes of all ranks."""
        begin_step(f"evaluation {len(self.losses)}")
        self.net.eval()
        logits = self.net(self.x, self.graph)  # [n, C]
        val = self.masks["val"]
        loss = F.cross_entropy(logits[val], self.y[val], reduction="sum").double()
        right = logits.argmax(1) == self.y
        hits = [(right & self.masks[part]).sum().double() for part in ("val", "test")]
        sums = self.graph.sum_over_ranks(torch.stack([loss, *hits]))
        val_loss = float(sums[0]) / max(self.counts["val"], 1)
        if self.metric == "accuracy":
            val_hits, test_hits = sums[1:].tolist()
            return Scores(
                val_hits / max(self.counts["val"], 1),
                val_loss,
                test_hits / max(self.counts["test"], 1),
            )
        # Ranks among all nodes: of two classes the scores of all are few numbers.
        whole = self.graph.collect(logits, self.num_nodes)
        y = self.graph.collect(self.y, self.num_nodes)
        of_part = {}
        for part in ("val", "test"):
            mask = self.graph.collect(self.masks[part].to(torch.uint8), self.num_nodes).bool()
            of_part[part] = roc_auc(whole[mask], y[mask])
        return Scores(of_part["val"], val_loss, of_part["test"])

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed training needs, of this rank.

        "schedule", with its ghosts, "records", and "rng", the state of torch's generator, are of
        this rank and this part; the rest is the same on every rank, whatever the parts.
        """
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "records": [record.numbers() for record in self.records],
            "rng": torch.get_rng_state(),
            "losses": self.losses,
            "val_scores": self.val_scores,
            "epoch_seconds": self.epoch_seconds,
            "best": asdict(self.best),
            "best_epoch": self.best_epoch,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken: with the same part bit for bit as without a stop.

        Of other parts there are none that are of a rank: the next step is exact then.
        """
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.records = [StepRecord.from_numbers(each) for each in state.get("records", [])]
        if "schedule" in state:
            self.schedule.load_state_dict(state["schedule"])
            torch.set_rng_state(state["rng"])
        self.losses, self.val_scores = list(state["losses"]), list(state["val_scores"])
        self.epoch_seconds = list(state["epoch_seconds"])
        self.best, self.best_epoch = Scores(**state["best"]), state["best_epoch"]


def _column(mask: Tensor, split: int) -> Tensor:  # bool [n]
    return mask if mask.dim() == 1 else mask[:, split]
